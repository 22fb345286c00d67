"""Files with faulty headers and truncated files, which are rejected without reading a code stream."""

import struct
import zlib

from pydicom import uid
from pydicom.dataset import Dataset

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.file_damage import (
    FileFault,
    Spoil,
    chain,
    cut_to,
    edited,
    find_pixel_data,
    patched,
    read_dataset,
    with_syntax,
    write_dataset,
)


def _inserted(element: bytes) -> Spoil:
    """Returns a function that inserts bytes before the pixel data."""

    def spoil(good: bytes) -> bytes:
        start = find_pixel_data(good)
        return good[:start] + element + good[start:]

    return spoil


def _without_last(count: int) -> Spoil:
    return lambda data: data[:-count]


def _with_preamble(start: bytes) -> Spoil:
    return lambda good: start.ljust(128, b"\0") + good[128:]


def _cut_in_meta(good: bytes) -> bytes:
    return good[:150]


def _cut_in_element(good: bytes) -> bytes:
    start = good.index(struct.pack("<HH", 0x0020, 0x0032), 132)  # ImagePositionPatient
    return good[: start + 12]


def _cut_before_pixels(good: bytes) -> bytes:
    return good[: find_pixel_data(good)]


def _deflated(spoil_dataset: Spoil, spoil_deflated: Spoil) -> Spoil:
    """Returns a function that deflates a file, and damages it before and after."""

    def spoil(good: bytes) -> bytes:
        good = with_syntax(uid.DeflatedExplicitVRLittleEndian.encode())(good)
        (length,) = struct.unpack_from("<I", good, 140)
        start = 144 + length
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        deflated = deflater.compress(spoil_dataset(good[start:])) + deflater.flush()
        return good[:start] + spoil_deflated(deflated)

    return spoil


def _as_dicomdir(good: bytes) -> bytes:
    directory = Dataset()
    directory.file_meta = read_dataset(good).file_meta
    directory.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    directory.FileSetID = "EXPORT"
    directory.DirectoryRecordSequence = [Dataset()]
    return write_dataset(directory)


def _as_report(good: bytes) -> bytes:
    dataset = read_dataset(good)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        delattr(dataset, keyword)
    dataset.Modality, dataset.SOPClassUID = "SR", uid.ComprehensiveSRStorage
    return write_dataset(dataset)


def _table_for_rescale(good: bytes) -> bytes:
    dataset = read_dataset(good)
    dataset.ModalityLUTSequence = [Dataset()]
    return write_dataset(dataset)


def _enhanced(num_groups: int) -> Spoil:
    """Returns a function that makes three frames with `count` functional groups without positions."""

    def spoil(good: bytes) -> bytes:
        dataset = read_dataset(good)
        dataset.NumberOfFrames = 3
        dataset.PixelData = dataset.PixelData * 3
        dataset.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(num_groups)]
        return write_dataset(dataset)

    return spoil


_NESTED_ITEM = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_ENDLESS_VALUE = b"\x29\x00\x10\x10OB\0\0\xff\xff\xff\xff" + bytes(64)
_ABSURD_LENGTH = b"\x29\x00\x10\x10OB\0\0\xf0\xff\xff\xff" + bytes(64)
_EMPTY_ITEMS = _NESTED_ITEM[:12] + b"\xfe\xff\x00\xe0\0\0\0\0" * 110_000
_EMPTY_ELEMENTS = b"".join(struct.pack("<HH2sH", 0x0029, index, b"LO", 0) for index in range(0x1000, 0x8000))

