"""Frame decoders: imagecodecs by default, and tensorflow-io (DCMTK) as a cross-check.

tensorflow-io is never a replacement for the default decoder. It reads the whole file itself, so it exposes
mistakes in how this package finds and unpacks pixels. Files that it is known to decode wrongly without an
error are rejected beforehand, so every study that it reads is correct.
"""

import functools
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.codecs import CODECS, NATIVE_SYNTAXES, clear_unused_bits, decode_stream
from lumbar_tf.dicom.files.fragments import read_frame_bytes
from lumbar_tf.dicom.files.frames import Frame, ImageFile, find_value
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: Maps a file and one of its frames to the frame's pixels [rows, columns], or raises `RejectedError`.
FrameDecoder = Callable[[ImageFile, Frame], NDArray[Any]]

#: Overlay planes are in the even groups 6000 to 601E (PS3.5 section 7.6), followed by curves and others.
_OVERLAY_GROUPS = range(0x6000, 0x6100, 2)


class Decoder(Enum):
    """Decoders of pixel data; the value is the word of the command line."""

    PYDICOM = "pydicom"
    TFIO = "tfio"


def frame_decoder(decoder: Decoder) -> FrameDecoder:
    """Returns the function of a decoder, after checking that it works in this environment.

    Args:
        decoder: the decoder. Pass this value to worker processes rather than the function: every process
            loads its own.

    Raises:
        ValueError: the ops of tensorflow-io do not load; the message lists what to install.
    """
    if decoder is Decoder.PYDICOM:
        return decode_frame
    check_tfio_available()
    return decode_frame_with_tfio


def decode_frame(image: ImageFile, frame: Frame) -> NDArray[Any]:
    """Decodes one frame; the other frames of the file are not read.

    Args:
        image: the file.
        frame: one of its frames.

    Returns:
        [rows, columns], larger is brighter (MONOCHROME1 is inverted over the range of BitsStored): the
        stored uint8, int8, uint16 or int16 if the slope is 1 and the intercept 0, else float32 after
        rescale. Overlays are not applied.

    Raises:
        RejectedError: TRUNCATED, UNDECODABLE, WRONG_PIXEL_COUNT or BAD_PIXEL_FORMAT.
    """
    stored = _decode_stored(image, frame.index)
    if image.layout.is_inverted:
        # v -> 2^stored - 1 - v unsigned, -1 - v signed: the same complement of every stored bit, so that
        # the slices of a series stay comparable.
        stored = clear_unused_bits(~stored, image.layout)
    if (frame.slope, frame.intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)


def _decode_stored(image: ImageFile, index: int) -> NDArray[Any]:
    ranges, layout = image.pixel_ranges[index], image.layout
    if image.syntax not in NATIVE_SYNTAXES:
        return decode_stream(image.syntax, read_frame_bytes(image.body, ranges), layout)
    ((start, stop),) = ranges
    if image.is_big_endian and layout.bits_allocated == 8:
        pixels: NDArray[Any] = _unswap(image.body, image.pixel_ranges[0][0][0], start, stop)
    else:
        order = ">" if image.is_big_endian else "<"
        container = np.dtype(f"{order}u{layout.bits_allocated // 8}")
        pixels = np.frombuffer(image.body, container, layout.rows * layout.columns, start)
        if image.syntax == uid.ExplicitVRBigEndian and not image.is_big_endian:
            _check_byte_order(pixels, layout)
    return clear_unused_bits(pixels.reshape(layout.rows, layout.columns), layout)


def _check_byte_order(pixels: NDArray[Any], layout: PixelLayout) -> None:
    """Rejects pixels in bytes (OB) whose unused bits are blank only if their bytes are swapped.

    Bytes are stored from the least significant one in every transfer syntax (PS3.5 section 8.1.1), but a
    writer may have swapped them nevertheless.
    """
    if layout.bits_allocated == 8:
        return
    if np.any(pixels >> layout.bits_stored) and not np.any(pixels.byteswap() >> layout.bits_stored):
        message = "16-bit pixels with VR OB must have their least significant byte first"
        raise RejectedError(RejectReason.BAD_PIXEL_FORMAT, message)


