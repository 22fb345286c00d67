"""Bad files, each made from a good one, with the reason code that is expected for it.

`FILE_FAULTS` is the table. A fault's `make` takes a sound file: one frame, Explicit VR Little Endian, not
compressed, as `made_files.make_file` writes it, and keeps its identity, so that a bad file can stand
among the good ones of a series.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from lumbar_tf.imaging.reasons import RejectReason
from tests.imaging.made_files import encode

Spoil = Callable[[bytes], bytes]


@dataclass(frozen=True)
class FileFault:
    """A way in which a file can be bad.

    Attributes:
        name: for people.
        reason: the code that `open_image` or `decode_frame` must refuse it with.
        make: makes the bad file from a good one.
    """

    name: str
    reason: RejectReason
    make: Spoil


def _read(good: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(good))


def _write(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is wrong on purpose
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _edited(**tags: Any) -> Spoil:
    """The same file with other values; None removes a tag."""

    def spoil(good: bytes) -> bytes:
        dataset = _read(good)
        for keyword, value in tags.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)
        return _write(dataset)

    return spoil


def _patched(keyword: str, value: bytes, vr: bytes | None = None) -> Spoil:
    """The same file with bytes in an element that pydicom would not write there."""

    def spoil(good: bytes) -> bytes:
        tag = tag_for_keyword(keyword)
        start = good.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
        old_vr, length = struct.unpack_from("<2sH", good, start + 4)
        new = struct.pack("<2sH", vr or old_vr, len(value)) + value
        return good[: start + 4] + new + good[start + 8 + length :]

    return spoil


def _inserted(element: bytes) -> Spoil:
    """The same file with bytes before its pixel data."""

    def spoil(good: bytes) -> bytes:
        start = _pixel_start(good)
        return good[:start] + element + good[start:]

    return spoil


def _pixel_start(good: bytes) -> int:
    return good.rindex(b"\xe0\x7f\x10\x00")


def _coded(syntax: str, spoil_stream: Spoil = lambda stream: stream, **tags: Any) -> Spoil:
    """The same picture in another transfer syntax, its code stream spoilt, and then its header."""

    def spoil(good: bytes) -> bytes:
        dataset = _read(good)
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
    return _write(dataset)


def _cut_to(keep: float) -> Spoil:
    return lambda data: data[: int(len(data) * keep)]


def _without_last(count: int) -> Spoil:
    return lambda data: data[:-count]


def _chain(first: Spoil, second: Spoil) -> Spoil:
    return lambda data: second(first(data))


def _with_preamble(start: bytes) -> Spoil:
    return lambda good: start.ljust(128, b"\0") + good[128:]


def _cut_in_meta(good: bytes) -> bytes:
    return good[:150]


def _cut_in_element(good: bytes) -> bytes:
    start = good.index(struct.pack("<HH", 0x0020, 0x0032), 132)  # ImagePositionPatient
    return good[: start + 12]


def _cut_before_pixels(good: bytes) -> bytes:
    return good[: _pixel_start(good)]


def _as_dicomdir(good: bytes) -> bytes:
    directory = Dataset()
    directory.file_meta = _read(good).file_meta
    directory.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    directory.FileSetID = "EXPORT"
    directory.DirectoryRecordSequence = [Dataset()]
    return _write(directory)


def _as_report(good: bytes) -> bytes:
    dataset = _read(good)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        delattr(dataset, keyword)
    dataset.Modality, dataset.SOPClassUID = "SR", uid.ComprehensiveSRStorage
    return _write(dataset)


def _as_float(good: bytes) -> bytes:
    dataset = _read(good)
    dataset.FloatPixelData = dataset.pixel_array.astype("<f4").tobytes()
    dataset.BitsAllocated = 32
    del dataset.PixelData
    return _write(dataset)


def _with_syntax(syntax: bytes) -> Spoil:
    """Another transfer syntax in the file meta information, whose length is patched with it."""

    def spoil(good: bytes) -> bytes:
        value = syntax + b"\0" * (len(syntax) % 2)
        patched = _patched("TransferSyntaxUID", value)(good)
        (length,) = struct.unpack_from("<I", patched, 140)
        return patched[:140] + struct.pack("<I", length + len(patched) - len(good)) + patched[144:]

    return spoil


def _longer_pixels(good: bytes) -> bytes:
    dataset = _read(good)
    dataset.PixelData += bytes(2 * dataset.Columns)
    return _write(dataset)


def _deflated(spoil_dataset: Spoil, spoil_deflated: Spoil) -> Spoil:
    def spoil(good: bytes) -> bytes:
        good = _with_syntax(uid.DeflatedExplicitVRLittleEndian.encode())(good)
        (length,) = struct.unpack_from("<I", good, 140)
        start = 144 + length
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        deflated = deflater.compress(spoil_dataset(good[start:])) + deflater.flush()
        return good[:start] + spoil_deflated(deflated)

    return spoil


def _flipped(data: bytes) -> bytes:
    """Every eighth byte of the first half turned over, behind the first 16."""
    spoilt = bytearray(data)
    for index in range(16, len(data) // 2, 8):
        spoilt[index] ^= 0xFF
    return bytes(spoilt)


_NESTED_ITEM = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_ENDLESS_VALUE = b"\x29\x00\x10\x10OB\0\0\xff\xff\xff\xff" + bytes(64)
_ABSURD_LENGTH = b"\x29\x00\x10\x10OB\0\0\xf0\xff\xff\xff" + bytes(64)
_EMPTY_ITEMS = _NESTED_ITEM[:12] + b"\xfe\xff\x00\xe0\0\0\0\0" * 110_000
_EMPTY_ELEMENTS = b"".join(struct.pack("<HH2sH", 0x0029, index, b"LO", 0) for index in range(0x1000, 0x8000))


def _rle_with_count(count: int) -> Spoil:
    return lambda stream: struct.pack("<I", count) + stream[4:]


def _rle_past_end(stream: bytes) -> bytes:
    """The second segment beyond the stream's end."""
    return stream[:8] + struct.pack("<I", len(stream) + 2) + stream[12:]


