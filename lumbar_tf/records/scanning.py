"""Reads a TFRecord file past its damages, and hashes it in the same pass.

`framing.read_records` stops at the first damage, as a reader should; who looks for damage wants all of it.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from lumbar_tf.records.damage import Damage
from lumbar_tf.records.framing import MAX_RECORD_BYTES, masked_crc32c

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _LENGTH.size + _CHECKSUM.size
_REST_BYTES = 1 << 20


class Digest(Protocol):
    """What `hashlib.sha256()` returns."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""


@dataclass(frozen=True)
class FramedRecord:
    """One record as it stands in the file.

    Attributes:
        index: its number, from 0.
        offset: where its data begins, bytes.
        data: None where they are damaged or cannot be reached; only then `damage` and `message` count.
        damage: what is wrong.
        message: the same for a person.
    """

    index: int
    offset: int
    data: bytes | None
    damage: Damage = Damage.DATA_DAMAGED
    message: str = "the checksum of the data does not fit"


def scan_records(file: BinaryIO, digest: Digest) -> Iterator[FramedRecord]:
    """Yields every record that can be reached, and what keeps the next one from being reached.

    A record whose data are damaged is stepped over, because its length is sound.

    Args:
        file: open at its begin.
        digest: gets every byte of the file, also those that are no record.
    """

    def take(count: int) -> bytes:
        data = file.read(count)
        digest.update(data)
        return data

    size_bytes = os.fstat(file.fileno()).st_size
    index, offset = 0, 0
    while head := take(_HEAD_BYTES):
        offset += _HEAD_BYTES
        fault = _head_fault(head, size_bytes - offset)
        if fault is not None:
            yield FramedRecord(index, offset, None, *fault)
            break
        (length,) = _LENGTH.unpack_from(head)
        data, (checksum,) = take(length), _CHECKSUM.unpack(take(_CHECKSUM.size))
        yield FramedRecord(index, offset, data if checksum == masked_crc32c(data) else None)
        index, offset = index + 1, offset + length + _CHECKSUM.size
    while take(_REST_BYTES):
        pass


def _head_fault(head: bytes, num_left: int) -> tuple[Damage, str] | None:
    """What is wrong with a record's length, of which `num_left` bytes follow in the file."""
    if len(head) < _HEAD_BYTES:
        return Damage.CUT_IN_RECORD, "the file ends within the record's length"
    (length,) = _LENGTH.unpack_from(head)
    if _CHECKSUM.unpack_from(head, _LENGTH.size)[0] != masked_crc32c(head[: _LENGTH.size]):
        return Damage.LENGTH_DAMAGED, "the checksum of the length does not fit; nothing after it can be read"
    if length > MAX_RECORD_BYTES:
        return Damage.LENGTH_ABSURD, f"{length} bytes are more than a record can be"
    # Told before reading: a length beyond the file's end must not take memory.
    if length + _CHECKSUM.size > num_left:
        return Damage.CUT_IN_RECORD, f"the file ends within the record ({length} bytes)"
    return None
