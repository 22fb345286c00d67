import struct
import time

import imagecodecs
import numpy as np
import pytest
from pydicom import uid

from lumbar_tf.dicom.files.code_streams import PixelLayout, check_jpeg_2000
from lumbar_tf.dicom.files.codecs import decode_stream
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import encode, make_pixels

PIXELS = make_pixels()
LAYOUT = PixelLayout(12, 16, 16, 12, is_signed=False, is_inverted=False)
GOOD = encode(PIXELS, uid.JPEG2000Lossless)
LARGE = PixelLayout(2048, 2048, 16, 12, is_signed=False, is_inverted=False)


def _reason(stream: bytes, layout: PixelLayout = LAYOUT) -> RejectReason:
    with pytest.raises(RejectedError) as caught:
        check_jpeg_2000(stream, layout)
    return caught.value.reason


def test_precision_and_sign_are_read() -> None:
    assert check_jpeg_2000(GOOD, LAYOUT).precision == 12
    assert check_jpeg_2000(encode(PIXELS, uid.HTJ2KLossless), LAYOUT).precision == 16
    signed = check_jpeg_2000(encode(PIXELS.astype(np.int16), uid.JPEG2000Lossless), LAYOUT)
    assert (signed.precision, signed.is_signed) == (16, True)


@pytest.mark.parametrize("field", ["size", "offset", "tile", "components", "step"])
def test_jpeg_2000_of_another_size_is_rejected(field: str) -> None:
    at, value = {
        "size": (8, struct.pack(">II", 17, 12)),
        "offset": (16, struct.pack(">II", 1, 0)),
        "tile": (24, struct.pack(">II", 0, 0)),
        "components": (40, struct.pack(">H", 3)),
        "step": (43, b"\x02\x02"),
    }[field]
    assert _reason(GOOD[:at] + value + GOOD[at + len(value) :]) is RejectReason.UNDECODABLE


def _large(
    *, style: int = 0, levels: int = 5, block: int = 4, sizes: bytes = b"", in_tile: bool = False
) -> bytes:
    """Returns a black image of 2,048 x 2,048 with another coding style."""
    good = imagecodecs.jpeg2k_encode(np.zeros((2048, 2048), np.uint16), codecformat="j2k", reversible=True)
    at = good.index(b"\xff\x52")
    (length,) = struct.unpack_from(">H", good, at + 2)
    segment = struct.pack(">BBHBBBBBB", style, 0, 1, 0, levels, block, block, 0, 1) + sizes
    segment = struct.pack(">HH", 0xFF52, len(segment) + 2) + segment
    if not in_tile:
        return good[:at] + segment + good[at + 2 + length :]
    tile = good.index(b"\xff\x90")
    (size,) = struct.unpack_from(">I", good, tile + 6)
    head = (
        good[:tile]
        + good[tile : tile + 6]
        + struct.pack(">I", size + len(segment))
        + good[tile + 10 : tile + 12]
    )
    return head + segment + good[tile + 12 :]


def test_usual_precincts_are_allowed() -> None:
    for sizes in (b"", b"\x77" + b"\x88" * 5, b"\x66" * 6):
        check_jpeg_2000(_large(style=bool(sizes), sizes=sizes), LARGE)
    assert decode_stream(uid.JPEG2000, _large(), LARGE).max() == 0


@pytest.mark.parametrize("in_tile", [False, True])
def test_precincts_of_one_pixel_are_rejected_before_decoding(in_tile: bool) -> None:
    # OpenJPEG takes 13 seconds and 2.3 GB for this kilobyte.
    stream = _large(style=1, sizes=b"\x00" + b"\x11" * 5, in_tile=in_tile)
    assert len(stream) < 4096
    start = time.perf_counter()
    assert _reason(stream, LARGE) is RejectReason.UNDECODABLE
    assert time.perf_counter() - start < 0.1


def test_many_blocks_of_four_pixels_are_rejected() -> None:
    assert _reason(_large(block=0), LARGE) is RejectReason.UNDECODABLE
    assert check_jpeg_2000(GOOD, LAYOUT)


def test_levels_and_segments_have_bounds() -> None:
    assert _reason(_large(levels=33), LARGE) is RejectReason.UNDECODABLE
    at = GOOD.index(b"\xff\x52")
    comments = b"\xff\x64\0\x02" * 20_000
    assert _reason(GOOD[:at] + comments + GOOD[at:]) is RejectReason.UNDECODABLE
    assert _reason(GOOD[:at] + b"\0\0\0\0" + GOOD[at:]) is RejectReason.UNDECODABLE
