"""What the images of a plane are like, measured on the very record that the ensemble reads."""

from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lumbar_tf.records.example import parse_features
from lumbar_tf.records.schema import PixelEncoding

#: Slices that are looked at, spread evenly, and every so many of their lines: enough for a mean.
_MAX_SLICES = 5
_LINE_STEP = 4

#: What is measured, in the order of the log; None where the plane is missing.
IMAGE_QUANTITIES = (
    "slices",
    "series",
    "rows",
    "columns",
    "row_spacing_mm",
    "gap_mm",
    "low",
    "high",
    "brightness",
    "sharpness",
)


def measure_images(serialized: bytes) -> dict[str, float | None]:
    """Measures one plane of a study.

    Args:
        serialized: its Example (`records.schema`); b"" for a missing plane.

    Returns:
        By name: numbers of `slices` and `series`; of the middle slice `rows`, `columns` and
        `row_spacing_mm`; `gap_mm`, the median distance of neighbouring slices of a group along their normal;
        `low` and `high`, the 0.5 and 99.5 percentiles of its first series; `brightness`, the mean pixel where
        these are 0 and 1; `sharpness`, the mean step between neighbouring pixels of a line in the same unit,
        which falls with blur and rises with noise.
    """
    nothing: dict[str, float | None] = dict.fromkeys(IMAGE_QUANTITIES)
    if not serialized:
        return nothing
    features = parse_features(serialized)
    count = len(features["slices/rows"])
    if not count:
        return nothing
    middle = count // 2
    brightness, sharpness = _measure_pixels(features, count)
    return {
        "slices": float(count),
        "series": float(len(features["series/id"])),
        "rows": float(features["slices/rows"][middle]),
        "columns": float(features["slices/columns"][middle]),
        "row_spacing_mm": float(features["slices/row_spacing_mm"][middle]),
        "gap_mm": _gap_mm(features),
        "low": float(features["series/low"][0]),
        "high": float(features["series/high"][0]),
        "brightness": brightness,
        "sharpness": sharpness,
    }


def _gap_mm(features: dict[str, list[Any]]) -> float | None:
    """Returns the median distance of neighbouring slices of a group; None for single ones."""
    position, right, down = (
        np.reshape(np.array(features[f"slices/{name}"], np.float64), (-1, 3))
        for name in ("position", "row_direction", "column_direction")
    )
    group = np.array(features["slices/group"])
    depth = np.sum(position * np.cross(right, down), axis=-1)
    gaps = [np.diff(np.sort(depth[group == each])) for each in np.unique(group)]
    found = np.concatenate(gaps)
    return float(np.median(found)) if found.size else None


def _measure_pixels(features: dict[str, list[Any]], count: int) -> tuple[float | None, float | None]:
    """Returns brightness and sharpness; None where the images are constant."""
    levels, steps = [], []
    for index in np.unique(np.linspace(0, count - 1, min(count, _MAX_SLICES)).round().astype(int)):
        series = features["slices/series"][index]
        low, high = features["series/low"][series], features["series/high"][series]
        if not high > low:
            continue
        stored = _decode(features, int(index))[::_LINE_STEP].astype(np.float64)
        pixels = stored * features["slices/scale"][index] + features["slices/offset"][index]
        # Beyond the percentiles lie artefacts, whose size says nothing.
        pixels = np.clip((pixels - low) / (high - low), 0, 1)
        levels.append(pixels.mean())
        if pixels.shape[1] > 1:
            steps.append(np.abs(np.diff(pixels, axis=1)).mean())
    return _mean(levels), _mean(steps)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _decode(features: dict[str, list[Any]], index: int) -> NDArray[np.uint16]:
    encoded = features["slices/image"][index]
    if features["codec"][0] == PixelEncoding.RAW.value.encode():
        shape = features["slices/rows"][index], features["slices/columns"][index]
        return np.frombuffer(encoded, "<u2").reshape(shape)
    return np.asarray(imagecodecs.png_decode(encoded), np.uint16)
