"""Schema of the record, one per study and plane, and its encoding.

`tfrecords/README.md` documents every feature; `records/parsing.py` reads them in TensorFlow's graphs. This
module does not import TensorFlow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lumbar_tf.dicom.study import Slice, SliceGroup, arrange_slices
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Plane
from lumbar_tf.records.example import Piece, Values, example_pieces, join_pieces

#: Patch: the same data. Minor: new features, compatible with readers of the same major. Major: changed data.
SCHEMA_VERSION = "2.0.0"

#: The share of a series' sampled pixels below `series/low` and `series/high`.
LOW_QUANTILE, HIGH_QUANTILE = 0.005, 0.995

#: For 16-bit lumbar slices (one core, 2026) the "sub" filter with zlib's run-length strategy takes 0.4 of the
#: time of the defaults at the same level, and gives slightly fewer bytes (0.54 instead of 0.56 of raw).
_PNG_OPTIONS = {
    "level": 1,
    "strategy": int(imagecodecs.PNG.STRATEGY.RLE),
    "filter": int(imagecodecs.PNG.FILTER.SUB),
}
#: Rows of an image that its series' percentiles are computed from: at least this, less than twice as many.
_SAMPLED_ROWS = 64
_MAX_STORED = 65535
#: Smaller steps are denormal in float32, and some processors flush them to zero.
_SMALLEST_STEP = float(np.finfo(np.float32).tiny)


class FeatureAxis(Enum):
    """The first axis of a feature's values."""

    RECORD = "record"
    FINDING = "finding"
    SERIES = "series"
    SLICE = "slice"


@dataclass(frozen=True)
class FeatureSpec:
    """A feature of the record.

    Attributes:
        kind: type of the values: bytes, int (int64) or float (float32).
        axis: the first axis.
        size: number of values per element of that axis; 3 for points and vectors in patient space.
        may_be_nan: whether a float may be NaN (missing); all others must be finite.
    """

    kind: type[bytes] | type[int] | type[float]
    axis: FeatureAxis
    size: int = 1
    may_be_nan: bool = False


#: Every feature of the record. `tfrecords/README.md` describes them; parser, checks and slice reader use this
#: table.
FEATURES: Mapping[str, FeatureSpec] = {
    "schema_version": FeatureSpec(bytes, FeatureAxis.RECORD),
    "study_id": FeatureSpec(bytes, FeatureAxis.RECORD),
    "plane": FeatureSpec(bytes, FeatureAxis.RECORD),
    "codec": FeatureSpec(bytes, FeatureAxis.RECORD),
    "labels": FeatureSpec(int, FeatureAxis.FINDING),
    "points": FeatureSpec(float, FeatureAxis.FINDING, 3, may_be_nan=True),
    "series/id": FeatureSpec(bytes, FeatureAxis.SERIES),
    "series/low": FeatureSpec(float, FeatureAxis.SERIES),
    "series/high": FeatureSpec(float, FeatureAxis.SERIES),
    "slices/image": FeatureSpec(bytes, FeatureAxis.SLICE),
    "slices/scale": FeatureSpec(float, FeatureAxis.SLICE),
    "slices/offset": FeatureSpec(float, FeatureAxis.SLICE),
    "slices/rows": FeatureSpec(int, FeatureAxis.SLICE),
    "slices/columns": FeatureSpec(int, FeatureAxis.SLICE),
    "slices/position": FeatureSpec(float, FeatureAxis.SLICE, 3),
    "slices/row_direction": FeatureSpec(float, FeatureAxis.SLICE, 3),
    "slices/column_direction": FeatureSpec(float, FeatureAxis.SLICE, 3),
    "slices/row_spacing_mm": FeatureSpec(float, FeatureAxis.SLICE),
    "slices/column_spacing_mm": FeatureSpec(float, FeatureAxis.SLICE),
    "slices/series": FeatureSpec(int, FeatureAxis.SLICE),
    "slices/group": FeatureSpec(int, FeatureAxis.SLICE),
    "slices/instance_number": FeatureSpec(int, FeatureAxis.SLICE),
}
#: The feature of encoded images.
IMAGE_FEATURE = "slices/image"


class PixelEncoding(Enum):
    """Encoding of images in a record; see `tests/benchmarks/README.md` for measurements."""

    #: uint16, little endian, row by row: decoding is as fast as reading.
    RAW = "raw"
    #: 16-bit grey PNG: about half the size; several times the time of decoding the DICOM file.
    PNG = "png"


def encode_plane(
    study_id: str,
    plane: Plane,
    slices: Iterable[Slice],
    *,
    labels: ArrayLike | None = None,
    points: ArrayLike | None = None,
    codec: PixelEncoding = PixelEncoding.RAW,
) -> bytes:
    """Encodes the record of one plane of a study as bytes; see `encode_plane_pieces`."""
    return join_pieces(
        encode_plane_pieces(study_id, plane, slices, labels=labels, points=points, codec=codec)
    )


def encode_plane_pieces(
    study_id: str,
    plane: Plane,
    slices: Iterable[Slice],
    *,
    labels: ArrayLike | None = None,
    points: ArrayLike | None = None,
    codec: PixelEncoding = PixelEncoding.RAW,
) -> list[Piece]:
    """Encodes the record of one plane of a study. The same input gives the same bytes.

    Args:
        study_id: the study.
        plane: the plane.
        slices: its slices in any order, of one or several series.
        labels: integers [25], -1 for missing; None without labels.
        points: LPS mm [25, 3], NaN for missing; None without points.
        codec: encoding of the images.

    Returns:
        A serialized tf.train.Example, in pieces, so that it can be written without a copy of its images.

    Raises:
        ValueError: labels or points have another shape, or pixels are not finite.
    """
    features: dict[str, Values] = {
        "schema_version": [SCHEMA_VERSION.encode()],
        "study_id": [study_id.encode()],
        "plane": [plane.value.encode()],
        "codec": [codec.value.encode()],
        "labels": _integers(_filled(labels, (NUM_FINDINGS,), MISSING_LABEL, "labels")),
        "points": _floats(_filled(points, (NUM_FINDINGS, 3), np.nan, "points")),
    }
    return example_pieces({**features, **_encode_groups(arrange_slices(slices), codec)})


