"""Files with faulty pixels: format, number, fragments and code streams."""

import struct
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.file_damage import (
    FileFault,
    Spoil,
    chain,
    cut_to,
    edited,
    find_pixel_data,
    read_dataset,
    with_syntax,
    write_dataset,
)
from tests.dicom.made_files import encode


def _coded(syntax: str, spoil_stream: Spoil = lambda stream: stream, **tags: Any) -> Spoil:
    """Returns a function that re-encodes a file and damages its code stream, and then its header."""

    def spoil(good: bytes) -> bytes:
        dataset = read_dataset(good)
        stream = spoil_stream(encode(dataset.pixel_array, syntax))
        return _encapsulated(dataset, syntax, encapsulate([stream]), **tags)

    return spoil


def _encapsulated(dataset: Dataset, syntax: str, value: bytes, **tags: Any) -> bytes:
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.PixelData = value
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    for keyword, tag_value in tags.items():
        setattr(dataset, keyword, tag_value)
    return write_dataset(dataset)


def _as_float(good: bytes) -> bytes:
    dataset = read_dataset(good)
    dataset.FloatPixelData = dataset.pixel_array.astype("<f4").tobytes()
    dataset.BitsAllocated = 32
    del dataset.PixelData
    return write_dataset(dataset)


def _longer_pixels(good: bytes) -> bytes:
    dataset = read_dataset(good)
    dataset.PixelData += b"\1" * (2 * dataset.Columns)
    return write_dataset(dataset)


def _encapsulated_but_native(good: bytes) -> bytes:
    return with_syntax(uid.ExplicitVRLittleEndian.encode())(_coded(uid.RLELossless)(good))


def _without_delimiter(good: bytes) -> bytes:
    coded = _coded(uid.RLELossless)(good)
    return coded[:-8]


def _long_fragment(good: bytes) -> bytes:
    coded = _coded(uid.RLELossless)(good)
    start = coded.rindex(b"\xfe\xff\x00\xe0") + 4
    return coded[:start] + struct.pack("<I", 1 << 30) + coded[start + 4 :]


def _fragments_of_nothing(good: bytes) -> bytes:
    return _encapsulated(read_dataset(good), uid.RLELossless, b"\xfe\xff\x00\xe0\0\0\0\0")


def _garbage_for_fragments(good: bytes) -> bytes:
    coded = _coded(uid.RLELossless)(good)
    return coded[: find_pixel_data(coded) + 12] + b"\x01\x02\x03\x04" * 64


def _of_another_size(syntax: str, *, more: int = -1) -> Spoil:
    """Returns a function that gives the code stream more or fewer rows than the header."""

    def spoil(good: bytes) -> bytes:
        dataset = read_dataset(good)
        pixels = dataset.pixel_array
        stream = encode(np.resize(pixels, (len(pixels) + more, pixels.shape[1])), syntax)
        return _encapsulated(dataset, syntax, encapsulate([stream]))

    return spoil


def _rle_with_count(count: int) -> Spoil:
    return lambda stream: struct.pack("<I", count) + stream[4:]


def _rle_past_end(stream: bytes) -> bytes:
    """Moves the second segment beyond the end of the stream."""
    return stream[:8] + struct.pack("<I", len(stream) + 2) + stream[12:]