HEADER_FAULTS: tuple[FileFault, ...] = (
    # Files other than images.
    FileFault("nothing", RejectReason.TRUNCATED, lambda good: b""),
    FileFault("text", RejectReason.NOT_DICOM, lambda good: b"This is a note, no image.\n" * 20),
    FileFault("zeros", RejectReason.NOT_DICOM, lambda good: bytes(len(good))),
    FileFault("preamble cut off, and a little more", RejectReason.NOT_DICOM, lambda good: good[131:]),
    FileFault("DICOMDIR", RejectReason.DICOMDIR, _as_dicomdir),
    FileFault("Windows program", RejectReason.EXECUTABLE_PREAMBLE, _with_preamble(b"MZ\x90\0")),
    FileFault("Linux program", RejectReason.EXECUTABLE_PREAMBLE, _with_preamble(b"\x7fELF\x02")),
    FileFault("macOS program", RejectReason.EXECUTABLE_PREAMBLE, _with_preamble(b"\xcf\xfa\xed\xfe")),
    FileFault("script", RejectReason.EXECUTABLE_PREAMBLE, _with_preamble(b"#!/bin/sh\n")),
    # Truncated and deflated files.
    FileFault("preamble only", RejectReason.TRUNCATED, lambda good: good[:132]),
    FileFault("cut in the file meta information", RejectReason.TRUNCATED, _cut_in_meta),
    FileFault("cut in an element", RejectReason.TRUNCATED, _cut_in_element),
    FileFault("cut before the pixels", RejectReason.TRUNCATED, _cut_before_pixels),
    FileFault("cut in the pixels", RejectReason.TRUNCATED, _without_last(5)),
    FileFault("cut in half", RejectReason.TRUNCATED, cut_to(0.8)),
    FileFault("element longer than the file", RejectReason.TRUNCATED, _inserted(_ABSURD_LENGTH)),
    FileFault(
        "deflate bomb",
        RejectReason.DEFLATE_BOMB,
        _deflated(lambda dataset: dataset + bytes(65 << 20), lambda data: data),
    ),
    FileFault("deflated, cut", RejectReason.TRUNCATED, _deflated(lambda dataset: dataset, cut_to(0.5))),
    FileFault(
        "deflated, damaged",
        RejectReason.UNDECODABLE,
        _deflated(lambda dataset: dataset, lambda data: b"\xff" * 32 + data),
    ),
    # Identity.
    FileFault("report", RejectReason.NO_PIXELS, _as_report),
    FileFault(
        "secondary capture class",
        RejectReason.SECONDARY_CAPTURE,
        edited(SOPClassUID=uid.UID("1.2.840.10008.5.1.4.1.1.7")),
    ),
    FileFault(
        "multi-frame capture class",
        RejectReason.SECONDARY_CAPTURE,
        edited(SOPClassUID=uid.UID("1.2.840.10008.5.1.4.1.1.7.2")),
    ),
    FileFault("modality OT", RejectReason.SECONDARY_CAPTURE, edited(Modality="OT")),
    FileFault("modality CT", RejectReason.NOT_MR, edited(Modality="CT", SOPClassUID=uid.CTImageStorage)),
    FileFault(
        "CT class, no modality", RejectReason.NOT_MR, edited(Modality=None, SOPClassUID=uid.CTImageStorage)
    ),
    FileFault(
        "three samples", RejectReason.COLOUR, edited(SamplesPerPixel=3, PhotometricInterpretation="RGB")
    ),
    FileFault("palette", RejectReason.COLOUR, edited(PhotometricInterpretation="PALETTE COLOR")),
    # Geometry.
    FileFault("spacing not a number", RejectReason.BAD_SPACING, patched("PixelSpacing", b"nan\\0.5 ")),
    FileFault("spacing zero", RejectReason.BAD_SPACING, edited(PixelSpacing=[0.0, 0.5])),
    FileFault("spacing negative", RejectReason.BAD_SPACING, edited(PixelSpacing=[0.5, -0.5])),
    FileFault("spacing infinite", RejectReason.BAD_SPACING, patched("PixelSpacing", b"inf\\inf ")),
    FileFault("spacing of a kilometre", RejectReason.BAD_SPACING, edited(PixelSpacing=[1e6, 1e6])),
    FileFault("one spacing", RejectReason.BAD_SPACING, edited(PixelSpacing=0.5)),
    FileFault("no spacing", RejectReason.BAD_SPACING, edited(PixelSpacing=None)),
    FileFault("empty spacing", RejectReason.BAD_SPACING, patched("PixelSpacing", b"")),
    FileFault("no position", RejectReason.BAD_POSITION, edited(ImagePositionPatient=None)),
    FileFault(
        "position not a number", RejectReason.BAD_POSITION, patched("ImagePositionPatient", b"1\\nan\\3 ")
    ),
    FileFault("position of two", RejectReason.BAD_POSITION, edited(ImagePositionPatient=[1.0, 2.0])),
    FileFault(
        "position beyond the town", RejectReason.BAD_POSITION, edited(ImagePositionPatient=[1.0, 2.0, 1e7])
    ),
    FileFault("no orientation", RejectReason.BAD_ORIENTATION, edited(ImageOrientationPatient=None)),
    FileFault(
        "orientation of zeros", RejectReason.BAD_ORIENTATION, edited(ImageOrientationPatient=[0.0] * 6)
    ),
    FileFault(
        "skewed orientation",
        RejectReason.BAD_ORIENTATION,
        edited(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866025, 0]),
    ),
    FileFault(
        "orientation of five", RejectReason.BAD_ORIENTATION, edited(ImageOrientationPatient=[1, 0, 0, 0, 1])
    ),
    # Rescale.
    FileFault("slope zero", RejectReason.BAD_RESCALE, edited(RescaleSlope=0, RescaleIntercept=0)),
    FileFault(
        "slope not a number",
        RejectReason.BAD_RESCALE,
        chain(edited(RescaleSlope=1), patched("RescaleSlope", b"NaN ")),
    ),
    FileFault(
        "intercept infinite",
        RejectReason.BAD_RESCALE,
        chain(edited(RescaleIntercept=1), patched("RescaleIntercept", b"-inf")),
    ),
    FileFault("slope beyond float32", RejectReason.BAD_RESCALE, edited(RescaleSlope="1e38")),
    FileFault("table for a rescale", RejectReason.BAD_RESCALE, _table_for_rescale),
    FileFault("path in the study's UID", RejectReason.BAD_UID, patched("StudyInstanceUID", b"../../etc/x ")),
    FileFault("path in the series' UID", RejectReason.BAD_UID, patched("SeriesInstanceUID", b"C:/x")),
    FileFault("dots in the instance's UID", RejectReason.BAD_UID, patched("SOPInstanceUID", b"1..2")),
    FileFault("two UIDs", RejectReason.BAD_UID, patched("SeriesInstanceUID", b"1.2\\1.3 ")),
    FileFault("UID of 66", RejectReason.BAD_UID, patched("SeriesInstanceUID", b"1." * 33)),
    # Damaged headers.
    FileFault("no rows", RejectReason.DAMAGED_HEADER, edited(Rows=None)),
    FileFault("zero rows", RejectReason.DAMAGED_HEADER, edited(Rows=0)),
    FileFault("rows as text", RejectReason.DAMAGED_HEADER, patched("Rows", b"many", b"LO")),
    FileFault("two rows", RejectReason.DAMAGED_HEADER, patched("Rows", b"\x0c\0\x0c\0")),
    FileFault("a byte for rows", RejectReason.DAMAGED_HEADER, patched("Rows", b"\x0c")),
    FileFault(
        "photometric interpretation absent",
        RejectReason.DAMAGED_HEADER,
        edited(PhotometricInterpretation=None),
    ),
    FileFault("sign absent", RejectReason.DAMAGED_HEADER, edited(PixelRepresentation=None)),
    FileFault(
        "number of instance as text", RejectReason.DAMAGED_HEADER, patched("InstanceNumber", b"seven ")
    ),
    FileFault(
        "number of instance beyond bounds",
        RejectReason.DAMAGED_HEADER,
        patched("InstanceNumber", b"99999999999 "),
    ),
    FileFault("value without end", RejectReason.DAMAGED_HEADER, _inserted(_ENDLESS_VALUE)),
    FileFault("sequences 5,000 deep", RejectReason.DAMAGED_HEADER, _inserted(_NESTED_ITEM * 5000)),
    FileFault("110,000 items", RejectReason.DAMAGED_HEADER, _inserted(_EMPTY_ITEMS)),
    FileFault("28,672 elements", RejectReason.DAMAGED_HEADER, _inserted(_EMPTY_ELEMENTS)),
    # Frames.
    FileFault("frames without groups", RejectReason.BAD_FRAMES, _enhanced(0)),
    FileFault("fewer groups than frames", RejectReason.BAD_FRAMES, _enhanced(2)),
    FileFault("frames without positions", RejectReason.BAD_FRAMES, _enhanced(3)),
    FileFault("zero frames", RejectReason.BAD_FRAMES, edited(NumberOfFrames=0)),
    FileFault("two thousand million frames", RejectReason.BAD_FRAMES, edited(NumberOfFrames=2_000_000_000)),
)