def _encode_groups(groups: Sequence[SliceGroup], codec: PixelEncoding) -> dict[str, Values]:
    series_ids = sorted({group.series_id for group in groups})
    members = [(index, member) for index, group in enumerate(groups) for member in group.slices]
    geometries = [member.geometry for _, member in members]
    stored = [_store(member) for _, member in members]
    ranges = []
    for series_id in series_ids:
        mine = [
            image for image, (_, each) in zip(stored, members, strict=True) if each.series_id == series_id
        ]
        ranges.append(_value_range(mine))
    return {
        "series/id": [series_id.encode() for series_id in series_ids],
        "series/low": _floats([low for low, _ in ranges]),
        "series/high": _floats([high for _, high in ranges]),
        "slices/image": [_encode_image(image, codec) for image, _, _ in stored],
        "slices/scale": _floats([scale for _, scale, _ in stored]),
        "slices/offset": _floats([offset for _, _, offset in stored]),
        "slices/rows": _integers([geometry.rows for geometry in geometries]),
        "slices/columns": _integers([geometry.columns for geometry in geometries]),
        "slices/position": _floats([geometry.position for geometry in geometries]),
        "slices/row_direction": _floats([geometry.row_direction for geometry in geometries]),
        "slices/column_direction": _floats([geometry.column_direction for geometry in geometries]),
        "slices/row_spacing_mm": _floats([geometry.row_spacing_mm for geometry in geometries]),
        "slices/column_spacing_mm": _floats([geometry.column_spacing_mm for geometry in geometries]),
        "slices/series": _integers([series_ids.index(member.series_id) for _, member in members]),
        "slices/group": _integers([index for index, _ in members]),
        "slices/instance_number": _integers([member.instance_number for _, member in members]),
    }


_Stored = tuple[NDArray[np.uint16], float, float]


def _store(each: Slice) -> _Stored:
    """Returns (stored, scale, offset) with value = stored * scale + offset.

    Whole numbers with a range of at most 65535 are stored exactly (scale 1). Other values are scaled to 16
    bits, with an error of at most half of the range divided by 65535.
    """
    pixels = each.pixels
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(np.uint16, copy=False), 1.0, 0.0
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(high - low):
        raise ValueError(
            f"Pixel values must be finite. Received: {low} to {high} "
            f"(series {each.series_id}, instance {each.instance_number})."
        )
    if high - low <= _MAX_STORED and (pixels.dtype.kind in "iu" or np.array_equal(np.rint(pixels), pixels)):
        offset = low if low < 0 or high > _MAX_STORED else 0.0
        # In float64: a difference of 65535 overflows int16.
        return (pixels.astype(np.float64) - offset).astype(np.uint16), 1.0, offset
    # The scale is stored as float32, so the values are divided by the float32 value.
    scale = float(np.float32((high - low) / _MAX_STORED))
    if scale < _SMALLEST_STEP:  # a constant image, or one whose range float32 cannot divide
        return np.zeros(pixels.shape, np.uint16), 1.0, low
    spread = np.rint((pixels.astype(np.float64) - low) / scale)
    return np.minimum(spread, _MAX_STORED).astype(np.uint16), scale, low


def _encode_image(image: NDArray[np.uint16], codec: PixelEncoding) -> Piece:
    if codec is PixelEncoding.RAW:
        return np.ascontiguousarray(image, "<u2").reshape(-1).view(np.uint8)
    return bytes(imagecodecs.png_encode(image, **_PNG_OPTIONS))


def _value_range(images: Sequence[_Stored]) -> tuple[float, float]:
    """Returns the 0.5 and 99.5 percentile (nearest rank) of the sampled rows of a series."""
    samples = [_sample(image).ravel() for image, _, _ in images]
    if all((scale, offset) == images[0][1:] for _, scale, offset in images):
        # Counting 16-bit values is several times faster than sorting.
        below = np.cumsum(np.bincount(np.concatenate(samples)))
        ranks = np.ceil(np.array([LOW_QUANTILE, HIGH_QUANTILE]) * below[-1])
        low, high = np.searchsorted(below, ranks) * images[0][1] + images[0][2]
    else:
        values = [each * scale + offset for each, (_, scale, offset) in zip(samples, images, strict=True)]
        low, high = np.quantile(np.concatenate(values), [LOW_QUANTILE, HIGH_QUANTILE], method="inverted_cdf")
    return float(low), float(high)


def _sample(image: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Returns evenly spaced rows of an image, or all rows of a small one, to estimate percentiles.

    Rows are counted from both edges, so that an image and its mirror images give the same values.
    """
    step = max(1, len(image) // _SAMPLED_ROWS)
    half = len(image) // 2
    return np.concatenate([image[: len(image) - half : step], image[::-1][:half:step]])


def _filled(values: ArrayLike | None, shape: tuple[int, ...], missing: float, name: str) -> NDArray[Any]:
    if values is None:
        return np.full(shape, missing)
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}. Received: {array.shape}.")
    return array


def _floats(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _integers(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)