def _jpeg_ended_early(stream: bytes) -> bytes:
    """Half of the scan, and then a proper end: decoders paint the rest."""
    scan = stream.index(b"\xff\xda") + 10
    return stream[: scan + (len(stream) - scan) // 2].rstrip(b"\xff") + b"\xff\xd9"


def _of_another_size(syntax: str, *, more: int = -1) -> Spoil:
    """A code stream of an image with a row more or less than the header says."""

    def spoil(good: bytes) -> bytes:
        dataset = _read(good)
        pixels = dataset.pixel_array
        stream = encode(np.resize(pixels, (len(pixels) + more, pixels.shape[1])), syntax)
        return _encapsulated(dataset, syntax, encapsulate([stream]))

    return spoil


def _colour_jpeg(good: bytes) -> bytes:
    dataset = _read(good)
    grey = (dataset.pixel_array >> 4).astype(np.uint8)
    stream = imagecodecs.jpeg8_encode(np.stack([grey] * 3, axis=-1), 90)
    return _encapsulated(dataset, uid.JPEGBaseline8Bit, encapsulate([stream]))


def _j2k_of_many_tiles(stream: bytes) -> bytes:
    """Tiles of a pixel each, in a code stream that says it is 65,536 x 65,536."""
    size = struct.pack(">IIIIIIII", 1 << 16, 1 << 16, 0, 0, 1, 1, 0, 0)
    return stream[:8] + size + stream[40:]


def _j2k_of_small_tiles(stream: bytes) -> bytes:
    return stream[:24] + struct.pack(">II", 1, 1) + stream[32:]


def _without_delimiter(good: bytes) -> bytes:
    coded = _coded(uid.RLELossless)(good)
    return coded[:-8]


def _long_fragment(good: bytes) -> bytes:
    coded = _coded(uid.RLELossless)(good)
    start = coded.rindex(b"\xfe\xff\x00\xe0") + 4
    return coded[:start] + struct.pack("<I", 1 << 30) + coded[start + 4 :]


def _fragments_of_nothing(good: bytes) -> bytes:
    return _encapsulated(_read(good), uid.RLELossless, b"\xfe\xff\x00\xe0\0\0\0\0")


def _garbage_for_fragments(good: bytes) -> bytes:
    coded = _coded(uid.RLELossless)(good)
    return coded[: _pixel_start(coded) + 12] + b"\x01\x02\x03\x04" * 64


def _encapsulated_but_native(good: bytes) -> bytes:
    return _with_syntax(uid.ExplicitVRLittleEndian.encode())(_coded(uid.RLELossless)(good))


def _enhanced(num_groups: int, **shared: Any) -> Spoil:
    """Three frames, with functional groups for so many of them and no position in any."""

    def spoil(good: bytes) -> bytes:
        dataset = _read(good)
        dataset.NumberOfFrames = 3
        dataset.PixelData = dataset.PixelData * 3
        dataset.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(num_groups)]
        return _write(dataset)

    return spoil


