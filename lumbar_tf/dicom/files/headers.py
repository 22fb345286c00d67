"""Headers."""

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
    """Drops what pydicom warns of and logs for as long as the block runs.

    Both quote header values, and a value can identify a patient. What is wrong with a file is told by
    reason codes. Entering costs more than reading a file: wrap a study, not a file.
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


#: No MR file comes near this, multi-frame series included.
MAX_FILE_BYTES = 1 << 30
#: All that lies before the pixel data: 400 frames of Siemens XA, the most talkative, take as much. pydicom
#: needs up to 5 us for an element of 8 bytes and 25 us for a sequence's item: these bounds hold it to 4 s
#: and 300 MB, whatever a file was made for.
MAX_HEADER_BYTES = 6 << 20
MAX_ITEMS = 50_000
MAX_ELEMENTS = 20_000
#: A file of this size cannot hold too many items.
_SMALL_FILE_BYTES = 8 * MAX_ITEMS
#: What a deflated dataset may inflate to: MR shrinks 2 to 10 times. An image that is black all over may do
#: so 1,000 times (DEFLATE's own limit is 1,032), but is small.
MAX_INFLATED_BYTES = 512 << 20
MAX_INFLATE_RATIO = 100
SMALL_INFLATED_BYTES = 64 << 20

PREAMBLE_BYTES = 128
DICM_PREFIX = b"DICM"
#: A file that is DICOM and a program at once (CVE-2019-11687): PE, ELF, Mach-O in its five spellings, script.
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
#: Float, double float and integer pixel data; the offset tables before them belong to the header.
_FIRST_PIXEL_ELEMENT = 0x0008


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data lie in `ParsedFile.body`.

    Attributes:
        element: 0x0010 for integers; 0x0008 and 0x0009 for floating point.
        vr: OB, OW, ...; None where the file does not say (implicit VR).
        start: offset of the value.
        length: bytes; None where it is undefined, as in encapsulated data.
    """

    element: int
    vr: str | None
    start: int
    length: int | None


@dataclass(frozen=True, eq=False)
class ParsedFile:
    """A DICOM file of which the header has been read.

    Attributes:
        dataset: everything before the pixel data, without `file_meta`.
        meta: the file meta information, empty where there is none.
        syntax: the transfer syntax UID.
        body: the bytes that hold the pixel data: the whole file, or what its dataset inflated to.
        pixels: where the pixel data lie in `body`; None where there are none.
    """

    dataset: Dataset
    meta: Dataset
    syntax: str
    body: bytes
    pixels: PixelElement | None

    def with_meta(self) -> Dataset:
        """Returns the dataset with its `file_meta`, as pydicom itself reads a file."""
        self.dataset.file_meta = FileMetaDataset(self.meta)
        return self.dataset


def read_dataset_header(data: bytes) -> Dataset:
    """Reads a file's header.

    Args:
        data: the whole file: with or without preamble, with or without file meta information.

    Returns:
        Every element before the pixel data, with `file_meta`. Values are parsed when they are asked for,
        and may raise anything then: see `frames.find_value`.

    Raises:
        RejectedError: NOT_DICOM, EXECUTABLE_PREAMBLE, TRUNCATED, TOO_LARGE, DEFLATE_BOMB or DAMAGED_HEADER.
    """
    return parse_file(data).with_meta()


def parse_file(data: bytes) -> ParsedFile:
    """Reads a file's header and finds its pixel data; see `read_dataset_header` for what is refused."""
    if len(data) > MAX_FILE_BYTES:
        raise RejectedError(
            RejectReason.TOO_LARGE, f"the file holds {len(data)} bytes, over {MAX_FILE_BYTES}"
        )
    start = _dataset_start(data)
    try:
        return _parse(data, start)
    except RejectedError:
        raise
    except (OSError, struct.error):  # pydicom asks for an item or a length beyond the end
        raise RejectedError(RejectReason.TRUNCATED, "the header ends in the middle of an element") from None
    except Exception as error:  # pydicom raises many kinds on damaged headers, RecursionError among them
        raise RejectedError(RejectReason.DAMAGED_HEADER, f"damaged header ({type(error).__name__})") from None


def _dataset_start(data: bytes) -> int:
    """Returns where the first element is: after the preamble, or at 0 where there is none."""
    if not data:
        raise RejectedError(RejectReason.TRUNCATED, "the file is empty")
    if data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(DICM_PREFIX)] == DICM_PREFIX:
        if data.startswith(_EXECUTABLE_MAGICS):
            message = "the preamble is the beginning of a program"
            raise RejectedError(RejectReason.EXECUTABLE_PREAMBLE, message)
        return PREAMBLE_BYTES + len(DICM_PREFIX)
    # Without the prefix a file is taken for DICOM where it begins as a file meta group or a dataset does:
    # an element of group 0002 or 0008, in ascending order and so of a low number, all inside the file.
    order: Literal["little", "big"] = "big" if data.startswith(_BIG_ENDIAN_START) else "little"
    group, element = int.from_bytes(data[:2], order), int.from_bytes(data[2:4], order)
    length = int.from_bytes(data[6:8] if _has_vr(data) else data[4:8], order)
    if group not in (_META_GROUP, _FIRST_GROUP) or element > 0x0100 or length > len(data):
        raise RejectedError(RejectReason.NOT_DICOM, "not a DICOM file")
    return 0


