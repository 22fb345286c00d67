"""From a frame's bytes to its pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from lumbar_tf.dicom.files.codecs import NATIVE_SYNTAXES, clear_unused_bits, decode_stream
from lumbar_tf.dicom.files.fragments import read_frame_bytes
from lumbar_tf.dicom.files.frames import Frame, ImageFile
from lumbar_tf.dicom.reasons import RefusedError, RejectReason

__all__ = ["decode_frame"]


def decode_frame(image: ImageFile, frame: Frame) -> NDArray[Any]:
    """Decodes one frame; the file's other frames are not looked at.

    Args:
        image: the file.
        frame: one of its frames.

    Returns:
        [rows, columns], larger is brighter (MONOCHROME1 is turned round over the range of BitsStored): the
        stored uint8, int8, uint16 or int16 where slope is 1 and intercept 0, else float32 after rescale.
        Overlays are left out.

    Raises:
        RefusedError: TRUNCATED, UNDECODABLE, WRONG_PIXEL_COUNT or BAD_PIXEL_FORMAT.
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
    if image.is_swapped:
        pixels: NDArray[Any] = _unswap(image.body, image.pixel_ranges[0][0][0], start, stop)
    else:
        order = ">" if image.syntax == uid.ExplicitVRBigEndian else "<"
        container = np.dtype(f"{order}u{layout.bits_allocated // 8}")
        pixels = np.frombuffer(image.body, container, layout.rows * layout.columns, start)
    return clear_unused_bits(pixels.reshape(layout.rows, layout.columns), layout)


def _unswap(body: bytes, first: int, start: int, stop: int) -> NDArray[Any]:
    """Returns the bytes from start to stop of a value, beginning at first, whose words of two are swapped."""
    # A frame of an odd size shares a word with the next one.
    low, high = start - (start - first) % 2, stop + (stop - first) % 2
    if high > len(body):
        raise RefusedError(RejectReason.TRUNCATED, "the pixel data end in the middle of a word")
    words = np.frombuffer(body, ">u2", (high - low) // 2, low)
    return words.astype("<u2").view(np.uint8)[start - low : stop - low]
