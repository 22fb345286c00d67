"""Quantities of a predicted study that describe the cohort and identify no patient.

The name of a quantity says where to look: `probability/<finding>/severe`, `disagreement/<condition>`,
`flags/<flag>`, `landmarks/found`, `images/<plane>/sharpness`, and so on. The value is None where the quantity
could not be measured, for example the sharpness of a missing plane.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lumbar_tf.labels import FINDINGS, NUM_LEVELS, Condition, Flag, Plane, Severity
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.schema import PixelEncoding

Quantities = dict[str, float | None]

#: The third probability follows from these two.
_LOGGED_GRADES = (Severity.NORMAL_MILD, Severity.SEVERE)
_DIGITS = 6
#: Number of slices, evenly spaced, and step between their lines that are measured: enough for a mean.
_MAX_SLICES = 5
_LINE_STEP = 4

#: Names of the image quantities in the order of the log.
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
    """Measures the images of one plane of a study, on the record that the ensemble reads.

    Args:
        serialized: the plane's Example (`records.schema`); b"" for a missing plane.

    Returns:
        Quantities by name, None for a missing plane: the number of `slices` and `series`; `rows`, `columns`
            and
        `row_spacing_mm` of the middle slice; `gap_mm`, the median distance of neighbouring slices of a group
        along their normal; `low` and `high`, the 0.5 and 99.5 percentiles of the first series; `brightness`,
        the mean pixel value on a scale where these percentiles are 0 and 1; `sharpness`, the mean absolute
        difference of neighbouring pixels of a line on that scale, which falls with blur and rises with noise.
    """
    nothing: dict[str, float | None] = dict.fromkeys(IMAGE_QUANTITIES)
    if not serialized:
        return nothing
    features = parse_example_features(serialized)
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
    """Returns the median distance of neighbouring slices of a group; None for single slices."""
    position, right, down = (
        np.reshape(np.array(features[f"slices/{name}"], np.float64), (-1, 3))
        for name in ("position", "row_direction", "column_direction")
    )
    group = np.array(features["slices/group"])
    depth = np.sum(position * np.cross(right, down), axis=-1)
    gaps = [np.diff(np.sort(depth[group == number])) for number in np.unique(group)]
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
        # Values beyond the percentiles are artefacts of arbitrary size.
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


def measure_answer(
    probability: ArrayLike,
    members: ArrayLike,
    landmarks: ArrayLike,
    flags: ArrayLike,
    examples: Mapping[Plane, bytes],
    *,
    extras: Mapping[str, NDArray[Any]] | None = None,
) -> Quantities:
    """Measures one predicted study.

    Args:
        probability: calibrated probabilities, [25, 3].
        members: predictions of the members, [member, 25, 3], NaN where there is none.
        landmarks: LPS positions in mm, [25, 3], NaN where unknown.
        flags: bool [25, len(Flag)].
        examples: serialized Examples by plane.
        extras: other outputs of the model by name, [25, ...]; means and maxima are measured.

    Returns:
        Quantities by name, without identifiers, dates or positions of the patient.
    """
    measured = measure_probabilities(probability, members)
    flagged = np.asarray(flags, np.float64).mean(axis=0)
    measured.update({f"flags/{flag.value}": float(share) for flag, share in zip(Flag, flagged, strict=True)})
    measured.update(_measure_landmarks(np.asarray(landmarks, np.float64)))
    for name, values in (extras or {}).items():
        known = np.asarray(values, np.float64)
        known = known[np.isfinite(known)]
        measured[f"outputs/{name}/mean"] = float(known.mean()) if known.size else None
        measured[f"outputs/{name}/max"] = float(known.max()) if known.size else None
    measured.update(measure_planes(examples))
    return _rounded(measured)


def measure_probabilities(probability: ArrayLike, members: ArrayLike) -> Quantities:
    """Measures the predictions of a study.

    Args:
        probability: calibrated probabilities, [25, 3], NaN where there is none.
        members: predictions of the members, [member, 25, 3], NaN where there is none.

    Returns:
        `probability/<finding>/normal_mild` and `severe`; `disagreement/<condition>`, the standard deviation
        of the members' expected grades (0 to 2), averaged over the levels with at least two members.
    """
    values = np.asarray(probability, np.float64)
    measured: Quantities = {}
    for row, finding in enumerate(FINDINGS):
        for grade in _LOGGED_GRADES:
            value = float(values[row, grade])
            measured[f"probability/{finding.name}/{grade.column}"] = value if np.isfinite(value) else None
    grades = np.asarray(members, np.float64) @ np.arange(len(Severity))
    for place, condition in enumerate(Condition):
        levels = grades[:, place * NUM_LEVELS : (place + 1) * NUM_LEVELS]
        is_compared = np.isfinite(levels).sum(axis=0) > 1
        deviations = np.nanstd(levels[:, is_compared], axis=0)
        measured[f"disagreement/{condition.value}"] = float(deviations.mean()) if deviations.size else None
    return _rounded(measured)


def measure_planes(examples: Mapping[Plane, bytes]) -> Quantities:
    """Measures the images of a study: `images/<plane>/present` and the quantities of `measure_images`."""
    measured: Quantities = {}
    for plane in Plane:
        found = measure_images(examples.get(plane, b""))
        measured[f"images/{plane.value}/present"] = float(found["slices"] is not None)
        measured.update({f"images/{plane.value}/{name}": value for name, value in found.items()})
    return _rounded(measured)


def _measure_landmarks(landmarks: NDArray[np.float64]) -> Quantities:
    """Measures the number of landmarks and the distance between the levels of the canal."""
    is_found = np.isfinite(landmarks).all(axis=-1)
    canal = landmarks[:NUM_LEVELS]  # the landmarks of the first condition, spinal canal stenosis, by level
    spacing = np.linalg.norm(np.diff(canal, axis=0), axis=-1)
    spacing = spacing[np.isfinite(spacing)]
    return {
        "landmarks/found": float(is_found.sum()),
        "landmarks/level_spacing_mm": float(np.median(spacing)) if spacing.size else None,
    }


def _rounded(measured: Quantities) -> Quantities:
    return {name: None if value is None else round(value, _DIGITS) for name, value in measured.items()}
