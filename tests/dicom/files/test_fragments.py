import struct

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.fragments import find_encapsulated_frames, find_native_frames, read_frame_bytes
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.files.headers import PixelElement
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import encode, make_enhanced, make_pixels

END = b"\xfe\xff\xdd\xe0\0\0\0\0"
STREAMS = [bytes([index]) * (20 + 4 * index) + b"\xff\xd9" for index in range(3)]
LAYOUT = PixelLayout(3, 5, 8, 8, is_signed=False, is_inverted=False)


def _find(value: bytes, num_frames: int, extended_offsets: bytes = b"") -> list[bytes]:
    body = value + END
    pixels = PixelElement(0x0010, "OB", 0, None)
    frames = find_encapsulated_frames(body, pixels, num_frames, extended_offsets)
    return [bytes(read_frame_bytes(body, frame)) for frame in frames]


def _reason(value: bytes, num_frames: int) -> RejectReason:
    with pytest.raises(RejectedError) as caught:
        _find(value, num_frames)
    return caught.value.reason


@pytest.mark.parametrize("fragments", [1, 2, 5])
@pytest.mark.parametrize("has_table", [True, False])
def test_frames_are_those_that_were_encapsulated(fragments: int, has_table: bool) -> None:
    value = encapsulate(STREAMS, fragments_per_frame=fragments, has_bot=has_table)
    assert _find(value, 3) == STREAMS
    expected = list(pydicom.encaps.generate_frames(value + END, number_of_frames=3))
    assert _find(value, 3) == expected


def test_fragments_of_one_frame_are_joined() -> None:
    value = encapsulate(STREAMS[:1], fragments_per_frame=4, has_bot=False)
    assert _find(value, 1) == STREAMS[:1]


def test_extended_offsets_take_precedence_over_markers() -> None:
    # The streams' ends look like ends of frames in the middle, too.
    streams = [stream + stream for stream in STREAMS]
    value, offsets, _ = encapsulate_extended(streams)
    assert _find(value, 3, offsets) == streams
    items = b"".join(
        b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
        for stream in STREAMS
        for item in (stream,) * 2
    )
    sizes = [2 * (8 + len(stream)) for stream in STREAMS]
    offsets = struct.pack("<3Q", 0, sizes[0], sizes[0] + sizes[1])
    assert _find(b"\xfe\xff\x00\xe0\0\0\0\0" + items, 3, offsets) == streams


def test_an_offset_table_without_matching_fragments_is_rejected() -> None:
    value = bytearray(encapsulate(STREAMS, fragments_per_frame=2))
    value[12:16] = struct.pack("<I", 3)
    assert _reason(bytes(value), 3) is RejectReason.BAD_FRAMES


def test_frames_that_cannot_be_separated_are_rejected() -> None:
    value = encapsulate([stream[:-2] for stream in STREAMS], fragments_per_frame=2, has_bot=False)
    assert _reason(value, 3) is RejectReason.BAD_FRAMES


def test_fewer_fragments_than_frames_are_rejected() -> None:
    assert _reason(encapsulate(STREAMS), 4) is RejectReason.WRONG_PIXEL_COUNT


def test_an_extended_offset_table_in_a_file_is_used() -> None:
    frames = np.stack([make_pixels(seed=seed) for seed in range(3)])
    streams = [encode(frame, uid.RLELossless) for frame in frames]
    _, offsets, lengths = encapsulate_extended(streams)
    data = make_enhanced(
        frames,
        syntax=uid.RLELossless,
        streams=streams,
        has_offset_table=False,
        ExtendedOffsetTable=offsets,
        ExtendedOffsetTableLengths=lengths,
    )
    image = open_image(data)
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), frames[0])


@pytest.mark.parametrize(("num_frames", "length"), [(1, 15), (1, 16), (2, 30), (3, 45), (3, 46)])
def test_native_frames_have_no_padding_between_them(num_frames: int, length: int) -> None:
    body = bytes(range(100))
    frames = find_native_frames(body, PixelElement(0x0010, "OB", 7, length), LAYOUT, num_frames)
    assert list(frames) == [((7 + 15 * index, 22 + 15 * index),) for index in range(num_frames)]


@pytest.mark.parametrize("length", [0, 14, 17, 31])
def test_native_lengths_are_those_of_the_frames(length: int) -> None:
    with pytest.raises(RejectedError) as caught:
        find_native_frames(b"\1" * 100, PixelElement(0x0010, "OB", 0, length), LAYOUT, 1)
    assert caught.value.reason is RejectReason.WRONG_PIXEL_COUNT


@pytest.mark.parametrize(("length", "is_read"), [(2048 + 128, True), (2048 + 130, False), (2 * 2048, False)])
def test_few_blank_bytes_may_follow_the_last_frame(length: int, is_read: bool) -> None:
    layout = PixelLayout(32, 32, 16, 12, is_signed=False, is_inverted=False)
    pixels = PixelElement(0x0010, "OW", 0, length)
    if is_read:
        assert find_native_frames(bytes(5000), pixels, layout, 1) == (((0, 2048),),)
        return
    with pytest.raises(RejectedError) as caught:
        find_native_frames(bytes(5000), pixels, layout, 1)
    assert caught.value.reason is RejectReason.WRONG_PIXEL_COUNT