def _unswap(body: bytes, first: int, start: int, stop: int) -> NDArray[Any]:
    """Returns the bytes from start to stop of a value that begins at first and has swapped 16-bit words."""
    # A frame of an odd size shares a word with the next one.
    low, high = start - (start - first) % 2, stop + (stop - first) % 2
    if high > len(body):
        raise RejectedError(RejectReason.TRUNCATED, "the pixel data end in the middle of a word")
    words = np.frombuffer(body, ">u2", (high - low) // 2, low)
    return words.astype("<u2").view(np.uint8)[start - low : stop - low]


def check_tfio_available() -> None:
    """Checks that the ops of tensorflow-io load in this environment.

    Raises:
        ValueError: they do not load; the message lists what to install.
    """
    try:
        load_tfio_op()
    except ValueError:
        raise
    # Anything: an absent package, an op library built for another TensorFlow, a protobuf that is too new.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(
            "The tfio decoder needs tensorflow-io 0.37 with TensorFlow up to 2.17 and Python up to 3.12, in "
            "an environment of its own: pip install 'lumbar_tf[tfio]' -c constraints-tfio.txt. "
            f"Received: {reason[:200]}"
        ) from error


@functools.cache
def load_tfio_op() -> Callable[[bytes], NDArray[np.uint16]]:
    """Returns the op as a function from a file to [frames, rows, columns, 1]."""
    import tensorflow as tf
    import tensorflow_io as tfio

    def decode(data: bytes) -> NDArray[np.uint16]:
        # "preserve" keeps the stored values; "strict" turns errors into exceptions instead of empty arrays.
        return tfio.image.decode_dicom_image(
            data, color_dim=False, scale="preserve", on_error="strict", dtype=tf.uint16
        ).numpy()

    try:
        decode(b"")  # the op library is loaded on first use
    except tf.errors.InvalidArgumentError:
        return decode
    raise ValueError("The tfio decoder must reject an empty file. Received: pixels.")


def decode_frame_with_tfio(image: ImageFile, frame: Frame) -> NDArray[Any]:
    """Decodes one frame with tensorflow-io; the result equals that of `decode_frame`.

    Args:
        image: the file.
        frame: its only frame.

    Returns:
        [rows, columns], the stored uint8 or uint16.

    Raises:
        RejectedError: DECODER_REFUSED for files that DCMTK decodes wrongly or not at all; TRUNCATED,
            UNDECODABLE, WRONG_PIXEL_COUNT or BAD_PIXEL_FORMAT for a code stream that the default decoder
            rejects.
        ValueError: see `check_tfio_available`.
    """
    _reject_unsupported(image, frame)
    _check_code_stream(image, frame)
    check_tfio_available()
    try:
        pixels = load_tfio_op()(image.data)
    except Exception as error:  # TensorFlow's errors; it is not imported here, and their text names no rule
        raise _tfio_rejection(f"cannot read this file ({type(error).__name__})") from None
    layout = image.layout
    expected = (1, layout.rows, layout.columns, 1)
    if pixels.shape != expected:
        raise _tfio_rejection(f"must return pixels of shape {expected}. Received: {pixels.shape}")
    return pixels[0, :, :, 0].astype(f"u{layout.bits_allocated // 8}", copy=False)


def _reject_unsupported(image: ImageFile, frame: Frame) -> None:
    """Rejects files that tensorflow-io was measured to decode wrongly without an error (`tests/tfio`)."""
    if len(image.frames) > 1:
        raise _tfio_rejection(f"decodes all frames on every call. Received: {len(image.frames)} frames")
    if image.layout.is_signed:
        raise _tfio_rejection("shifts signed pixels")
    if (frame.slope, frame.intercept) != (1.0, 0.0):
        raise _tfio_rejection(
            f"rounds rescaled pixels. Received: slope {frame.slope}, intercept {frame.intercept}"
        )
    if image.layout.is_inverted:
        raise _tfio_rejection("inverts MONOCHROME1 over another range")
    if (
        image.syntax == uid.ExplicitVRBigEndian
        and not image.is_big_endian
        and image.layout.bits_allocated > 8
    ):
        raise _tfio_rejection("swaps 16-bit pixels with VR OB")
    # Other decoders do not invert pixels for it: the attribute describes the display (PS3.3 section C.11.6).
    if find_value(image.dataset, "PresentationLUTShape") == "INVERSE":
        raise _tfio_rejection("inverts pixels if PresentationLUTShape is INVERSE")
    if any(tag.group in _OVERLAY_GROUPS for tag in image.dataset.keys()):  # noqa: SIM118 - a Dataset's
        raise _tfio_rejection("draws overlays into the pixels")


def _check_code_stream(image: ImageFile, frame: Frame) -> None:
    """Rejects a code stream that the default decoder finds broken: DCMTK fills in missing data.

    For some codecs only decoding shows the damage, so the stream is decoded twice. This decoder is for
    verification, not for speed.
    """
    if image.syntax in CODECS:
        decode_stream(
            image.syntax, read_frame_bytes(image.body, image.pixel_ranges[frame.index]), image.layout
        )


def _tfio_rejection(message: str) -> RejectedError:
    return RejectedError(RejectReason.DECODER_REFUSED, f"the tfio decoder {message}")
