"""TFRecord files without TensorFlow: framing and checksums, in both directions.

A record is its length (8 bytes, little endian), that length's checksum (4), the data, and the data's
checksum (4). A checksum is CRC-32C, "masked" as tensorflow/core/lib/hash/crc32c.h says. A test holds
both directions against TensorFlow.
"""

import functools
import hashlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from lumbar_tf.records.example import Piece, view_piece

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _LENGTH.size + _CHECKSUM.size
_MASK_DELTA = 0xA282EAD8  # crc32c.h, kMaskDelta

#: A study of 200 slices of 1,024 x 1,024 pixels is 400 MB; a length beyond this is damage.
MAX_RECORD_BYTES = 4 << 30


class DamagedRecordError(ValueError):
    """A TFRecord file does not hold what it should.

    Attributes:
        path: the file.
        index: the record, from 0.
        offset: where in the file that record begins, bytes.
    """

    def __init__(self, path: Path, index: int, offset: int, message: str) -> None:
        super().__init__(f"{path.name}, record {index} at byte {offset}: {message}.")
        self.path = path
        self.index = index
        self.offset = offset


def masked_crc32c(*pieces: Piece) -> int:
    """Returns the checksum that TFRecord files hold, of bytes in one piece or several.

    >>> hex(masked_crc32c(b"123456789"))  # CRC-32C of these digits is 0xe3069283 (RFC 3720)
    '0xc78ab0e5'
    """
    checksum = functools.reduce(google_crc32c.extend, pieces, 0)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


class RecordWriter:
    """Writes records to an open file and hashes what it writes.

    Attributes:
        num_records: written so far.
        size_bytes: written so far.
    """

    def __init__(self, file: io.BufferedIOBase | io.RawIOBase) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.num_records = 0
        self.size_bytes = 0

    def write(self, *record: Piece) -> None:
        """Appends one record, given whole or in pieces."""
        length = _LENGTH.pack(sum(map(len, record)))
        head = length + _CHECKSUM.pack(masked_crc32c(length))
        for piece in (head, *record, _CHECKSUM.pack(masked_crc32c(*record))):
            self._write_all(piece)
            self._digest.update(view_piece(piece))
            self.size_bytes += len(piece)
        self.num_records += 1

    def _write_all(self, data: Piece) -> None:
        """A raw file may take less than it is given, without an error: a disk about to be full does."""
        rest = view_piece(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file so far, in hexadecimal."""
        return self._digest.hexdigest()


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, each checked.

    Raises:
        DamagedRecordError: a checksum that does not fit, a length beyond `MAX_RECORD_BYTES`, or a file
            that ends within a record.
    """
    with path.open("rb") as file:
        index, offset = 0, 0
        while head := file.read(_HEAD_BYTES):
            if len(head) < _HEAD_BYTES:
                raise DamagedRecordError(path, index, offset, "the file ends within the record's length")
            (length,) = _LENGTH.unpack_from(head)
            if _CHECKSUM.unpack_from(head, _LENGTH.size)[0] != masked_crc32c(head[: _LENGTH.size]):
                raise DamagedRecordError(path, index, offset, "the checksum of its length does not fit")
            if length > MAX_RECORD_BYTES:
                raise DamagedRecordError(path, index, offset, f"{length} bytes are more than a study can be")
            record, tail = file.read(length), file.read(_CHECKSUM.size)
            if len(record) < length or len(tail) < _CHECKSUM.size:
                raise DamagedRecordError(path, index, offset, "the file ends within the record")
            if _CHECKSUM.unpack(tail)[0] != masked_crc32c(record):
                raise DamagedRecordError(path, index, offset, "the checksum of its data does not fit")
            yield record
            index, offset = index + 1, offset + _HEAD_BYTES + length + _CHECKSUM.size
