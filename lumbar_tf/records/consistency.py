"""Verification of a record's features against the schema, including the encoded images.

Checksums verify that a record is unchanged; these checks verify that it is usable and contains nothing else.
`tfrecords/README.md` describes the schema.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Severity
from lumbar_tf.records.schema import FEATURES, IMAGE_FEATURE, FeatureAxis, PixelEncoding

_GRADES = frozenset({MISSING_LABEL, *Severity})

#: PNG (ISO/IEC 15948) sections 5.2 and 11.2.1: signature; length, type, data and CRC of each chunk.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_HEADER = struct.Struct(">IIBB")
_CRC_BYTES = 4
_BYTES_PER_PIXEL = 2  # uint16


def find_feature_errors(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yields a description of each feature that violates the schema.

    Args:
        features: as returned by `parse_example_features`.

    >>> list(find_feature_errors({"study_id": [b"1"], "notes": [b"x"]}))[:2]
    ['codec is absent', 'labels is absent']
    """
    absent, unknown = FEATURES.keys() - features.keys(), features.keys() - FEATURES.keys()
    yield from (f"{name} is absent" for name in sorted(absent))
    if unknown:
        # The number only: unknown names could contain anything.
        yield f"{len(unknown)} of its features are not in the schema"
    miscounted = list(_count_faults(features))
    yield from miscounted
    if not absent and not miscounted:
        yield from _value_faults(features)
        yield from _image_faults(features)


def _count_faults(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    counts = {
        FeatureAxis.RECORD: 1,
        FeatureAxis.FINDING: NUM_FINDINGS,
        FeatureAxis.SERIES: len(features.get("series/id", ())),
        FeatureAxis.SLICE: len(features.get(IMAGE_FEATURE, ())),
    }
    for name, spec in FEATURES.items():
        values = features.get(name)
        if values is None:
            continue
        count = counts[spec.axis] * spec.size
        if len(values) != count:
            yield f"{name} must hold {count} values, but holds {len(values)}"
        elif not all(isinstance(value, spec.kind) for value in values):
            yield f"{name} must hold {spec.kind.__name__} values"


def _value_faults(features: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    for name, spec in FEATURES.items():
        if spec.kind is float and not spec.may_be_nan and not all(map(math.isfinite, features[name])):
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
    known = {codec.value.encode(): codec for codec in PixelEncoding}
    codec = known.get(features["codec"][0])
    if codec is None:
        yield f"codec must be one of {sorted(known.value for known in PixelEncoding)}"
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
    return "" if len(image) == expected else f"must have {expected} bytes, but has {len(image)}"


def _png_fault(image: bytes, rows: int, columns: int) -> str:
    """Returns the fault of a PNG that is invalid or contains anything but pixels, such as text."""
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
        return "must be one complete PNG"
    return "" if set(names) <= {b"IHDR", b"IDAT", b"IEND"} else "must hold pixels only"
