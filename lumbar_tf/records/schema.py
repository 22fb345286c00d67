"""The record: one tf.train.Example for a study and plane, in both directions.

`tfrecords/README.md` documents every feature. Writing happens in `encode_plane`, reading in
`parse_example`, which uses core TensorFlow ops only because the exported graph calls it too.
"""

from collections.abc import Iterable, Sequence

import imagecodecs
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from lumbar_tf.imaging.study import Slice, SliceGroup, arrange_slices
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Plane

#: Patch: the same data. Minor: new features, readers of the same major go on. Major: changed data.
SCHEMA_VERSION = "1.0.0"

#: The share of a series' pixels below `series/low` and `series/high`.
LOW_QUANTILE, HIGH_QUANTILE = 0.005, 0.995

#: 16-bit lumbar slices, a core, 2026: the "sub" filter with zlib's run-length strategy encodes in 0.4 of the
#: time of the defaults at the same level, to slightly fewer bytes (0.54 against 0.56 of raw).
_PNG_OPTIONS = {
    "level": 1,
    "strategy": int(imagecodecs.PNG.STRATEGY.RLE),
    "filter": int(imagecodecs.PNG.FILTER.SUB),
}
_MAX_STORED = 65535  # 16-bit PNG

_SLICE_VECTORS = ("slices/position", "slices/row_direction", "slices/column_direction")
_SLICE_FLOATS = ("slices/scale", "slices/offset", "slices/row_spacing_mm", "slices/column_spacing_mm")
_SLICE_INTEGERS = (
    "slices/rows",
    "slices/columns",
    "slices/series",
    "slices/group",
    "slices/instance_number",
)


def feature_spec() -> dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]:
    """Returns how each feature is parsed; an absent feature is empty or missing, not an error."""

    def sequence(shape: Sequence[int], dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
        return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)

    spec = {
        name: tf.io.FixedLenFeature([], tf.string, "") for name in ("schema_version", "study_id", "plane")
    }
    spec["labels"] = tf.io.FixedLenFeature([NUM_FINDINGS], tf.int64, [MISSING_LABEL] * NUM_FINDINGS)
    spec["points"] = tf.io.FixedLenFeature([NUM_FINDINGS, 3], tf.float32, [float("nan")] * (NUM_FINDINGS * 3))
    spec["series/id"] = sequence([], tf.string)
    spec["series/low"] = sequence([], tf.float32)
    spec["series/high"] = sequence([], tf.float32)
    spec["slices/image"] = sequence([], tf.string)
    spec.update({name: sequence([], tf.float32) for name in _SLICE_FLOATS})
    spec.update({name: sequence([], tf.int64) for name in _SLICE_INTEGERS})
    spec.update({name: sequence([3], tf.float32) for name in _SLICE_VECTORS})
    return spec


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record; images stay encoded.

    Args:
        serialized: scalar string, an Example made by `encode_plane`, or "" for a missing plane.

    Returns:
        The features by name: `labels` int64 [25] (-1 missing), `points` float32 [25, 3] (LPS mm, NaN
        missing), `series/*` [S], `slices/*` [N] and the three vectors [N, 3]. A missing plane has
        S = N = 0.
    """
    return tf.io.parse_single_example(serialized, feature_spec())


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one entry of `slices/image` to stored values, uint16 [rows, columns].

    A pixel's value is stored * `slices/scale` + `slices/offset`.
    """
    image = tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)
    return tf.squeeze(image, axis=-1)


