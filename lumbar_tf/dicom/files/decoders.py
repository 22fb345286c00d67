"""The decoders that a study can be read with.

It lives here and not in `imaging`, because one of them needs TensorFlow.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any

from numpy.typing import NDArray

from lumbar_tf.dicom.files import pixels, tfio_decoder
from lumbar_tf.dicom.files.frames import Frame, ImageFile

#: Takes a file and one of its frames, gives the frame's pixels [rows, columns] or raises `RefusedError`.
FrameDecoder = Callable[[ImageFile, Frame], NDArray[Any]]


class Decoder(Enum):
    """What turns a file's bytes into pixels; the value is the command line's word."""

    PYDICOM = "pydicom"
    TFIO = "tfio"


def frame_decoder(decoder: Decoder) -> FrameDecoder:
    """Returns a decoder's function, once it is known to work here.

    Args:
        decoder: the decoder. In worker processes, hand over this and not the function: each process
            loads its own.

    Raises:
        ValueError: tensorflow-io is asked for and its ops do not load; says what to install.
    """
    if decoder is Decoder.PYDICOM:
        return pixels.decode_frame
    tfio_decoder.probe()
    return tfio_decoder.decode_frame_with_tfio