def _table_for_rescale(good: bytes) -> bytes:
    dataset = _read(good)
    dataset.ModalityLUTSequence = [Dataset()]
    return _write(dataset)


_R = RejectReason

FILE_FAULTS: tuple[FileFault, ...] = (
    FileFault("nothing", _R.TRUNCATED, lambda good: b""),
    FileFault("text", _R.NOT_DICOM, lambda good: b"This is a note, no image.\n" * 20),
    FileFault("zeros", _R.NOT_DICOM, lambda good: bytes(len(good))),
    FileFault("preamble cut off, and a little more", _R.NOT_DICOM, lambda good: good[131:]),
    FileFault("DICOMDIR", _R.DICOMDIR, _as_dicomdir),
    FileFault("Windows program", _R.EXECUTABLE_PREAMBLE, _with_preamble(b"MZ\x90\0")),
    FileFault("Linux program", _R.EXECUTABLE_PREAMBLE, _with_preamble(b"\x7fELF\x02")),
    FileFault("macOS program", _R.EXECUTABLE_PREAMBLE, _with_preamble(b"\xcf\xfa\xed\xfe")),
    FileFault("script", _R.EXECUTABLE_PREAMBLE, _with_preamble(b"#!/bin/sh\n")),
    # Where a file can be cut.
    FileFault("preamble only", _R.TRUNCATED, lambda good: good[:132]),
    FileFault("cut in the file meta information", _R.TRUNCATED, _cut_in_meta),
    FileFault("cut in an element", _R.TRUNCATED, _cut_in_element),
    FileFault("cut before the pixels", _R.TRUNCATED, _cut_before_pixels),
    FileFault("cut in the pixels", _R.TRUNCATED, _without_last(5)),
    FileFault("cut in half", _R.TRUNCATED, _cut_to(0.8)),
    FileFault("element longer than the file", _R.TRUNCATED, _inserted(_ABSURD_LENGTH)),
    # What it is.
    FileFault("report", _R.NO_PIXELS, _as_report),
    FileFault(
        "secondary capture class",
        _R.SECONDARY_CAPTURE,
        _edited(SOPClassUID=uid.UID("1.2.840.10008.5.1.4.1.1.7")),
    ),
    FileFault(
        "multi-frame capture class",
        _R.SECONDARY_CAPTURE,
        _edited(SOPClassUID=uid.UID("1.2.840.10008.5.1.4.1.1.7.2")),
    ),
    FileFault("modality OT", _R.SECONDARY_CAPTURE, _edited(Modality="OT")),
    FileFault("modality CT", _R.NOT_MR, _edited(Modality="CT", SOPClassUID=uid.CTImageStorage)),
    FileFault("CT class, no modality", _R.NOT_MR, _edited(Modality=None, SOPClassUID=uid.CTImageStorage)),
    FileFault("three samples", _R.COLOUR, _edited(SamplesPerPixel=3, PhotometricInterpretation="RGB")),
    FileFault("palette", _R.COLOUR, _edited(PhotometricInterpretation="PALETTE COLOR")),
    # How its pixels are stored.
    FileFault("floating point", _R.BAD_PIXEL_FORMAT, _as_float),
    FileFault("32 bits", _R.BAD_PIXEL_FORMAT, _edited(BitsAllocated=32, BitsStored=32, HighBit=31)),
    FileFault("1 bit", _R.BAD_PIXEL_FORMAT, _edited(BitsAllocated=1, BitsStored=1, HighBit=0)),
    FileFault("more bits stored than allocated", _R.BAD_PIXEL_FORMAT, _edited(BitsStored=17, HighBit=16)),
    FileFault("left-aligned bits", _R.BAD_PIXEL_FORMAT, _edited(HighBit=15)),
    FileFault("neither signed nor unsigned", _R.BAD_PIXEL_FORMAT, _edited(PixelRepresentation=2)),
    FileFault("video", _R.UNSUPPORTED_SYNTAX, _with_syntax(uid.MPEG4HP41.encode())),
    FileFault("unheard-of syntax", _R.UNSUPPORTED_SYNTAX, _with_syntax(b"1.2.3")),
    FileFault(
        "a row more than pixels", _R.WRONG_PIXEL_COUNT, lambda good: _edited(Rows=_read(good).Rows + 1)(good)
    ),
    FileFault(
        "a row less than pixels", _R.WRONG_PIXEL_COUNT, lambda good: _edited(Rows=_read(good).Rows - 1)(good)
    ),
    FileFault("pixels of one more row", _R.WRONG_PIXEL_COUNT, _longer_pixels),
    FileFault("65,535 x 65,535", _R.TOO_LARGE, _edited(Rows=65535, Columns=65535)),
    FileFault("65,535 x 65,535 compressed", _R.TOO_LARGE, _coded(uid.RLELossless, Rows=65535, Columns=65535)),
    FileFault(
        "8,000 x 8,000 in few RLE bytes",
        _R.WRONG_PIXEL_COUNT,
        _coded(uid.RLELossless, Rows=8000, Columns=8000),
    ),
    FileFault(
        "deflate bomb",
        _R.DEFLATE_BOMB,
        _deflated(lambda dataset: dataset + bytes(65 << 20), lambda data: data),
    ),
    FileFault("deflated, cut", _R.TRUNCATED, _deflated(lambda dataset: dataset, _cut_to(0.5))),
    FileFault(
        "deflated, damaged",
        _R.UNDECODABLE,
        _deflated(lambda dataset: dataset, lambda data: b"\xff" * 32 + data),
    ),
    # Where it lies.
    FileFault("spacing not a number", _R.BAD_SPACING, _patched("PixelSpacing", b"nan\\0.5 ")),
    FileFault("spacing zero", _R.BAD_SPACING, _edited(PixelSpacing=[0.0, 0.5])),
    FileFault("spacing negative", _R.BAD_SPACING, _edited(PixelSpacing=[0.5, -0.5])),
    FileFault("spacing infinite", _R.BAD_SPACING, _patched("PixelSpacing", b"inf\\inf ")),
    FileFault("spacing of a kilometre", _R.BAD_SPACING, _edited(PixelSpacing=[1e6, 1e6])),
    FileFault("one spacing", _R.BAD_SPACING, _edited(PixelSpacing=0.5)),
    FileFault("no spacing", _R.BAD_SPACING, _edited(PixelSpacing=None)),
    FileFault("empty spacing", _R.BAD_SPACING, _patched("PixelSpacing", b"")),
    FileFault("no position", _R.BAD_POSITION, _edited(ImagePositionPatient=None)),
    FileFault("position not a number", _R.BAD_POSITION, _patched("ImagePositionPatient", b"1\\nan\\3 ")),
    FileFault("position of two", _R.BAD_POSITION, _edited(ImagePositionPatient=[1.0, 2.0])),
    FileFault("position beyond the town", _R.BAD_POSITION, _edited(ImagePositionPatient=[1.0, 2.0, 1e7])),
    FileFault("no orientation", _R.BAD_ORIENTATION, _edited(ImageOrientationPatient=None)),
    FileFault("orientation of zeros", _R.BAD_ORIENTATION, _edited(ImageOrientationPatient=[0.0] * 6)),
    FileFault(
        "skewed orientation", _R.BAD_ORIENTATION, _edited(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866025, 0])
    ),
    FileFault("orientation of five", _R.BAD_ORIENTATION, _edited(ImageOrientationPatient=[1, 0, 0, 0, 1])),
    # What its values mean.
    FileFault("slope zero", _R.BAD_RESCALE, _edited(RescaleSlope=0, RescaleIntercept=0)),
    FileFault(
        "slope not a number",
        _R.BAD_RESCALE,
        _chain(_edited(RescaleSlope=1), _patched("RescaleSlope", b"NaN ")),
    ),
    FileFault(
        "intercept infinite",
        _R.BAD_RESCALE,
        _chain(_edited(RescaleIntercept=1), _patched("RescaleIntercept", b"-inf")),
    ),
    FileFault("slope beyond float32", _R.BAD_RESCALE, _edited(RescaleSlope="1e38")),
    FileFault("table for a rescale", _R.BAD_RESCALE, _table_for_rescale),
    FileFault("path in the study's UID", _R.BAD_UID, _patched("StudyInstanceUID", b"../../etc/x ")),
    FileFault("path in the series' UID", _R.BAD_UID, _patched("SeriesInstanceUID", b"C:/x")),
    FileFault("dots in the instance's UID", _R.BAD_UID, _patched("SOPInstanceUID", b"1..2")),
    FileFault("two UIDs", _R.BAD_UID, _patched("SeriesInstanceUID", b"1.2\\1.3 ")),
    FileFault("UID of 66", _R.BAD_UID, _patched("SeriesInstanceUID", b"1." * 33)),
    # Damaged headers.
    FileFault("no rows", _R.DAMAGED_HEADER, _edited(Rows=None)),
    FileFault("zero rows", _R.DAMAGED_HEADER, _edited(Rows=0)),
    FileFault("rows as text", _R.DAMAGED_HEADER, _patched("Rows", b"many", b"LO")),
    FileFault("two rows", _R.DAMAGED_HEADER, _patched("Rows", b"\x0c\0\x0c\0")),
    FileFault("a byte for rows", _R.DAMAGED_HEADER, _patched("Rows", b"\x0c")),
    FileFault(
        "photometric interpretation absent", _R.DAMAGED_HEADER, _edited(PhotometricInterpretation=None)
    ),
    FileFault("sign absent", _R.DAMAGED_HEADER, _edited(PixelRepresentation=None)),
    FileFault("number of instance as text", _R.DAMAGED_HEADER, _patched("InstanceNumber", b"seven ")),
    FileFault(
        "number of instance beyond bounds", _R.DAMAGED_HEADER, _patched("InstanceNumber", b"99999999999 ")
    ),
    FileFault("value without end", _R.DAMAGED_HEADER, _inserted(_ENDLESS_VALUE)),
    FileFault("sequences 5,000 deep", _R.DAMAGED_HEADER, _inserted(_NESTED_ITEM * 5000)),
    FileFault("110,000 items", _R.DAMAGED_HEADER, _inserted(_EMPTY_ITEMS)),
    FileFault("28,672 elements", _R.DAMAGED_HEADER, _inserted(_EMPTY_ELEMENTS)),
    FileFault("encapsulated in a native syntax", _R.DAMAGED_HEADER, _encapsulated_but_native),
    FileFault("native in an encapsulated syntax", _R.DAMAGED_HEADER, _with_syntax(uid.RLELossless.encode())),
    # Fragments and frames.
    FileFault("no sequence delimiter", _R.TRUNCATED, _without_delimiter),
    FileFault("fragment of a gigabyte", _R.TRUNCATED, _long_fragment),
    FileFault("no fragments", _R.WRONG_PIXEL_COUNT, _fragments_of_nothing),
    FileFault("no items", _R.UNDECODABLE, _garbage_for_fragments),
    FileFault("frames without groups", _R.BAD_FRAMES, _enhanced(0)),
    FileFault("fewer groups than frames", _R.BAD_FRAMES, _enhanced(2)),
    FileFault("frames without positions", _R.BAD_FRAMES, _enhanced(3)),
    FileFault("zero frames", _R.BAD_FRAMES, _edited(NumberOfFrames=0)),
    FileFault("two thousand million frames", _R.BAD_FRAMES, _edited(NumberOfFrames=2_000_000_000)),
    # Code streams.
    FileFault("RLE, cut", _R.UNDECODABLE, _coded(uid.RLELossless, _cut_to(0.9))),
    FileFault("RLE, header cut", _R.TRUNCATED, _coded(uid.RLELossless, lambda stream: stream[:40])),
    FileFault("RLE, three segments", _R.UNDECODABLE, _coded(uid.RLELossless, _rle_with_count(3))),
    FileFault("RLE, segment past the end", _R.TRUNCATED, _coded(uid.RLELossless, _rle_past_end)),
    FileFault("RLE, a row less", _R.UNDECODABLE, _of_another_size(uid.RLELossless)),
    FileFault("RLE, a row more", _R.UNDECODABLE, _of_another_size(uid.RLELossless, more=1)),
    FileFault("JPEG, cut", _R.TRUNCATED, _coded(uid.JPEGLosslessSV1, _cut_to(0.7))),
    FileFault("JPEG, ended early", _R.TRUNCATED, _coded(uid.JPEGLosslessSV1, _jpeg_ended_early)),
    FileFault("JPEG Extended, ended early", _R.TRUNCATED, _coded(uid.JPEGExtended12Bit, _jpeg_ended_early)),
    FileFault("JPEG, another size", _R.UNDECODABLE, _of_another_size(uid.JPEGLosslessSV1)),
    FileFault("JPEG, colour", _R.UNDECODABLE, _colour_jpeg),
    FileFault("JPEG, no JPEG", _R.UNDECODABLE, _coded(uid.JPEGLosslessSV1, lambda stream: b"GIF89a" * 40)),
    FileFault(
        "JPEG, tables lost",
        _R.UNDECODABLE,
        _coded(uid.JPEGLosslessSV1, lambda stream: stream.replace(b"\xff\xc4", b"\xff\xfe")),
    ),
    FileFault("JPEG-LS, cut", _R.TRUNCATED, _coded(uid.JPEGLSLossless, _cut_to(0.7))),
    FileFault("JPEG-LS, damaged", _R.UNDECODABLE, _coded(uid.JPEGLSLossless, _jpeg_ended_early)),
    FileFault("JPEG-LS, another size", _R.UNDECODABLE, _of_another_size(uid.JPEGLSLossless)),
    FileFault("JPEG 2000, cut", _R.UNDECODABLE, _coded(uid.JPEG2000Lossless, _cut_to(0.7))),
    FileFault("JPEG 2000, another size", _R.UNDECODABLE, _of_another_size(uid.JPEG2000Lossless)),
    FileFault("JPEG 2000, 65,536 x 65,536", _R.UNDECODABLE, _coded(uid.JPEG2000Lossless, _j2k_of_many_tiles)),
    FileFault("HTJ2K, cut", _R.UNDECODABLE, _coded(uid.HTJ2KLossless, _cut_to(0.7))),
    FileFault(
        "JPEG-LS for RLE",
        _R.UNDECODABLE,
        _chain(_coded(uid.JPEGLSLossless), _with_syntax(uid.RLELossless.encode())),
    ),
)
