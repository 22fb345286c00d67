"""Where a record's images lie, told without copying them."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import decode_image, parse_example
from lumbar_tf.records.schema import PixelEncoding, encode_plane

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


_parse_in_graph = tf.function(parse_example)
_decode_in_graph = tf.function(decode_image, reduce_retracing=True)


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


@pytest.mark.parametrize("place", ["first", "late", "behind many", "wrong length"])
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
    before = {"late": padding, "behind many": b"".join(_entry(f"{each}", []) for each in range(40))}
    body = before[place] + rest + images if place in before else images + rest
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


@pytest.mark.parametrize("kind", ["opening", "whole list", "whole entry", "whole entry, images late"])
def test_a_feature_that_looks_like_the_images_is_not_taken_for_them(
    make_slice: Callable[..., Slice], kind: str
) -> None:
    (each,) = _slices(make_slice, [(7, 9)])
    example = tf.train.Example.FromString(encode_plane("12", Plane.SAGITTAL_T1, [each]))
    (image,) = example.features.feature["slices/image"].bytes_list.value
    entry = _entry("slices/image", [bytes(reversed(image))])
    bait = entry[: entry.index(b"\x0a\x7e")] if kind == "opening" else entry
    bait = bait[bait.index(b"\x0a\x0c") :] if kind == "whole list" else bait
    late = bytes(1 << 16) if kind.endswith("late") else b""
    example.features.feature["a"].bytes_list.value.append(bait + late)
    serialized = example.SerializeToString(deterministic=True)
    assert serialized.index(bait) < serialized.index(image)
    np.testing.assert_array_equal(_rows(parse_example(serialized), 0, 2, 6), each.pixels[2:6])


def test_only_a_feature_that_looks_like_the_images_is_none(make_slice: Callable[..., Slice]) -> None:
    example = tf.train.Example.FromString(
        encode_plane("12", Plane.SAGITTAL_T1, _slices(make_slice, [(7, 9)]))
    )
    images = list(example.features.feature.pop("slices/image").bytes_list.value)
    example.features.feature["a"].bytes_list.value.append(_entry("slices/image", images))
    record = parse_example(example.SerializeToString(deterministic=True))
    assert record["slices/start"].shape == record["slices/size"].shape == (0,)


@pytest.mark.parametrize("place", ["entry", "map"])
def test_images_that_a_later_entry_replaces_are_not_read(
    make_slice: Callable[..., Slice], place: str
) -> None:
    """The last entry with a key counts, and a second map is part of the first."""
    (each,) = _slices(make_slice, [(7, 9)])
    serialized = encode_plane("12", Plane.SAGITTAL_T1, [each])
    pixels = each.pixels[::-1].astype("<u2")
    entry = _entry("slices/image", [pixels.tobytes()])
    if place == "entry":
        header = 1 + len(_varint(len(serialized)))
        body = serialized[header:] + entry
        replaced = b"\x0a" + _varint(len(body)) + body
    else:
        replaced = serialized + b"\x0a" + _varint(len(entry)) + entry
    np.testing.assert_array_equal(_rows(parse_example(replaced), 0, 2, 6), pixels[2:6])


#: Sizes that images are stored in, and that the record tells of them.
_DISAGREEING = (
    # As many bytes in all.
    ([(6, 8), (3, 5)], [(3, 5), (6, 8)]),
    # More rows than there are, fewer, none, and numbers that overflow or whose signs undo each other.
    ([(6, 8), (6, 8)], [(7, 8), (6, 8)]),
    ([(6, 8), (6, 8)], [(7, 3), (6, 8)]),
    ([(6, 8)], [(7, 8)]),
    ([(9, 8)], [(7, 8)]),
    ([(6, 8)], [(0, 8)]),
    ([(6, 8)], [(6 + (1 << 60), 8)]),
    ([(6, 8)], [(-6, -8)]),
    ([(6, 8)], [(6, -8)]),
    ([(6, 8)], [(1 << 62, 1 << 62)]),
)


@pytest.mark.parametrize("codec", PixelEncoding)
@pytest.mark.parametrize(("stored", "told"), _DISAGREEING)
def test_sizes_that_disagree_are_an_error(
    make_slice: Callable[..., Slice],
    codec: PixelEncoding,
    stored: list[tuple[int, int]],
    told: list[tuple[int, int]],
) -> None:
    serialized = encode_plane("12", Plane.SAGITTAL_T1, _slices(make_slice, stored), codec=codec)
    record = _parse_in_graph(_resized(serialized, told))
    for place, sizes in enumerate(zip(stored, told, strict=True)):
        if sizes[0] == sizes[1]:
            each = _slices(make_slice, stored)[place]
            np.testing.assert_array_equal(_rows(record, place, 1, 3), each.pixels[1:3])
            continue
        for first, end in ((1, 3), (0, told[place][0]), (2, 2)):
            rows = (tf.constant(first, tf.int64), tf.constant(end, tf.int64))
            with pytest.raises(tf.errors.InvalidArgumentError, match="slices/rows"):
                _decode_in_graph(record, tf.constant(place), rows)


@pytest.mark.parametrize("told", [(7, 3), (6, 8)])
def test_sizes_that_disagree_are_an_error_in_copied_images(
    make_slice: Callable[..., Slice], told: tuple[int, int]
) -> None:
    stored = [(6, 8), (6, 8)]
    serialized = encode_plane("12\n\x0cslices/image", Plane.SAGITTAL_T1, _slices(make_slice, stored))
    record = parse_example(_resized(serialized, [told, (6, 8)]))
    assert record["images"] != serialized, "the images were copied"
    if told == (6, 8):
        np.testing.assert_array_equal(_rows(record, 0, 2, 6), _slices(make_slice, stored)[0].pixels[2:6])
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)Received.*96.*for.*7.*3"):
            _rows(record, 0, 6, 7)


def test_turned_sizes_are_an_error_in_png(make_slice: Callable[..., Slice]) -> None:
    slices = _slices(make_slice, [(6, 8)])
    serialized = encode_plane("12", Plane.SAGITTAL_T1, slices, codec=PixelEncoding.PNG)
    with pytest.raises(tf.errors.InvalidArgumentError, match="slices/rows"):
        _rows(parse_example(_resized(serialized, [(8, 6)])), 0, 0, 6)


def test_png_images_are_decoded_row_by_row(make_slice: Callable[..., Slice]) -> None:
    slices = _slices(make_slice, [(7, 9), (12, 5)])
    record = parse_example(encode_plane("12", Plane.SAGITTAL_T1, slices, codec=PixelEncoding.PNG))
    for index, each in enumerate(slices):
        np.testing.assert_array_equal(_rows(record, index, 2, 6), each.pixels[2:6])


def _resized(serialized: bytes, sizes: list[tuple[int, int]]) -> bytes:
    """Writes other sizes into a record, in the order of TensorFlow's own writer."""
    example = tf.train.Example.FromString(serialized)
    for place, name in enumerate(("slices/rows", "slices/columns")):
        example.features.feature[name].int64_list.value[:] = [size[place] for size in sizes]
    return example.SerializeToString(deterministic=True)


def _entry(name: str, values: list[bytes]) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Features(feature={name: feature}).SerializeToString()


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
