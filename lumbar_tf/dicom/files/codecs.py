"""Codecs of the transfer syntaxes, applied to one frame at a time.

imagecodecs decodes all of them, including JPEG Lossless and 12-bit JPEG Extended. It is called directly:
pydicom's plug-in mechanism takes longer than decoding an RLE frame, and another installed plug-in could
change pixels. For RLE, imagecodecs provides PackBits; with numpy joining the bytes it is faster than
pylibjpeg-rle, and a damaged segment raises an error instead of a panic.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from lumbar_tf.dicom.files.code_streams import (
    PixelLayout,
    SampleFormat,
    check_jpeg,
    check_jpeg_2000,
    check_jpeg_ls,
    check_rle,
    split_rle,
    unwrap_jp2,
)
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: A zero byte pads a segment to an even length (PS3.5 section G.3.1). Some archives add more padding, which
#: decodes to runs of zeros.
_RLE_PADDING_BYTES = 16

#: It accepts any buffer and fills any array; its type annotations are narrower.
_unpack_bits: Callable[..., Any] = imagecodecs.packbits_decode

#: End of JPEG's entropy-coded data: a restart marker or the end of the image.
_JPEG_INTERVAL_END = re.compile(rb"\xff+[\xd0-\xd7\xd9]")
#: Bits that differ from zero padding, without FF, which would start a marker.
_POISON = b"\xa7\x5b\xe6\x6d" * 8


@dataclass(frozen=True)
class FrameCodec:
    """Functions that check and decode the frames of a transfer syntax.

    Attributes:
        check: reads the header of the code stream; raises `RejectedError` if it contradicts the file's
            header.
        decode: returns [rows, columns] of any integer type.
        is_lossy: whether decoded values may differ from the original ones.
        takes_view: whether both functions accept a memoryview of the file instead of bytes.
    """

    check: Callable[[Any, PixelLayout], SampleFormat]
    decode: Callable[[Any, PixelLayout, SampleFormat], NDArray[Any]]
    is_lossy: bool = False
    takes_view: bool = False


def _decode_rle(stream: memoryview, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    """Decodes RLE (PS3.5 annex G): one PackBits segment per byte of a pixel, the high byte first.

    A segment must have as many bytes as the frame has pixels; otherwise it is damaged or of another frame.
    """
    shape = (layout.rows, layout.columns)
    segments = [_decode_segment(segment, layout) for segment in split_rle(stream)]
    if len(segments) == 1:
        return segments[0].reshape(shape)
    high, low = segments
    pixels = high.astype(np.uint16)
    pixels <<= 8
    pixels |= low
    return pixels.reshape(shape)


def _decode_segment(segment: memoryview, layout: PixelLayout) -> NDArray[np.uint8]:
    size = layout.rows * layout.columns
    # The decoder does not write beyond this array, and raises an error for more data.
    decoded = _unpack_bits(segment, out=np.empty(size + _RLE_PADDING_BYTES, np.uint8))
    if len(decoded) < size or decoded[size:].any():
        message = f"an RLE segment must contain {size} bytes. Received: {len(decoded)}"
        raise RejectedError(RejectReason.UNDECODABLE, message)
    return decoded[:size]


def _decode_jpeg(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    """Decodes JPEG and rejects a stream whose last pixels were invented by the decoder.

    libjpeg reads zero bits after the end of the data, and its warning is not passed on. The last two pixels
    are equal in that case (lossless: a difference of zero; otherwise: an empty block). Only then the stream
    is decoded again with other bits behind the data: the decoder does not reach them in a complete stream.
    """
    pixels = imagecodecs.jpeg8_decode(stream)
    if sample.has_restarts or pixels[-1, -1] == pixels[-1, -2:][0]:
        head, scan = stream[: sample.scan_start], stream[sample.scan_start :]
        longer = head + _JPEG_INTERVAL_END.sub(lambda end: _POISON + end.group(), scan)
        if not np.array_equal(pixels, imagecodecs.jpeg8_decode(longer)):
            raise RejectedError(RejectReason.TRUNCATED, "the code stream ends before its last pixel")
    return pixels


def _decode_jpeg_lossless(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    """Decodes lossless JPEG and rejects a stream whose declared precision is not that of its samples.

    The first prediction is half of the range (T.81 section H.1.2.1), so that under a wrong precision all
    values are shifted without an error. A stream that declares another precision than BitsStored is therefore
    decoded with that of BitsStored too.
    """
    pixels = _decode_jpeg(stream, layout, sample)
    stored, declared = layout.bits_stored, sample.precision
    if stored in (1, declared) or (declared > stored and not pixels.max() >> stored):
        return pixels
    at = sample.precision_at
    relabelled = stream[:at] + bytes([stored]) + stream[at + 1 :]
    other = imagecodecs.jpeg8_decode(relabelled).astype(np.int32)
    if declared > stored:
        # Overlays, which may be in the unused bits, do not disappear under the other precision.
        is_wrong = other.max() < 1 << stored
    else:
        is_wrong = not np.array_equal(other, pixels + np.int32((1 << stored - 1) - (1 << declared - 1)))
    if is_wrong:
        message = f"the code stream declares {declared} bits, and its samples have {stored} (BitsStored)"
        raise RejectedError(RejectReason.BAD_PIXEL_FORMAT, message)
    return pixels


def _decode_jpeg_ls(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    return imagecodecs.jpegls_decode(stream)


def _check_jpeg_2000(stream: bytes, layout: PixelLayout) -> SampleFormat:
    return check_jpeg_2000(unwrap_jp2(stream), layout)


def _decode_jpeg_2000(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    # Workers are processes, and decoder threads would compete with them.
    return imagecodecs.jpeg2k_decode(unwrap_jp2(stream), numthreads=1)


_LOSSLESS_J2K = FrameCodec(_check_jpeg_2000, _decode_jpeg_2000)
_LOSSY_J2K = FrameCodec(_check_jpeg_2000, _decode_jpeg_2000, is_lossy=True)

#: Supported encapsulated transfer syntaxes.
CODECS: dict[str, FrameCodec] = {
    uid.RLELossless: FrameCodec(check_rle, _decode_rle, takes_view=True),
    uid.JPEGBaseline8Bit: FrameCodec(check_jpeg, _decode_jpeg, is_lossy=True),
    uid.JPEGExtended12Bit: FrameCodec(check_jpeg, _decode_jpeg, is_lossy=True),
    uid.JPEGLossless: FrameCodec(check_jpeg, _decode_jpeg_lossless),
    uid.JPEGLosslessSV1: FrameCodec(check_jpeg, _decode_jpeg_lossless),
    uid.JPEGLSLossless: FrameCodec(check_jpeg_ls, _decode_jpeg_ls),
    uid.JPEGLSNearLossless: FrameCodec(check_jpeg_ls, _decode_jpeg_ls, is_lossy=True),
    uid.JPEG2000Lossless: _LOSSLESS_J2K,
    uid.JPEG2000: _LOSSY_J2K,
    uid.HTJ2KLossless: _LOSSLESS_J2K,
    uid.HTJ2KLosslessRPCL: _LOSSLESS_J2K,
    uid.HTJ2K: _LOSSY_J2K,
}

#: Transfer syntaxes with uncompressed pixels.
NATIVE_SYNTAXES = frozenset(
    (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    )
)


def decode_stream(syntax: str, code: bytes | memoryview, layout: PixelLayout) -> NDArray[Any]:
    """Decodes one compressed frame to stored values.

    Args:
        syntax: one of `CODECS`.
        code: code stream of the frame, with its fragments joined.
        layout: pixel storage declared in the header.

    Returns:
        [rows, columns], uint8, int8, uint16 or int16 according to the layout, with the bits above BitsStored
        cleared (signed: filled with the sign).

    Raises:
        RejectedError: TRUNCATED, UNDECODABLE, WRONG_PIXEL_COUNT or BAD_PIXEL_FORMAT.
    """
    codec = CODECS[syntax]
    stream = memoryview(code) if codec.takes_view else bytes(code)
    sample = codec.check(stream, layout)
    try:
        pixels = codec.decode(stream, layout, sample)
    except RejectedError:
        raise
    except Exception as error:  # every decoder has its own error classes
        message = f"the code stream cannot be decoded ({type(error).__name__})"
        raise RejectedError(RejectReason.UNDECODABLE, message) from None
    if pixels.shape != (layout.rows, layout.columns) or pixels.dtype.kind not in "ui":
        message = f"the code stream must decode to grey pixels. Received: {pixels.dtype} {pixels.shape}"
        raise RejectedError(RejectReason.UNDECODABLE, message)
    if codec.is_lossy and sample.precision > layout.bits_stored:
        # Lossy coding can exceed the range; masking would turn white into black.
        whole = replace(layout, bits_stored=layout.bits_allocated)
        pixels = clear_unused_bits(pixels, whole).clip(*value_range(layout))
    return clear_unused_bits(pixels, layout)


def value_range(layout: PixelLayout) -> tuple[int, int]:
    """Returns the smallest and largest value of BitsStored bits.

    >>> value_range(PixelLayout(1, 1, 16, 12, is_signed=True, is_inverted=False))
    (-2048, 2047)
    """
    if layout.is_signed:
        return -(1 << layout.bits_stored - 1), (1 << layout.bits_stored - 1) - 1
    return 0, (1 << layout.bits_stored) - 1


def clear_unused_bits(pixels: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Converts container values to pixel values by clearing the bits above BitsStored.

    These bits may contain anything, including overlays.

    Args:
        pixels: integers of any width up to BitsAllocated, any byte order, [rows, columns].
        layout: pixel storage declared in the header.

    Returns:
        uint8, int8, uint16 or int16, native byte order; the same array if nothing has to be changed.

    >>> layout = PixelLayout(1, 2, 16, 12, is_signed=True, is_inverted=False)
    >>> clear_unused_bits(np.array([[0x0FFF, 0xF001]], np.uint16), layout).tolist()
    [[-1, 1]]
    """
    width = layout.bits_allocated // 8
    unsigned = pixels.astype(f"u{width}", copy=False)
    unused = layout.bits_allocated - layout.bits_stored
    if not layout.is_signed:
        largest = (1 << layout.bits_stored) - 1
        return unsigned & unsigned.dtype.type(largest) if unused and unsigned.max() > largest else unsigned
    signed = unsigned.view(f"i{width}")
    if unused:
        signed = (signed << unused) >> unused  # numpy's right shift of signed integers keeps the sign
    return signed