def encode_plane(
    study_id: str,
    plane: Plane,
    slices: Iterable[Slice],
    *,
    labels: ArrayLike | None = None,
    points: ArrayLike | None = None,
) -> bytes:
    """Makes the record of one plane of a study. The same input gives the same bytes.

    Args:
        study_id: the study.
        plane: the plane.
        slices: its slices in any order, of one or several series.
        labels: integers [25], -1 for missing; None when there are none.
        points: LPS mm [25, 3], NaN for missing; None when there are none.

    Returns:
        A serialized tf.train.Example.

    Raises:
        ValueError: labels or points of another shape, or pixels that are not finite.
    """
    groups = arrange_slices(slices)
    features = {
        "schema_version": _bytes([SCHEMA_VERSION.encode()]),
        "study_id": _bytes([study_id.encode()]),
        "plane": _bytes([plane.value.encode()]),
        "labels": _integers(_filled(labels, (NUM_FINDINGS,), MISSING_LABEL, "labels")),
        "points": _floats(_filled(points, (NUM_FINDINGS, 3), np.nan, "points")),
    }
    features.update(_encode_groups(groups))
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Map fields have no order of their own; without this two runs could differ.
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _encode_groups(groups: Sequence[SliceGroup]) -> dict[str, tf.train.Feature]:
    series_ids = sorted({group.series_id for group in groups})
    members = [(index, each) for index, group in enumerate(groups) for each in group.slices]
    geometries = [each.geometry for _, each in members]
    stored = [_store(each) for _, each in members]
    ranges = []
    for series_id in series_ids:
        mine = [
            image for image, (_, each) in zip(stored, members, strict=True) if each.series_id == series_id
        ]
        ranges.append(_value_range(mine))
    return {
        "series/id": _bytes([each.encode() for each in series_ids]),
        "series/low": _floats([low for low, _ in ranges]),
        "series/high": _floats([high for _, high in ranges]),
        "slices/image": _bytes([_encode_png(image) for image, _, _ in stored]),
        "slices/scale": _floats([scale for _, scale, _ in stored]),
        "slices/offset": _floats([offset for _, _, offset in stored]),
        "slices/rows": _integers([each.rows for each in geometries]),
        "slices/columns": _integers([each.columns for each in geometries]),
        "slices/position": _floats([each.position for each in geometries]),
        "slices/row_direction": _floats([each.row_direction for each in geometries]),
        "slices/column_direction": _floats([each.column_direction for each in geometries]),
        "slices/row_spacing_mm": _floats([each.row_spacing_mm for each in geometries]),
        "slices/column_spacing_mm": _floats([each.column_spacing_mm for each in geometries]),
        "slices/series": _integers([series_ids.index(each.series_id) for _, each in members]),
        "slices/group": _integers([index for index, _ in members]),
        "slices/instance_number": _integers([each.instance_number for _, each in members]),
    }


_Stored = tuple[NDArray[np.uint16], float, float]


def _store(each: Slice) -> _Stored:
    """Returns (stored, scale, offset) with value = stored * scale + offset.

    Whole numbers that span at most 65535 are kept exactly (scale 1); anything else is spread over
    the 16 bits, so the error is at most half of the range divided by 65535.
    """
    pixels = each.pixels
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(high - low):
        raise ValueError(
            f"Pixel values must be finite. Received: {low} to {high} "
            f"(series {each.series_id}, instance {each.instance_number})."
        )
    stored = pixels.astype(np.uint16) if low >= 0 and high <= _MAX_STORED else None
    if stored is not None and np.array_equal(stored, pixels):
        return stored, 1.0, 0.0
    if high - low <= _MAX_STORED and np.array_equal(np.rint(pixels), pixels):
        return (pixels - np.float32(low)).astype(np.uint16), 1.0, low
    # The record holds float32, so float32 is what the stored values must be divided by.
    scale = float(np.float32((high - low) / _MAX_STORED))
    if scale == 0:  # a constant image, or one whose range float32 cannot divide
        return np.zeros(pixels.shape, np.uint16), 1.0, low
    spread = np.rint((pixels.astype(np.float64) - low) / scale)
    return np.minimum(spread, _MAX_STORED).astype(np.uint16), scale, low


def _encode_png(image: NDArray[np.uint16]) -> bytes:
    return bytes(imagecodecs.png_encode(image, **_PNG_OPTIONS))


def _value_range(images: Sequence[_Stored]) -> tuple[float, float]:
    """Returns the 0.5 and 99.5 percentile (nearest rank) of a series' values."""
    if all((scale, offset) == images[0][1:] for _, scale, offset in images):
        # Counting 16-bit values is several times faster than sorting them.
        counts = sum(np.bincount(image.ravel(), minlength=_MAX_STORED + 1) for image, _, _ in images)
        below = np.cumsum(counts)
        ranks = np.ceil(np.array([LOW_QUANTILE, HIGH_QUANTILE]) * below[-1])
        low, high = np.searchsorted(below, ranks) * images[0][1] + images[0][2]
    else:
        values = np.concatenate([image.ravel() * scale + offset for image, scale, offset in images])
        low, high = np.quantile(values, [LOW_QUANTILE, HIGH_QUANTILE], method="inverted_cdf")
    return float(low), float(high)


def _filled(
    values: ArrayLike | None, shape: tuple[int, ...], missing: float, name: str
) -> NDArray[np.generic]:
    if values is None:
        return np.full(shape, missing)
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}. Received: {array.shape}.")
    return array


def _bytes(values: Sequence[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _floats(values: ArrayLike) -> tf.train.Feature:
    flat = np.asarray(values, np.float32).ravel()
    return tf.train.Feature(float_list=tf.train.FloatList(value=flat))


def _integers(values: ArrayLike) -> tf.train.Feature:
    flat = np.asarray(values, np.int64).ravel()
    return tf.train.Feature(int64_list=tf.train.Int64List(value=flat))
