import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.consistency import find_feature_errors
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.parsing import feature_spec
from lumbar_tf.records.schema import FEATURES, PixelEncoding, encode_plane

Features = dict[str, list[Any]]


@pytest.fixture(params=list(PixelEncoding), ids=lambda each: each.value)
def features(request: pytest.FixtureRequest, make_slice: Callable[..., Slice]) -> Features:
    slices = [make_slice((4.0 * number, 0.0, 0.0), instance_number=number) for number in range(3)]
    return parse_example_features(encode_plane("1", Plane.SAGITTAL_T2, slices, codec=request.param))


def test_the_names_are_those_that_training_parses() -> None:
    assert set(feature_spec()) == set(FEATURES)


def test_what_encode_plane_makes_has_no_fault(features: Features) -> None:
    assert list(find_feature_errors(features)) == []


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_a_feature_that_is_absent_or_too_short_is_named(features: Features, name: str) -> None:
    faults = list(find_feature_errors({**features, name: features[name][:-1]}))
    # These two are what others are counted by, so others are then named.
    assert faults and (name in faults[0] or name in ("series/id", "slices/image"))
    del features[name]
    assert f"{name} is absent" in list(find_feature_errors(features))


def test_values_outside_the_rules_are_named(features: Features) -> None:
    wrong: dict[str, Any] = {
        "labels": [3] * 25,
        "slices/rows": [0] * 3,
        "slices/scale": [float("nan")] * 3,
        "slices/position": [float("inf")] * 9,
        "slices/row_spacing_mm": [-1.0] * 3,
        "slices/series": [1] * 3,
        "slices/group": [0.5] * 3,
        "codec": [b"jpeg"],
    }
    for name, values in wrong.items():
        faults = list(find_feature_errors({**features, name: values}))
        assert any(each.startswith(name) for each in faults), (name, faults)


def test_a_feature_that_travels_along_is_counted_and_not_shown(features: Features) -> None:
    (fault,) = find_feature_errors({**features, "Jane Doe": [b"x"]})
    assert fault == "1 of its features are not in the schema"


def test_an_image_of_another_size_is_named(features: Features) -> None:
    features["slices/rows"][1] += 1
    (fault,) = find_feature_errors(features)
    assert fault.startswith("image 1 must")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_an_image_that_carries_more_than_pixels_is_named(features: Features) -> None:
    image = features["slices/image"][0]
    features["slices/image"][0] = image + b"Jane Doe"
    assert len(list(find_feature_errors(features))) == 1
    if features["codec"] == [b"png"]:
        # 33 bytes of signature and header, then the smuggled text.
        features["slices/image"][0] = image[:33] + _chunk(b"tEXt", b"Name\0Jane Doe") + image[33:]
        assert list(find_feature_errors(features)) == ["image 0 must hold pixels only"]
        features["slices/image"][0] = image[:-4]
        assert list(find_feature_errors(features)) == ["image 0 must be one complete PNG"]
        features["slices/image"][0] = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0IHDR"
        assert len(list(find_feature_errors(features))) == 1
