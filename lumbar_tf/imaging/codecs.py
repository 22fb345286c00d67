"""Which decoder reads which transfer syntax.

imagecodecs decodes the JPEG families, all of them including JPEG Lossless and 12-bit JPEG Extended, but
is no pydicom plug-in; this module is that plug-in. RLE goes to pylibjpeg-rle. The plug-in is
named for every file, so another one that happens to be installed never changes a pixel.
"""

from collections.abc import Callable

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner

_PLUGIN = "imagecodecs"

_DECODERS: dict[str, Callable[[bytes], NDArray[np.generic]]] = {
    uid.JPEGBaseline8Bit: imagecodecs.jpeg8_decode,
    uid.JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    uid.JPEGLossless: imagecodecs.jpeg8_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
    uid.HTJ2KLossless: imagecodecs.jpeg2k_decode,
    uid.HTJ2KLosslessRPCL: imagecodecs.jpeg2k_decode,
    uid.HTJ2K: imagecodecs.jpeg2k_decode,
}

#: pydicom asks a plug-in module for this.
DECODER_DEPENDENCIES = dict.fromkeys(_DECODERS, ("imagecodecs>=2024.1",))


def is_available(syntax: str) -> bool:
    """Tells pydicom whether this plug-in reads a transfer syntax."""
    return syntax in _DECODERS


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decodes one compressed frame for pydicom.

    Args:
        source: the code stream.
        runner: what the file's header says of it.

    Returns:
        Pixels in rows, little endian, in containers of BitsAllocated bits.

    Raises:
        ValueError: the decoded image is not the one that the header describes.
    """
    image = _DECODERS[runner.transfer_syntax](source)
    if image.shape != (runner.rows, runner.columns):
        raise ValueError(
            f"The decoded image must be {runner.rows} x {runner.columns}, as the header says. "
            f"Received: {' x '.join(map(str, image.shape))}."
        )
    container = np.dtype(f"<u{runner.bits_allocated // 8}")
    if image.dtype.kind not in "ui" or image.dtype.itemsize > container.itemsize:
        raise ValueError(f"Pixels must fit {runner.bits_allocated} bits. Received: {image.dtype}.")
    if image.dtype.kind == "i":
        container = np.dtype(f"<i{container.itemsize}")
    return image.astype(container).tobytes()


def _register() -> None:
    for syntax in _DECODERS:
        decoder = get_decoder(uid.UID(syntax))
        if _PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(_PLUGIN, (__name__, "decode_frame"))


_register()


def decode_stored_values(dataset: pydicom.Dataset) -> NDArray[np.integer]:
    """Decodes a single-frame grey image to stored values, before any rescale.

    Args:
        dataset: with PixelData, one frame, one sample a pixel.

    Returns:
        Integers [rows, columns], signed where PixelRepresentation is 1.

    Raises:
        Exception: whatever pydicom or a decoder raises on a stream that it cannot read.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = ""
    if syntax in _DECODERS:
        plugin = _PLUGIN
    elif syntax == uid.RLELossless:
        plugin = "pylibjpeg"
    pixels, _ = get_decoder(syntax).as_array(dataset, decoding_plugin=plugin)
    return pixels
