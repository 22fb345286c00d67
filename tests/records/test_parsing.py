"""Where a record's images lie, told without copying them."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.imaging.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import decode_image, parse_example
from lumbar_tf.records.schema import Codec, encode_plane

#: Of rows and columns: lengths of one, two, three and four bytes in the wire format, and several images.
SIZES = (
    [(1, 1)],
    [(6, 8)],
    [(7, 9), (7, 10), (90, 91)],
    [(130, 120)],
    [(1100, 1024), (3, 5)],
    [(63, 1), (8, 8)],
)


def _slices(make_slice: Callable[..., Slice], sizes: list[tuple[int, int]]) -> list[Slice]:
    rng = np.random.default_rng(0)
    return [
        make_slice((4.0 * place, 0, 0), pixels=rng.integers(0, 1 << 16, size), series_id=f"{place}")
        for place, size in enumerate(sizes)
    ]


def _rows(record: dict[str, tf.Tensor], index: int, first: int, end: int) -> np.ndarray:
    return decode_image(record, index, (tf.constant(first, tf.int64), tf.constant(end, tf.int64))).numpy()


@pytest.mark.parametrize("sizes", SIZES)
def test_raw_images_are_found_where_they_lie(
    make_slice: Callable[..., Slice], sizes: list[tuple[int, int]]
) -> None:
    serialized = encode_plane("12", Plane.SAGITTAL_T1, _slices(make_slice, sizes))
    record = parse_example(serialized)
    assert record["images"] == serialized, "nothing was copied"
    for place, each in enumerate(_slices(make_slice, sizes)):
        raw = each.pixels.astype("<u2").tobytes()
        start = int(record["slices/start"][place])
        assert serialized[start : start + int(record["slices/size"][place])] == raw
        middle = len(each.pixels) // 2
        for first, end in ((0, len(each.pixels)), (middle, len(each.pixels)), (middle, middle)):
            np.testing.assert_array_equal(_rows(record, place, first, end), each.pixels[first:end])


@pytest.mark.parametrize("place", ["first", "late", "wrong length"])
def test_images_that_are_not_found_are_copied(make_slice: Callable[..., Slice], place: str) -> None:
    """A map has no order: what another writer arranges in its own way is read all the same."""
    slices = _slices(make_slice, [(7, 9), (12, 5)])
    example = tf.train.Example.FromString(encode_plane("12", Plane.SAGITTAL_T1, slices))
    entries = {
        name: tf.train.Features(feature={name: feature}).SerializeToString()
        for name, feature in example.features.feature.items()
    }
    images = entries.pop("slices/image")
    rest = b"".join(entries.values())
    padding = tf.train.Features(
        feature={"other": tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(1 << 17)]))}
    ).SerializeToString()
    if place == "wrong length":  # a length of two bytes written in three, which protobuf allows
        images = _with_longer_length(images)
    body = padding + rest + images if place == "late" else images + rest
    serialized = b"\x0a" + _varint(len(body)) + body
    record = parse_example(serialized)
    assert (record["images"] == serialized) == (place == "first")
    for index, each in enumerate(slices):
        np.testing.assert_array_equal(_rows(record, index, 2, 6), each.pixels[2:6])


def test_a_key_in_another_feature_is_not_taken_for_the_images(make_slice: Callable[..., Slice]) -> None:
    (each,) = _slices(make_slice, [(7, 9)])
    study = "\n\x0cslices/image\x12\x05"
    record = parse_example(encode_plane(study, Plane.SAGITTAL_T1, [each]))
    assert record["study_id"].numpy().decode() == study
    np.testing.assert_array_equal(_rows(record, 0, 0, 7), each.pixels)


def test_png_images_are_decoded_row_by_row(make_slice: Callable[..., Slice]) -> None:
    slices = _slices(make_slice, [(7, 9), (12, 5)])
    record = parse_example(encode_plane("12", Plane.SAGITTAL_T1, slices, codec=Codec.PNG))
    for index, each in enumerate(slices):
        np.testing.assert_array_equal(_rows(record, index, 2, 6), each.pixels[2:6])


def _varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _with_longer_length(entry: bytes) -> bytes:
    """Writes the length of the feature, the second field of a map's entry, with a needless last byte."""
    features = tf.train.Features.FromString(entry)
    feature = features.feature["slices/image"].SerializeToString()
    length = _varint(len(feature))
    length = length[:-1] + bytes([length[-1] | 0x80, 0])
    key = b"\x0a\x0cslices/image"
    inner = key + b"\x12" + length + feature
    return b"\x0a" + _varint(len(inner)) + inner
