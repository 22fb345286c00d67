import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from pydicom import uid

from lumbar_tf.dicom.files.code_streams import (
    PixelLayout,
    check_jpeg,
    check_jpeg_ls,
    check_rle,
    split_rle,
)
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import encode, make_pixels

PIXELS = make_pixels()
LAYOUT = PixelLayout(12, 16, 16, 12, is_signed=False, is_inverted=False)
JPEG = encode(PIXELS, uid.JPEGLosslessSV1)
SIZE_AT = JPEG.index(b"\xff\xc3") + 5


def _reason(check: Callable[[bytes, PixelLayout], object], stream: bytes) -> RejectReason:
    with pytest.raises(RejectedError) as caught:
        check(stream, LAYOUT)
    return caught.value.reason


def test_precision_is_read() -> None:
    assert check_jpeg(JPEG, LAYOUT).precision == 12
    assert check_jpeg_ls(encode(PIXELS, uid.JPEGLSLossless), LAYOUT).precision == 16


def test_a_scan_begins_after_its_header() -> None:
    sample = check_jpeg(JPEG, LAYOUT)
    assert sample.scan_start == JPEG.index(b"\xff\xda") + 10
    assert not sample.has_restarts


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_every_truncation_of_jpeg_is_detected(cut: int) -> None:
    assert _reason(check_jpeg, JPEG[:-cut]) is RejectReason.TRUNCATED


@pytest.mark.parametrize(
    "spoilt",
    [
        b"\0" + JPEG[1:],
        JPEG[:SIZE_AT] + struct.pack(">HH", 65535, 65535) + JPEG[SIZE_AT + 4 :],
        JPEG.replace(b"\xff\xc3", b"\xff\xc2"),  # progressive
        JPEG.replace(b"\xff\xc3", b"\xff\xcb"),  # arithmetic
        JPEG[:2] + JPEG[JPEG.index(b"\xff\xc3") :][:13] + JPEG[2:],  # two frames
        JPEG[:-2] + b"\xff\xda" + JPEG[-2:],  # two scans
        JPEG + JPEG,
        JPEG + b"more",
    ],
)
def test_anything_but_a_single_grey_scan_is_rejected(spoilt: bytes) -> None:
    assert _reason(check_jpeg, spoilt) is RejectReason.UNDECODABLE


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"\x80", bytes(128)])
def test_padding_after_the_end_is_allowed(padding: bytes) -> None:
    # PS3.5 section A.4 names no value for the byte that makes a fragment's length even.
    assert check_jpeg(JPEG + padding, LAYOUT) == check_jpeg(JPEG, LAYOUT)
    stream = encode(PIXELS, uid.JPEGLSLossless)
    assert check_jpeg_ls(stream + padding, LAYOUT) == check_jpeg_ls(stream, LAYOUT)


def test_two_bytes_after_the_end_are_not_padding() -> None:
    assert _reason(check_jpeg, JPEG + b"\x80\x80") is RejectReason.UNDECODABLE


def test_application_segments_are_skipped() -> None:
    comment = b"\xff\xfe" + struct.pack(">H", 10) + b"\xff\xd9\xff\xda\xff\xd8\xff\xc3"
    assert check_jpeg(JPEG[:2] + b"\xff\xff" + comment + JPEG[2:], LAYOUT).precision == 12


def test_jpeg_ls_data_may_contain_markers_of_jpeg() -> None:
    # T.87 stuffs bits, not bytes: FF 01 to FF 7F are data.
    rng = np.random.default_rng(1)
    for _ in range(20):
        pixels = rng.integers(0, 4096, (12, 16)).astype(np.uint16)
        stream = encode(pixels, uid.JPEGLSLossless)
        check_jpeg_ls(stream, LAYOUT)
        assert imagecodecs.jpegls_decode(stream).shape == (12, 16)


def test_rle_segments_are_high_byte_first() -> None:
    stream = memoryview(encode(PIXELS, uid.RLELossless))
    check_rle(stream, LAYOUT)
    high, low = split_rle(stream)
    assert imagecodecs.packbits_decode(high)[: PIXELS.size] == (PIXELS >> 8).astype(np.uint8).tobytes()
    assert imagecodecs.packbits_decode(low)[: PIXELS.size] == PIXELS.astype(np.uint8).tobytes()


@pytest.mark.parametrize("offsets", [(64, 64), (70, 64), (0, 64), (65, 80)])
def test_rle_segments_must_be_consecutive(offsets: tuple[int, int]) -> None:
    stream = encode(PIXELS, uid.RLELossless)
    spoilt = struct.pack("<3I", 2, *offsets) + stream[12:]
    assert (
        _reason(lambda data, layout: check_rle(memoryview(data), layout), spoilt) is RejectReason.UNDECODABLE
    )
