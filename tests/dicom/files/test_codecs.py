import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import uid
from rle import rle as pylibjpeg_rle

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.codecs import clear_unused_bits, decode_stream, value_range
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import LOSSLESS, encode, make_pixels

SMALL = arrays(np.uint16, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.integers(0, 4095))


def _layout(pixels: np.ndarray, *, bits_stored: int | None = None, is_signed: bool = False) -> PixelLayout:
    rows, columns = pixels.shape
    allocated = 8 * pixels.dtype.itemsize
    return PixelLayout(rows, columns, allocated, bits_stored or allocated, is_signed, is_inverted=False)


def _reason(syntax: str, stream: bytes, layout: PixelLayout) -> RejectReason:
    with pytest.raises(RejectedError) as caught:
        decode_stream(syntax, stream, layout)
    return caught.value.reason


@pytest.mark.parametrize("syntax", LOSSLESS)
@given(pixels=SMALL)
def test_lossless_codecs_decode_exactly(syntax: str, pixels: np.ndarray) -> None:
    decoded = decode_stream(syntax, encode(pixels, syntax), _layout(pixels, bits_stored=12))
    np.testing.assert_array_equal(decoded, pixels)


@given(pixels=arrays(np.uint16, st.tuples(st.integers(1, 20), st.integers(1, 300))))
def test_rle_equals_the_result_of_pylibjpeg(pixels: np.ndarray) -> None:
    stream = encode(pixels, uid.RLELossless)
    expected = np.frombuffer(pylibjpeg_rle.decode_frame(stream, pixels.size, 16, "<"), "<u2")
    np.testing.assert_array_equal(
        decode_stream(uid.RLELossless, stream, _layout(pixels)), expected.reshape(pixels.shape)
    )


@pytest.mark.parametrize("padding", [b"\0", b"\0\0", b"\0" * 6])
def test_padded_rle_is_the_same(padding: bytes) -> None:
    pixels = make_pixels(24, 32)
    decoded = decode_stream(uid.RLELossless, encode(pixels, uid.RLELossless) + padding, _layout(pixels))
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("more", [b"\x81\x05", b"\x00\x05", b"\x00\x00" * 20])
def test_rle_with_too_many_bytes_is_rejected(more: bytes) -> None:
    pixels = make_pixels(24, 32)
    stream = encode(pixels, uid.RLELossless)
    assert _reason(uid.RLELossless, stream + more, _layout(pixels)) is RejectReason.UNDECODABLE


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_jpeg_that_the_decoder_completes_is_rejected(syntax: str, keep: float) -> None:
    pixels = make_pixels(64, 64)
    if syntax == uid.JPEGBaseline8Bit:
        pixels = (pixels >> 4).astype(np.uint8)
    stream = encode(pixels, syntax)
    start = stream.index(b"\xff\xda") + 10
    cut = stream[: start + int((len(stream) - start) * keep)].rstrip(b"\xff") + b"\xff\xd9"
    # The decoder alone raises no error:
    assert imagecodecs.jpeg8_decode(cut).shape == pixels.shape
    assert _reason(syntax, cut, _layout(pixels)) is RejectReason.TRUNCATED


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGExtended12Bit])
def test_a_dark_end_is_not_a_truncation(syntax: str) -> None:
    # With equal last pixels the stream is decoded twice, with the same result.
    for fill in (0, 2048, 4095):
        pixels = make_pixels(64, 64)
        pixels[40:] = fill
        decoded = decode_stream(syntax, encode(pixels, syntax), _layout(pixels, bits_stored=12))
        assert np.abs(decoded.astype(int) - pixels).max() <= 60


def test_fill_bytes_before_a_marker_are_not_a_truncation() -> None:
    pixels = make_pixels(64, 64)
    pixels[-1] = 7
    stream = encode(pixels, uid.JPEGLosslessSV1)
    filled = stream[:-2] + b"\xff\xff\xd9\0"
    np.testing.assert_array_equal(decode_stream(uid.JPEGLosslessSV1, filled, _layout(pixels)), pixels)


def test_lossy_values_do_not_wrap() -> None:
    # White next to black overshoots the range; masking would turn the overshoot black.
    pixels = np.where(np.arange(64) % 20 < 10, 0, 1023).astype(np.uint16) * np.ones((64, 1), np.uint16)
    stream = imagecodecs.jpeg8_encode(pixels, 60, bitspersample=12)
    assert imagecodecs.jpeg8_decode(stream).max() > 1023
    decoded = decode_stream(uid.JPEGExtended12Bit, stream, _layout(pixels, bits_stored=10))
    assert decoded.max() == 1023
    assert decoded[:, 15].min() > 900