def _has_vr(element: bytes) -> bool:
    return element[4:6].isalpha() and element[4:6].isupper()


def guess_syntax(first: bytes) -> str:
    """Returns the transfer syntax of a dataset that names none, by the six bytes that it begins with."""
    if not _has_vr(first):
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if first.startswith(_BIG_ENDIAN_START) else uid.ExplicitVRLittleEndian


class _Watch:
    """Looks at each top-level element before pydicom reads it, and stops it at the next part."""

    def __init__(self, stream: io.BytesIO, size: int, *, is_meta: bool) -> None:
        self._stream = stream
        self._size = size
        self._is_meta = is_meta
        self._count = 0
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
            message = f"the header must hold at most {MAX_ELEMENTS} elements"
            raise RejectedError(RejectReason.DAMAGED_HEADER, message)
        self.end = None if length == _UNDEFINED_LENGTH else start + length
        if self.end is not None and self.end > self._size:
            message = f"element {group:04X},{tag & 0xFFFF:04X} of {length} bytes ends beyond the file's end"
            raise RejectedError(RejectReason.TRUNCATED, message)
        return False


def _parse(data: bytes, start: int) -> ParsedFile:
    stream = io.BytesIO(data)
    stream.seek(start)
    meta = Dataset()
    if data[start : start + 2] == b"\x02\x00":
        watch = _Watch(stream, len(data), is_meta=True)
        meta = filereader.read_dataset(stream, False, True, stop_when=watch)
    start = stream.tell()
    if start >= len(data):
        raise RejectedError(RejectReason.TRUNCATED, "the file ends before its dataset")
    syntax = str(read_value(meta, "TransferSyntaxUID") or guess_syntax(data[start : start + 6]))
    body = data
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        body, start = _inflate(data[start:]), 0
    head = body if len(body) <= MAX_HEADER_BYTES else body[:MAX_HEADER_BYTES]
    if len(head) > _SMALL_FILE_BYTES and max(map(head.count, _ITEM_TAGS)) > MAX_ITEMS:
        message = f"the header must hold at most {MAX_ITEMS} items of sequences"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    return _parse_dataset(head, start, meta, syntax, body)


def _parse_dataset(head: bytes, start: int, meta: Dataset, syntax: str, body: bytes) -> ParsedFile:
    """Reads the elements in `head`, which is all of `body` or as much as a header may take."""
    is_implicit, is_little_endian = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    stream = io.BytesIO(head)
    stream.seek(start)
    watch = _Watch(stream, len(body), is_meta=False)
    dataset = filereader.read_dataset(stream, is_implicit, is_little_endian, stop_when=watch)
    if watch.pixels is None:
        _check_end(stream.tell(), watch.end, len(head), len(body))
    return ParsedFile(dataset, meta, syntax, body, watch.pixels)


def _check_end(told: int, end: int | None, head_size: int, size: int) -> None:
    """Refuses a dataset without pixel data that does not end where its file does."""
    if head_size < size:
        message = f"the header must take at most {MAX_HEADER_BYTES} bytes"
        raise RejectedError(RejectReason.TOO_LARGE, message)
    if told < size:
        # Either an item's end outside any sequence, or a value of undefined length without an end, at
        # which pydicom goes back and drops all that it had read.
        raise RejectedError(RejectReason.DAMAGED_HEADER, "the header ends in the middle of the file")
    if end is not None and end != size:
        raise RejectedError(RejectReason.TRUNCATED, "the file ends in the middle of an element")


def _inflate(deflated: bytes) -> bytes:
    """Inflates a dataset (PS3.5 section A.5), to no more than MR can be."""
    limit = min(MAX_INFLATED_BYTES, max(SMALL_INFLATED_BYTES, MAX_INFLATE_RATIO * len(deflated)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, limit)
    except zlib.error:
        raise RejectedError(RejectReason.UNDECODABLE, "the deflated dataset is damaged") from None
    if inflater.unconsumed_tail:
        message = f"{len(deflated)} deflated bytes inflate to over {limit}"
        raise RejectedError(RejectReason.DEFLATE_BOMB, message)
    if not inflater.eof:
        raise RejectedError(RejectReason.TRUNCATED, "the deflated dataset ends early")
    return inflated
