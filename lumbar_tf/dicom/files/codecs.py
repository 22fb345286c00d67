"""Which decoder reads which transfer syntax, one frame at a time.

imagecodecs decodes all of them, JPEG Lossless and 12-bit JPEG Extended included. It is called straight:
pydicom's own way through a plug-in takes longer than an RLE frame does, and another plug-in that happens
to be installed would change pixels. For RLE it has PackBits, which with numpy to join the bytes is faster
than pylibjpeg-rle and answers a damaged segment by an error, where that one panics.
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
)
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: One zero pads a segment to an even length (PS3.5 section G.3.1); some archives pad to more, and those read
#: as runs of zeros.
_RLE_PADDING_BYTES = 16

#: It takes any buffer and fills any array; its annotations know fewer.
_unpack_bits: Callable[..., Any] = imagecodecs.packbits_decode

#: Where JPEG's entropy-coded data end: at a restart or at the end of the image.
_JPEG_INTERVAL_END = re.compile(rb"\xff+[\xd0-\xd7\xd9]")
#: Bits that no zeros can be taken for, and not FF, which would be a marker.
_POISON = b"\xa7\x5b\xe6\x6d" * 8


@dataclass(frozen=True)
class FrameCodec:
    """How the frames of a transfer syntax are read.

    Attributes:
        check: reads the code stream's own header; raises `RejectedError` where it is not the file's.
        decode: gives [rows, columns] of any integer type.
        is_lossy: values may come out beside those that went in.
        takes_view: both read a view of the file as well as bytes of their own.
    """

    check: Callable[[Any, PixelLayout], SampleFormat]
    decode: Callable[[Any, PixelLayout, SampleFormat], NDArray[Any]]
    is_lossy: bool = False
    takes_view: bool = False


def _decode_rle(stream: memoryview, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    """Decodes RLE (PS3.5 annex G): a PackBits segment for each byte of the pixels, the high one first.

    A segment that holds more or fewer bytes than the frame has pixels is damaged, or another frame's.
    """
    shape = (layout.rows, layout.columns)
    segments = [_decode_segment(each, layout) for each in split_rle(stream)]
    if len(segments) == 1:
        return segments[0].reshape(shape)
    high, low = segments
    pixels = high.astype(np.uint16)
    pixels <<= 8
    pixels |= low
    return pixels.reshape(shape)


def _decode_segment(segment: memoryview, layout: PixelLayout) -> NDArray[np.uint8]:
    size = layout.rows * layout.columns
    # The decoder writes no further than this array and refuses what would not fit.
    decoded = _unpack_bits(segment, out=np.empty(size + _RLE_PADDING_BYTES, np.uint8))
    if len(decoded) < size or decoded[size:].any():
        message = f"an RLE segment must hold {size} bytes. Received: {len(decoded)}"
        raise RejectedError(RejectReason.UNDECODABLE, message)
    return decoded[:size]


def _decode_jpeg(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    """Decodes JPEG, and finds out whether the decoder made up its end.

    libjpeg reads zero bits where data have run out, and its warning is not passed on. Then the last two
    pixels are equal (lossless: a difference of zero; else: an empty block), so only then is it worth
    decoding again with other bits behind the data: a whole stream never comes to them.
    """
    pixels = imagecodecs.jpeg8_decode(stream)
    if sample.has_restarts or pixels[-1, -1] == pixels[-1, -2:][0]:
        head, scan = stream[: sample.scan_start], stream[sample.scan_start :]
        longer = head + _JPEG_INTERVAL_END.sub(lambda end: _POISON + end.group(), scan)
        if not np.array_equal(pixels, imagecodecs.jpeg8_decode(longer)):
            raise RejectedError(RejectReason.TRUNCATED, "the code stream ends before its last pixel")
    return pixels


def _decode_jpeg_ls(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    return imagecodecs.jpegls_decode(stream)


def _decode_jpeg_2000(stream: bytes, layout: PixelLayout, sample: SampleFormat) -> NDArray[Any]:
    # Workers are processes; a decoder's threads would only fight them.
    return imagecodecs.jpeg2k_decode(stream, numthreads=1)


_LOSSLESS_J2K = FrameCodec(check_jpeg_2000, _decode_jpeg_2000)
_LOSSY_J2K = FrameCodec(check_jpeg_2000, _decode_jpeg_2000, is_lossy=True)

#: The encapsulated transfer syntaxes that are read.
CODECS: dict[str, FrameCodec] = {
    uid.RLELossless: FrameCodec(check_rle, _decode_rle, takes_view=True),
    uid.JPEGBaseline8Bit: FrameCodec(check_jpeg, _decode_jpeg, is_lossy=True),
    uid.JPEGExtended12Bit: FrameCodec(check_jpeg, _decode_jpeg, is_lossy=True),
    uid.JPEGLossless: FrameCodec(check_jpeg, _decode_jpeg),
    uid.JPEGLosslessSV1: FrameCodec(check_jpeg, _decode_jpeg),
    uid.JPEGLSLossless: FrameCodec(check_jpeg_ls, _decode_jpeg_ls),
    uid.JPEGLSNearLossless: FrameCodec(check_jpeg_ls, _decode_jpeg_ls, is_lossy=True),
    uid.JPEG2000Lossless: _LOSSLESS_J2K,
    uid.JPEG2000: _LOSSY_J2K,
    uid.HTJ2KLossless: _LOSSLESS_J2K,
    uid.HTJ2KLosslessRPCL: _LOSSLESS_J2K,
    uid.HTJ2K: _LOSSY_J2K,
}

#: The transfer syntaxes whose pixels lie there as they are.
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
        code: the frame's code stream, its fragments joined.
        layout: what the header says.

    Returns:
        [rows, columns], uint8, int8, uint16 or int16 as the layout has it, with the bits above BitsStored
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
    except Exception as error:  # each decoder has errors of its own
        message = f"the code stream cannot be decoded ({type(error).__name__})"
        raise RejectedError(RejectReason.UNDECODABLE, message) from None
    if pixels.shape != (layout.rows, layout.columns) or pixels.dtype.kind not in "ui":
        message = f"the code stream must decode to grey pixels. Received: {pixels.dtype} {pixels.shape}"
        raise RejectedError(RejectReason.UNDECODABLE, message)
    if codec.is_lossy and sample.precision > layout.bits_stored:
        # Errors of coding can step over the range's end; a mask would wrap white to black.
        whole = replace(layout, bits_stored=layout.bits_allocated)
        pixels = clear_unused_bits(pixels, whole).clip(*value_range(layout))
    return clear_unused_bits(pixels, layout)


def value_range(layout: PixelLayout) -> tuple[int, int]:
    """Returns the smallest and largest value that BitsStored bits can hold.

    >>> value_range(PixelLayout(1, 1, 16, 12, is_signed=True, is_inverted=False))
    (-2048, 2047)
    """
    if layout.is_signed:
        return -(1 << layout.bits_stored - 1), (1 << layout.bits_stored - 1) - 1
    return 0, (1 << layout.bits_stored) - 1


def clear_unused_bits(pixels: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Makes container values pixel values: the bits above BitsStored may hold anything, overlays too.

    Args:
        pixels: integers of any width up to BitsAllocated, any byte order, [rows, columns].
        layout: what the header says.

    Returns:
        uint8, int8, uint16 or int16, native byte order; the same array where nothing is to be done.

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
        signed = (signed << unused) >> unused  # numpy shifts signed integers right by their sign
    return signed