def _with_precision(stream: bytes, bits: int) -> bytes:
    """Returns a JPEG code stream whose SOF3 declares another precision than its samples have."""
    at = stream.index(b"\xff\xc3") + 4
    return stream[:at] + bytes([bits]) + stream[at + 1 :]


@pytest.mark.parametrize("stored", [10, 12, 14])
@pytest.mark.parametrize("declared", [8, 9, 11, 13, 15, 16])
def test_a_lossless_jpeg_with_a_wrong_precision_is_rejected(stored: int, declared: int) -> None:
    pixels = make_pixels(24, 32, bits=stored)
    stream = encode(pixels, uid.JPEGLosslessSV1, bits=stored)
    wrong = _with_precision(stream, declared)
    # The decoder alone raises no error, and returns other values:
    assert not np.array_equal(imagecodecs.jpeg8_decode(wrong), pixels)
    layout = _layout(pixels, bits_stored=stored)
    assert _reason(uid.JPEGLosslessSV1, wrong, layout) is RejectReason.BAD_PIXEL_FORMAT
    np.testing.assert_array_equal(decode_stream(uid.JPEGLosslessSV1, stream, layout), pixels)


@pytest.mark.parametrize("stored", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("declared", [8, 10, 12, 16])
def test_a_lossless_jpeg_may_be_coded_in_more_or_fewer_bits(stored: int, declared: int) -> None:
    pixels = make_pixels(24, 32, bits=min(stored, declared))
    container = pixels.astype(np.uint8) if declared == 8 else pixels
    stream = encode(container, uid.JPEGLosslessSV1, bits=declared)
    decoded = decode_stream(uid.JPEGLosslessSV1, stream, _layout(pixels, bits_stored=stored))
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("length", [None, 0, 1])
def test_jpeg_2000_in_a_jp2_file_is_read(length: int | None) -> None:
    pixels = make_pixels(24, 32)
    stream = imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True, bitspersample=12)
    at = stream.index(b"jp2c") - 4
    if length == 0:  # the box reaches to the end
        stream = stream[:at] + bytes(4) + stream[at + 4 :]
    elif length == 1:  # its length has 64 bits
        size = len(stream) - at + 8
        stream = stream[:at] + b"\0\0\0\1jp2c" + size.to_bytes(8, "big") + stream[at + 8 :]
    decoded = decode_stream(uid.JPEG2000Lossless, stream, _layout(pixels, bits_stored=12))
    np.testing.assert_array_equal(decoded, pixels)


def test_a_jp2_file_without_a_code_stream_is_rejected() -> None:
    pixels = make_pixels(24, 32)
    stream = imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True)
    for spoilt in (
        stream[: stream.index(b"jp2c") - 4],
        stream.replace(b"jp2c", b"free"),
        stream.replace(b"colr", b"pclr"),
    ):
        assert _reason(uid.JPEG2000Lossless, spoilt, _layout(pixels)) is RejectReason.UNDECODABLE


def test_signed_pixels_need_a_sign_bit() -> None:
    pixels = make_pixels()
    stream = encode(pixels, uid.JPEGLosslessSV1)  # 12 bits in the code stream
    layout = _layout(pixels, bits_stored=14, is_signed=True)
    assert _reason(uid.JPEGLosslessSV1, stream, layout) is RejectReason.BAD_PIXEL_FORMAT


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("is_signed", [False, True])
def test_unused_bits_are_ignored(bits: int, is_signed: bool) -> None:
    pixels = np.random.default_rng(bits).integers(0, 1 << 16, (5, 7)).astype(np.uint16)
    layout = _layout(pixels, bits_stored=bits, is_signed=is_signed)
    cleared = clear_unused_bits(pixels, layout)
    low, high = value_range(layout)
    assert low <= cleared.min() <= cleared.max() <= high
    np.testing.assert_array_equal((cleared.astype(int) - pixels) % (1 << bits), 0)
    assert cleared.dtype == (np.int16 if is_signed else np.uint16)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_garbage_is_rejected(syntax: str) -> None:
    pixels = make_pixels()
    for stream in (
        b"",
        b"\0",
        b"\xff" * 100,
        bytes(200),
        b"\xff\xd8\xff\xd9",
        np.random.default_rng(0).bytes(300),
    ):
        assert _reason(syntax, stream, _layout(pixels)) in (RejectReason.UNDECODABLE, RejectReason.TRUNCATED)
