"""Header of a DICOM file, and the position of its pixel data.

pydicom reads the elements; this module limits its input. pydicom inflates without a limit, accepts a value
that is truncated by the end of the file, and discards every element if encapsulated pixel data have no
delimiter. The preamble, the deflated stream and the pixel data are therefore handled here, and pydicom stops
at the pixel data.

Only the structure is checked here; `frames.open_image` checks the values.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pydicom import filereader, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag

from lumbar_tf.dicom.files.values import read_value
from lumbar_tf.dicom.reasons import RejectedError, RejectReason


@contextmanager
def suppress_pydicom_warnings() -> Iterator[None]:
    """Suppresses pydicom's warnings and log messages inside a `with` block.

    Both quote header values, and a value can identify a patient. Faults of a file are reported by reason
    codes instead. Entering the block takes longer than reading a file: use it once per study, not once per
    file.
    """
    logger = logging.getLogger("pydicom")
    was_disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = was_disabled


#: Far above any MR file, including multi-frame series.
MAX_FILE_BYTES = 1 << 30
#: Limit of the elements before the pixel data: 400 frames of Siemens XA, the most verbose, need as much.
#: pydicom takes up to 5 us per element of 8 bytes and 25 us per sequence item, so these limits bound it to 4
#: s and 300 MB for any input.
MAX_HEADER_BYTES = 6 << 20
MAX_ITEMS = 50_000
MAX_ELEMENTS = 20_000
#: A file of at most this size cannot contain too many items.
_SMALL_FILE_BYTES = 8 * MAX_ITEMS
#: Limits of an inflated dataset. MR images deflate by a factor of 2 to 10; an entirely black image may
#: deflate by 1,000 (the limit of DEFLATE is 1,032), but is small.
MAX_INFLATED_BYTES = 512 << 20
MAX_INFLATE_RATIO = 100
SMALL_INFLATED_BYTES = 64 << 20

PREAMBLE_BYTES = 128
DICM_PREFIX = b"DICM"
#: Files that are both DICOM and a program (CVE-2019-11687): PE, ELF, the five forms of Mach-O, scripts.
_EXECUTABLE_MAGICS = (
    b"MZ",
    b"\x7fELF",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
    b"#!",
)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_META_GROUP, _FIRST_GROUP, _PIXEL_GROUP = 0x0002, 0x0008, 0x7FE0
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_BIG_ENDIAN_START = b"\x00\x08"
#: First element of float, double float and integer pixel data; the offset tables before it are header.
_FIRST_PIXEL_ELEMENT = 0x0008


@dataclass(frozen=True)
class PixelElement:
    """Position of the pixel data in `ParsedFile.body`.

    Attributes:
        element: 0x0010 for integers; 0x0008 and 0x0009 for floating point.
        vr: OB, OW, ...; None in files with implicit VR.
        start: offset of the value.
        length: number of bytes; None if undefined, as in encapsulated data.
    """

    element: int
    vr: str | None
    start: int
    length: int | None


@dataclass(frozen=True, eq=False)
class ParsedFile:
    """A DICOM file whose header has been read.

    Attributes:
        dataset: elements before the pixel data, without `file_meta`.
        meta: file meta information, empty if there is none.
        syntax: the transfer syntax UID.
        body: bytes that contain the pixel data: the whole file, or its inflated dataset.
        pixels: position of the pixel data in `body`; None if there are none.
        contradictory_tags: tags of elements that are in the header twice, with different values; `dataset`
            has the last value.
    """

    dataset: Dataset
    meta: Dataset
    syntax: str
    body: bytes
    pixels: PixelElement | None
    contradictory_tags: frozenset[int] = frozenset()

    def with_meta(self) -> Dataset:
        """Returns the dataset with its `file_meta`, as `pydicom.dcmread` does."""
        self.dataset.file_meta = FileMetaDataset(self.meta)
        return self.dataset


def read_dataset_header(data: bytes) -> Dataset:
    """Reads the header of a file.

    Args:
        data: the whole file, with or without preamble, with or without file meta information.

    Returns:
        The elements before the pixel data, with `file_meta`. pydicom parses values on access, and a damaged
        value may raise any exception then: see `values.find_value`.

    Raises:
        RejectedError: NOT_DICOM, EXECUTABLE_PREAMBLE, TRUNCATED, TOO_LARGE, DEFLATE_BOMB or DAMAGED_HEADER.
    """
    return parse_file(data).with_meta()


def parse_file(data: bytes) -> ParsedFile:
    """Reads the header of a file and finds its pixel data.

    Raises:
        RejectedError: as `read_dataset_header`.
    """
    if len(data) > MAX_FILE_BYTES:
        raise RejectedError(
            RejectReason.TOO_LARGE, f"a file must have at most {MAX_FILE_BYTES} bytes. Received: {len(data)}"
        )
    start = _dataset_start(data)
    try:
        return _parse(data, start)
    except RejectedError:
        raise
    except (OSError, struct.error):  # pydicom reads an item or a length beyond the end
        raise RejectedError(RejectReason.TRUNCATED, "the header ends in the middle of an element") from None
    except Exception as error:  # pydicom raises many kinds of errors, including RecursionError
        raise RejectedError(RejectReason.DAMAGED_HEADER, f"damaged header ({type(error).__name__})") from None


def _dataset_start(data: bytes) -> int:
    """Returns the offset of the first element: after the preamble, or 0 if there is none."""
    if not data:
        raise RejectedError(RejectReason.TRUNCATED, "the file is empty")
    if data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(DICM_PREFIX)] == DICM_PREFIX:
        if data.startswith(_EXECUTABLE_MAGICS):
            message = "the preamble begins with the signature of an executable program"
            raise RejectedError(RejectReason.EXECUTABLE_PREAMBLE, message)
        return PREAMBLE_BYTES + len(DICM_PREFIX)
    # Without the prefix, a file is accepted as DICOM if it begins like a file meta group or a dataset: with
    # an element of group 0002 or 0008, of a low number because elements are in ascending order, inside the
    # file.
    order: Literal["little", "big"] = "big" if data.startswith(_BIG_ENDIAN_START) else "little"
    group, element = int.from_bytes(data[:2], order), int.from_bytes(data[2:4], order)
    length = int.from_bytes(data[6:8] if _has_vr(data) else data[4:8], order)
    if group not in (_META_GROUP, _FIRST_GROUP) or element > 0x0100 or length > len(data):
        raise RejectedError(RejectReason.NOT_DICOM, "not a DICOM file")
    return 0


def _has_vr(element: bytes) -> bool:
    return element[4:6].isalpha() and element[4:6].isupper()


def guess_syntax(first: bytes) -> str:
    """Infers the transfer syntax of a dataset without one from its first six bytes."""
    if not _has_vr(first):
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if first.startswith(_BIG_ENDIAN_START) else uid.ExplicitVRLittleEndian


class _ElementCheck:
    """Checks each top-level element before pydicom reads it, and stops pydicom at the end of the header."""

    def __init__(self, stream: io.BytesIO, size: int, *, is_meta: bool) -> None:
        self._stream = stream
        self._size = size
        self._is_meta = is_meta
        self._count = 0
        self._places: dict[int, tuple[int, int]] = {}
        self.contradictory_tags: set[int] = set()
        self.end: int | None = stream.tell()
        self.pixels: PixelElement | None = None

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        group = tag >> 16
        start = self._stream.tell()
        if self._is_meta:
            if group != _META_GROUP:
                return True
        elif group == _PIXEL_GROUP and tag & 0xFFFF >= _FIRST_PIXEL_ELEMENT:
            is_defined = length != _UNDEFINED_LENGTH
            self.pixels = PixelElement(tag & 0xFFFF, vr, start, length if is_defined else None)
            return True
        self._count += 1
        if self._count > MAX_ELEMENTS:
            message = f"the header must have at most {MAX_ELEMENTS} elements"
            raise RejectedError(RejectReason.DAMAGED_HEADER, message)
        self.end = None if length == _UNDEFINED_LENGTH else start + length
        if self.end is not None and self.end > self._size:
            message = f"element {group:04X},{tag & 0xFFFF:04X} of {length} bytes ends beyond the file's end"
            raise RejectedError(RejectReason.TRUNCATED, message)
        if tag in self._places:
            self._compare(tag, start, length)
        self._places.setdefault(tag, (start, length))
        return False

    def _compare(self, tag: int, start: int, length: int) -> None:
        """Notes an element that differs from an earlier one of the same tag."""
        first, first_length = self._places[tag]
        view = self._stream.getbuffer()
        is_equal = (
            length == first_length != _UNDEFINED_LENGTH
            and view[first : first + length] == view[start : start + length]
        )
        view.release()
        if not is_equal:
            self.contradictory_tags.add(tag)


def _parse(data: bytes, start: int) -> ParsedFile:
    stream = io.BytesIO(data)
    stream.seek(start)
    meta = Dataset()
    if data[start : start + 2] == b"\x02\x00":
        check = _ElementCheck(stream, len(data), is_meta=True)
        meta = filereader.read_dataset(stream, False, True, stop_when=check)
    start = stream.tell()
    if start >= len(data):
        raise RejectedError(RejectReason.TRUNCATED, "the file ends before its dataset")
    syntax = str(read_value(meta, "TransferSyntaxUID") or guess_syntax(data[start : start + 6]))
    body = data
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        body, start = _inflate(data[start:]), 0
    head = body if len(body) <= MAX_HEADER_BYTES else body[:MAX_HEADER_BYTES]
    if has_too_many_items(head):
        message = f"the header must have at most {MAX_ITEMS} sequence items"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    return _parse_dataset(head, start, meta, syntax, body)


def has_too_many_items(data: bytes) -> bool:
    """Returns whether bytes may contain more sequence items than pydicom reads in a few seconds."""
    return len(data) > _SMALL_FILE_BYTES and max(map(data.count, _ITEM_TAGS)) > MAX_ITEMS


def _parse_dataset(head: bytes, start: int, meta: Dataset, syntax: str, body: bytes) -> ParsedFile:
    """Reads the elements in `head`, the part of `body` within the limit of a header."""
    is_implicit, is_little_endian = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    stream = io.BytesIO(head)
    stream.seek(start)
    check = _ElementCheck(stream, len(body), is_meta=False)
    dataset = filereader.read_dataset(stream, is_implicit, is_little_endian, stop_when=check)
    if check.pixels is None:
        _check_end(stream.tell(), check.end, len(head), len(body))
    return ParsedFile(dataset, meta, syntax, body, check.pixels, frozenset(check.contradictory_tags))


def _check_end(position: int, end: int | None, head_size: int, size: int) -> None:
    """Rejects a dataset without pixel data that does not end at the end of its file."""
    if head_size < size:
        message = f"the header must take at most {MAX_HEADER_BYTES} bytes"
        raise RejectedError(RejectReason.TOO_LARGE, message)
    if position < size:
        # Either an item delimiter outside any sequence, or a value of undefined length without a delimiter,
        # for which pydicom seeks back and discards the elements read so far.
        raise RejectedError(RejectReason.DAMAGED_HEADER, "the header ends in the middle of the file")
    if end is not None and end != size:
        raise RejectedError(RejectReason.TRUNCATED, "the file ends in the middle of an element")


def _inflate(deflated: bytes) -> bytes:
    """Inflates a dataset (PS3.5 section A.5) up to the limit for MR files."""
    limit = min(MAX_INFLATED_BYTES, max(SMALL_INFLATED_BYTES, MAX_INFLATE_RATIO * len(deflated)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, limit)
    except zlib.error:
        raise RejectedError(RejectReason.UNDECODABLE, "the deflated dataset is damaged") from None
    if inflater.unconsumed_tail:
        message = f"{len(deflated)} deflated bytes inflate to more than {limit}"
        raise RejectedError(RejectReason.DEFLATE_BOMB, message)
    if not inflater.eof:
        raise RejectedError(RejectReason.TRUNCATED, "the deflated dataset ends early")
    return inflated
