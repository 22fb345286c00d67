"""Whether one record's features are what the schema says, image bytes included.

Checksums tell that a record is as it was written; this tells that what was written can be used, and that
nothing else travels with it. `tfrecords/README.md` is the schema in words.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Severity
from lumbar_tf.records.schema import PixelEncoding


class _Per(Enum):
    """What a feature has its values for."""

    RECORD = "record"
    FINDING = "finding"
    SERIES = "series"
    SLICE = "slice"


#: Type of the values, what they are counted by, and how many for each.
_FEATURES: dict[str, tuple[type, _Per, int]] = {
    "schema_version": (bytes, _Per.RECORD, 1),
    "study_id": (bytes, _Per.RECORD, 1),
    "plane": (bytes, _Per.RECORD, 1),
    "codec": (bytes, _Per.RECORD, 1),
    "labels": (int, _Per.FINDING, 1),
    "points": (float, _Per.FINDING, 3),
    "series/id": (bytes, _Per.SERIES, 1),
    "series/low": (float, _Per.SERIES, 1),
    "series/high": (float, _Per.SERIES, 1),
    "slices/image": (bytes, _Per.SLICE, 1),
    "slices/scale": (float, _Per.SLICE, 1),
    "slices/offset": (float, _Per.SLICE, 1),
    "slices/rows": (int, _Per.SLICE, 1),
    "slices/columns": (int, _Per.SLICE, 1),
    "slices/position": (float, _Per.SLICE, 3),
    "slices/row_direction": (float, _Per.SLICE, 3),
    "slices/column_direction": (float, _Per.SLICE, 3),
    "slices/row_spacing_mm": (float, _Per.SLICE, 1),
    "slices/column_spacing_mm": (float, _Per.SLICE, 1),
    "slices/series": (int, _Per.SLICE, 1),
    "slices/group": (int, _Per.SLICE, 1),
    "slices/instance_number": (int, _Per.SLICE, 1),
}
FEATURE_NAMES = frozenset(_FEATURES)
IMAGE_FEATURE = "slices/image"

#: Every float but these is finite; a point that nobody marked is NaN.
_MAY_BE_NAN = frozenset({"points"})
_GRADES = frozenset({MISSING_LABEL, *Severity})

#: PNG (ISO/IEC 15948) sections 5.2 and 11.2.1: signature; length, type, data and CRC of each chunk.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_HEADER = struct.Struct(">IIBB")
_CRC_BYTES = 4
_BYTES_PER_PIXEL = 2  # uint16


def feature_faults(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yields what is wrong with a record's features, a line each.

    Args:
        features: as `parse_features` gives them.

    >>> list(feature_faults({"study_id": [b"1"], "notes": [b"x"]}))[:2]
    ['codec is absent', 'labels is absent']
    """
    absent, unknown = FEATURE_NAMES - features.keys(), features.keys() - FEATURE_NAMES
    yield from (f"{each} is absent" for each in sorted(absent))
    if unknown:
        # How many, not which: their names are not ours.
        yield f"{len(unknown)} of its features are not in the schema"
    miscounted = list(_count_faults(features))
    yield from miscounted
    if not absent and not miscounted:
        yield from _value_faults(features)
        yield from _image_faults(features)


def _count_faults(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    counts = {
        _Per.RECORD: 1,
        _Per.FINDING: NUM_FINDINGS,
        _Per.SERIES: len(features.get("series/id", ())),
        _Per.SLICE: len(features.get(IMAGE_FEATURE, ())),
    }
    for name, (kind, per, each) in _FEATURES.items():
        values = features.get(name)
        if values is None:
            continue
        if len(values) != counts[per] * each:
            yield f"{name} must hold {counts[per] * each} values, it holds {len(values)}"
        elif not all(isinstance(value, kind) for value in values):
            yield f"{name} must hold {kind.__name__} values"


def _value_faults(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    for name, (kind, _, _) in _FEATURES.items():
        if kind is float and name not in _MAY_BE_NAN and not all(map(math.isfinite, features[name])):
            yield f"{name} must be finite"
    if not set(features["labels"]) <= _GRADES:
        yield f"labels must be in {sorted(_GRADES)}"
    for name in ("slices/rows", "slices/columns", "slices/row_spacing_mm", "slices/column_spacing_mm"):
        if any(value <= 0 for value in features[name]):
            yield f"{name} must be positive"
    if not features["series/id"]:
        yield "there must be a series"
    if any(not 0 <= value < len(features["series/id"]) for value in features["slices/series"]):
        yield "slices/series must point into series/id"


def _image_faults(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    known = {each.value.encode(): each for each in PixelEncoding}
    codec = known.get(features["codec"][0])
    if codec is None:
        yield f"codec must be one of {sorted(each.value for each in PixelEncoding)}"
        return
    sizes = zip(features["slices/rows"], features["slices/columns"], strict=True)
    for index, (image, (rows, columns)) in enumerate(zip(features[IMAGE_FEATURE], sizes, strict=True)):
        fault = (
            _raw_fault(image, rows, columns)
            if codec is PixelEncoding.RAW
            else _png_fault(image, rows, columns)
        )
        if fault:
            yield f"image {index} {fault}"


def _raw_fault(image: bytes, rows: int, columns: int) -> str:
    expected = rows * columns * _BYTES_PER_PIXEL
    return "" if len(image) == expected else f"must have {expected} bytes, it has {len(image)}"


def _png_fault(image: bytes, rows: int, columns: int) -> str:
    """Pixels and nothing else: no text, no time, nothing after the end."""
    if not image.startswith(_PNG_SIGNATURE):
        return "must be a PNG"
    names = []
    place = len(_PNG_SIGNATURE)
    while place + _PNG_CHUNK.size <= len(image):
        length, name = _PNG_CHUNK.unpack_from(image, place)
        start = place + _PNG_CHUNK.size
        header = image[start : start + _PNG_HEADER.size]
        if name == b"IHDR" and header != _PNG_HEADER.pack(columns, rows, 16, 0):
            return f"must be a 16-bit grey PNG of {rows} x {columns}"
        names.append(name)
        place = start + length + _CRC_BYTES
    if place != len(image) or names[:1] != [b"IHDR"] or names[-1:] != [b"IEND"]:
        return "must be one whole PNG"
    return "" if set(names) <= {b"IHDR", b"IDAT", b"IEND"} else "must hold pixels only"
