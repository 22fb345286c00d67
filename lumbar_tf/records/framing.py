"""Reading and writing of TFRecord files without TensorFlow.

A record consists of its length (8 bytes, little endian), the length's checksum (4), the data, and the data's
checksum (4). Checksums are CRC-32C, masked as in tensorflow/core/lib/hash/crc32c.h. Tests compare reading and
writing with TensorFlow.

A record's offset is that of its length; its data begin `HEAD_BYTES` later.
"""

import functools
import hashlib
import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import google_crc32c

from lumbar_tf.files import open_regular_file
from lumbar_tf.records.example import Piece, view_piece
from lumbar_tf.records.issues import IssueCode

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8  # crc32c.h, kMaskDelta
_REST_BYTES = 1 << 20

#: Size of the length and its checksum before the data.
HEAD_BYTES = _LENGTH.size + _CHECKSUM.size

#: A study of 200 slices of 1,024 x 1,024 pixels is 400 MB; a larger length than this is damaged.
MAX_RECORD_BYTES = 4 << 30


def masked_crc32c(*pieces: Piece) -> int:
    """Returns the checksum of data, in one or several pieces, as stored in TFRecord files.

    >>> hex(masked_crc32c(b"123456789"))  # CRC-32C of these digits is 0xe3069283 (RFC 3720)
    '0xc78ab0e5'
    """
    checksum = functools.reduce(google_crc32c.extend, pieces, 0)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _pack_checksum(*pieces: Piece) -> bytes:
    return _CHECKSUM.pack(masked_crc32c(*pieces))


class RecordWriter:
    """Writes records to an open file and computes the file's digest.

    Attributes:
        num_records: number of records written so far.
        size_bytes: number of bytes written so far.
    """

    def __init__(self, file: io.BufferedIOBase | io.RawIOBase) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.num_records = 0
        self.size_bytes = 0

    def write(self, *record: Piece) -> None:
        """Appends one record, in one or several pieces."""
        length = _LENGTH.pack(sum(map(len, record)))
        head = length + _pack_checksum(length)
        for piece in (head, *record, _pack_checksum(*record)):
            self._write_all(piece)
            self._digest.update(view_piece(piece))
            self.size_bytes += len(piece)
        self.num_records += 1

    def _write_all(self, data: Piece) -> None:
        """Writes all bytes: a raw file may write fewer than requested without an error."""
        rest = view_piece(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class FramedRecord:
    """A record with valid checksums.

    Attributes:
        index: index in the file, from 0.
        offset: offset in the file, bytes.
        data: the data, without length and checksums.
    """

    index: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class CorruptRecord:
    """A record that is damaged or cannot be read.

    Attributes:
        index: index in the file, from 0.
        offset: offset in the file, bytes.
        code: the kind of damage.
        message: description of the damage.
    """

    index: int
    offset: int
    code: IssueCode
    message: str


class CorruptRecordError(ValueError):
    """A record of a TFRecord file is damaged.

    Attributes:
        path: the file.
        index: index of the record, from 0.
        offset: its offset in the file, bytes.
    """

    def __init__(self, path: Path, index: int, offset: int, message: str) -> None:
        super().__init__(f"{path.name}, record {index} at byte {offset}: {message}.")
        self.path = path
        self.index = index
        self.offset = offset


class Digest(Protocol):
    """The interface of `hashlib.sha256()`."""

    def update(self, data: bytes, /) -> None:
        """Adds bytes."""


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the data of a TFRecord file's records, and verifies their checksums.

    Raises:
        CorruptRecordError: a record is damaged.
    """
    with open_regular_file(path) as file:
        for record in scan_records(file):
            if isinstance(record, CorruptRecord):
                raise CorruptRecordError(path, record.index, record.offset, record.message)
            yield record.data


def scan_records(file: IO[bytes], digest: Digest | None = None) -> Iterator[FramedRecord | CorruptRecord]:
    """Yields every readable record, and damaged ones.

    Reading continues after a record with damaged data, but not after one with a damaged length.

    Args:
        file: the file, open at its start.
        digest: updated with every byte of the file in the same pass.
    """

    def take(count: int) -> bytes:
        data = file.read(count)
        if digest is not None:
            digest.update(data)
        return data

    size_bytes = os.fstat(file.fileno()).st_size
    index, offset = 0, 0
    while head := take(HEAD_BYTES):
        fault = _head_fault(head, size_bytes - offset - HEAD_BYTES)
        if fault is not None:
            yield CorruptRecord(index, offset, *fault)
            break
        (length,) = _LENGTH.unpack_from(head)
        data, checksum = take(length), take(_CHECKSUM.size)
        if checksum == _pack_checksum(data):
            yield FramedRecord(index, offset, data)
        else:
            message = "the checksum of the data does not match"
            yield CorruptRecord(index, offset, IssueCode.DATA_DAMAGED, message)
        index, offset = index + 1, offset + HEAD_BYTES + length + _CHECKSUM.size
    while digest is not None and take(_REST_BYTES):
        pass


def scan_spans(path: Path, view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields the offset and the data of each record of a file; data are neither read nor verified.

    Args:
        path: the file, for messages.
        view: its bytes.

    Raises:
        CorruptRecordError: a record's length is damaged, or the file ends within it.
    """
    index, offset = 0, 0
    while offset < len(view):
        data = offset + HEAD_BYTES
        fault = _head_fault(bytes(view[offset:data]), len(view) - data)
        if fault is not None:
            raise CorruptRecordError(path, index, offset, fault[1])
        (length,) = _LENGTH.unpack_from(view, offset)
        yield offset, view[data : data + length]
        index, offset = index + 1, data + length + _CHECKSUM.size


def _head_fault(head: bytes, num_left: int) -> tuple[IssueCode, str] | None:
    """Returns the issue of a record's length, None if it is valid; `num_left` bytes follow it in the file."""
    if len(head) < HEAD_BYTES:
        return IssueCode.CUT_IN_RECORD, "the file ends within the record's length"
    if head[_LENGTH.size :] != _pack_checksum(head[: _LENGTH.size]):
        return (
            IssueCode.LENGTH_DAMAGED,
            "the checksum of the length does not match; the rest of the file cannot be read",
        )
    (length,) = _LENGTH.unpack_from(head)
    if length > MAX_RECORD_BYTES:
        return IssueCode.LENGTH_ABSURD, f"{length} bytes are more than the maximum of a record"
    # Checked before reading, which would allocate the memory.
    if length + _CHECKSUM.size > num_left:
        return IssueCode.CUT_IN_RECORD, f"the file ends within the record ({length} bytes)"
    return None