def _jpeg_ended_early(stream: bytes) -> bytes:
    """Keeps half of the scan and the end marker: decoders invent the rest."""
    scan = stream.index(b"\xff\xda") + 10
    return stream[: scan + (len(stream) - scan) // 2].rstrip(b"\xff") + b"\xff\xd9"


def _colour_jpeg(good: bytes) -> bytes:
    dataset = read_dataset(good)
    grey = (dataset.pixel_array >> 4).astype(np.uint8)
    stream = imagecodecs.jpeg8_encode(np.stack([grey] * 3, axis=-1), 90)
    return _encapsulated(dataset, uid.JPEGBaseline8Bit, encapsulate([stream]))


def _j2k_of_many_tiles(stream: bytes) -> bytes:
    """Declares tiles of one pixel and a size of 65,536 x 65,536."""
    size = struct.pack(">IIIIIIII", 1 << 16, 1 << 16, 0, 0, 1, 1, 0, 0)
    return stream[:8] + size + stream[40:]


PIXEL_FAULTS: tuple[FileFault, ...] = (
    # Pixel storage.
    FileFault("floating point", RejectReason.BAD_PIXEL_FORMAT, _as_float),
    FileFault("32 bits", RejectReason.BAD_PIXEL_FORMAT, edited(BitsAllocated=32, BitsStored=32, HighBit=31)),
    FileFault("1 bit", RejectReason.BAD_PIXEL_FORMAT, edited(BitsAllocated=1, BitsStored=1, HighBit=0)),
    FileFault(
        "more bits stored than allocated", RejectReason.BAD_PIXEL_FORMAT, edited(BitsStored=17, HighBit=16)
    ),
    FileFault("left-aligned bits", RejectReason.BAD_PIXEL_FORMAT, edited(HighBit=15)),
    FileFault("neither signed nor unsigned", RejectReason.BAD_PIXEL_FORMAT, edited(PixelRepresentation=2)),
    FileFault("video", RejectReason.UNSUPPORTED_SYNTAX, with_syntax(uid.MPEG4HP41.encode())),
    FileFault("unheard-of syntax", RejectReason.UNSUPPORTED_SYNTAX, with_syntax(b"1.2.3")),
    FileFault(
        "a row more than pixels",
        RejectReason.WRONG_PIXEL_COUNT,
        lambda good: edited(Rows=read_dataset(good).Rows + 1)(good),
    ),
    FileFault(
        "a row less than pixels",
        RejectReason.WRONG_PIXEL_COUNT,
        lambda good: edited(Rows=read_dataset(good).Rows - 1)(good),
    ),
    FileFault("pixels of one more row", RejectReason.WRONG_PIXEL_COUNT, _longer_pixels),
    FileFault("65,535 x 65,535", RejectReason.TOO_LARGE, edited(Rows=65535, Columns=65535)),
    FileFault(
        "65,535 x 65,535 compressed",
        RejectReason.TOO_LARGE,
        _coded(uid.RLELossless, Rows=65535, Columns=65535),
    ),
    FileFault(
        "8,000 x 8,000 in few RLE bytes",
        RejectReason.WRONG_PIXEL_COUNT,
        _coded(uid.RLELossless, Rows=8000, Columns=8000),
    ),
    FileFault("encapsulated in a native syntax", RejectReason.DAMAGED_HEADER, _encapsulated_but_native),
    FileFault(
        "native in an encapsulated syntax", RejectReason.DAMAGED_HEADER, with_syntax(uid.RLELossless.encode())
    ),
    # Fragments.
    FileFault("no sequence delimiter", RejectReason.TRUNCATED, _without_delimiter),
    FileFault("fragment of a gigabyte", RejectReason.TRUNCATED, _long_fragment),
    FileFault("no fragments", RejectReason.WRONG_PIXEL_COUNT, _fragments_of_nothing),
    FileFault("no items", RejectReason.UNDECODABLE, _garbage_for_fragments),
    # Code streams.
    FileFault("RLE, cut", RejectReason.UNDECODABLE, _coded(uid.RLELossless, cut_to(0.9))),
    FileFault("RLE, header cut", RejectReason.TRUNCATED, _coded(uid.RLELossless, lambda stream: stream[:40])),
    FileFault("RLE, three segments", RejectReason.UNDECODABLE, _coded(uid.RLELossless, _rle_with_count(3))),
    FileFault("RLE, segment past the end", RejectReason.TRUNCATED, _coded(uid.RLELossless, _rle_past_end)),
    FileFault("RLE, a row less", RejectReason.UNDECODABLE, _of_another_size(uid.RLELossless)),
    FileFault("RLE, a row more", RejectReason.UNDECODABLE, _of_another_size(uid.RLELossless, more=1)),
    FileFault("JPEG, cut", RejectReason.TRUNCATED, _coded(uid.JPEGLosslessSV1, cut_to(0.7))),
    FileFault("JPEG, ended early", RejectReason.TRUNCATED, _coded(uid.JPEGLosslessSV1, _jpeg_ended_early)),
    FileFault(
        "JPEG Extended, ended early", RejectReason.TRUNCATED, _coded(uid.JPEGExtended12Bit, _jpeg_ended_early)
    ),
    FileFault("JPEG, another size", RejectReason.UNDECODABLE, _of_another_size(uid.JPEGLosslessSV1)),
    FileFault("JPEG, colour", RejectReason.UNDECODABLE, _colour_jpeg),
    FileFault(
        "JPEG, no JPEG", RejectReason.UNDECODABLE, _coded(uid.JPEGLosslessSV1, lambda stream: b"GIF89a" * 40)
    ),
    FileFault(
        "JPEG, tables lost",
        RejectReason.UNDECODABLE,
        _coded(uid.JPEGLosslessSV1, lambda stream: stream.replace(b"\xff\xc4", b"\xff\xfe")),
    ),
    FileFault("JPEG-LS, cut", RejectReason.TRUNCATED, _coded(uid.JPEGLSLossless, cut_to(0.7))),
    FileFault("JPEG-LS, damaged", RejectReason.UNDECODABLE, _coded(uid.JPEGLSLossless, _jpeg_ended_early)),
    FileFault("JPEG-LS, another size", RejectReason.UNDECODABLE, _of_another_size(uid.JPEGLSLossless)),
    FileFault("JPEG 2000, cut", RejectReason.UNDECODABLE, _coded(uid.JPEG2000Lossless, cut_to(0.7))),
    FileFault("JPEG 2000, another size", RejectReason.UNDECODABLE, _of_another_size(uid.JPEG2000Lossless)),
    FileFault(
        "JPEG 2000, 65,536 x 65,536",
        RejectReason.UNDECODABLE,
        _coded(uid.JPEG2000Lossless, _j2k_of_many_tiles),
    ),
    FileFault("HTJ2K, cut", RejectReason.UNDECODABLE, _coded(uid.HTJ2KLossless, cut_to(0.7))),
    FileFault(
        "JPEG-LS for RLE",
        RejectReason.UNDECODABLE,
        chain(_coded(uid.JPEGLSLossless), with_syntax(uid.RLELossless.encode())),
    ),
)
