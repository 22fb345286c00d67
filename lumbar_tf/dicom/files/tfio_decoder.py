"""tensorflow-io (DCMTK) as the second decoder: to check the default one by, never instead of it.

It reads the whole file by itself, so a mistake in how this package finds and unpacks pixels shows. What it
is known to get wrong without a word is refused before it is asked, so a study that it reads is read right.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.files.codecs import CODECS, decode_stream
from lumbar_tf.dicom.files.fragments import read_frame_bytes
from lumbar_tf.dicom.files.frames import Frame, ImageFile, find_value
from lumbar_tf.dicom.reasons import RefusedError, RejectReason

#: Overlay planes stand in the even groups 6000 to 601E (PS3.5 section 7.6); curves and more behind them.
_OVERLAY_GROUPS = range(0x6000, 0x6100, 2)


def probe() -> None:
    """Finds out whether tensorflow-io's ops load here.

    Raises:
        ValueError: they do not; says what to install.
    """
    try:
        _load()
    except ValueError:
        raise
    # An absent package, an op library made for another TensorFlow, a protobuf that is too new: anything.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(
            "The tfio decoder needs tensorflow-io 0.37 with TensorFlow up to 2.17 and Python up to 3.12, in "
            "an environment of its own: pip install 'lumbar_tf[tfio]' -c constraints-tfio.txt. "
            f"Received: {reason[:200]}"
        ) from error


@functools.cache
def _load() -> Callable[[bytes], NDArray[np.uint16]]:
    """Returns the op as a function from a file to [frames, rows, columns, 1]."""
    import tensorflow as tf
    import tensorflow_io as tfio

    def decode(data: bytes) -> NDArray[np.uint16]:
        # "preserve" leaves values as they are stored; "strict" makes errors exceptions, not empty arrays.
        return tfio.image.decode_dicom_image(
            data, color_dim=False, scale="preserve", on_error="strict", dtype=tf.uint16
        ).numpy()

    try:
        decode(b"")  # the op library is loaded when an op is first used
    except tf.errors.InvalidArgumentError:
        return decode
    raise ValueError("The tfio decoder must refuse an empty file. Received: pixels.")


def decode_frame_with_tfio(image: ImageFile, frame: Frame) -> NDArray[Any]:
    """Decodes one frame as `dicom.files.pixels.decode_frame` does, by other means, or refuses to.

    Args:
        image: the file.
        frame: its only frame.

    Returns:
        [rows, columns], the stored uint8 or uint16.

    Raises:
        RefusedError: DECODER_REFUSED, for what DCMTK reads wrong or not at all; TRUNCATED, UNDECODABLE,
            WRONG_PIXEL_COUNT or BAD_PIXEL_FORMAT for a code stream that the default decoder refuses.
        ValueError: see `probe`.
    """
    _refuse_known_faults(image, frame)
    _check_stream(image, frame)
    probe()
    try:
        pixels = _load()(image.data)
    except Exception as error:  # TensorFlow's errors; it is not imported here, and their text names no rule
        raise _refuse(f"cannot read this file ({type(error).__name__})") from None
    layout = image.layout
    expected = (1, layout.rows, layout.columns, 1)
    if pixels.shape != expected:
        raise _refuse(f"must give pixels of shape {expected}. Received: {pixels.shape}")
    return pixels[0, :, :, 0].astype(f"u{layout.bits_allocated // 8}", copy=False)


def _refuse_known_faults(image: ImageFile, frame: Frame) -> None:
    """Refuses what was measured to come out wrong without an error (`tests/tfio`)."""
    if len(image.frames) > 1:
        raise _refuse(f"reads all frames each time. Received: {len(image.frames)} frames")
    if image.layout.is_signed:
        raise _refuse("shifts signed pixels")
    if (frame.slope, frame.intercept) != (1.0, 0.0):
        raise _refuse(f"rounds rescaled pixels. Received: slope {frame.slope}, intercept {frame.intercept}")
    if image.layout.is_inverted:
        raise _refuse("turns MONOCHROME1 round over another range")
    # Nobody else takes it for a reason to turn pixels round (PS3.3 section C.11.6: it says how to show them).
    if find_value(image.dataset, "PresentationLUTShape") == "INVERSE":
        raise _refuse("turns pixels round where PresentationLUTShape is INVERSE")
    if any(tag.group in _OVERLAY_GROUPS for tag in image.dataset.keys()):  # noqa: SIM118 - a Dataset's
        raise _refuse("draws overlays into the pixels")


def _check_stream(image: ImageFile, frame: Frame) -> None:
    """Refuses a code stream that the default decoder finds broken: DCMTK fills up what is missing.

    Only decoding shows it in every coding, so it is done twice: this decoder is for checking, not for speed.
    """
    if image.syntax in CODECS:
        decode_stream(
            image.syntax, read_frame_bytes(image.body, image.pixel_ranges[frame.index]), image.layout
        )


def _refuse(message: str) -> RefusedError:
    return RefusedError(RejectReason.DECODER_REFUSED, f"the tfio decoder {message}")
