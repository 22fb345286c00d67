import hashlib
import struct
import tracemalloc
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.files import file_sha256
from lumbar_tf.records.framing import (
    HEAD_BYTES,
    CorruptRecord,
    CorruptRecordError,
    FramedRecord,
    RecordWriter,
    masked_crc32c,
    read_records,
    scan_records,
)
from lumbar_tf.records.issues import IssueCode

RECORDS = [b"first", b"", b"third" * 1000]


def _write(path: Path, records: list[bytes]) -> RecordWriter:
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
    return writer


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_tensorflow_reads_what_is_written(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    path = tmp_path_factory.mktemp("framing") / "a.tfrecord"
    writer = _write(path, records)
    assert [each.numpy() for each in tf.data.TFRecordDataset(str(path))] == records
    assert (writer.num_records, writer.sha256) == (len(records), file_sha256(path))


def test_what_tensorflow_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert list(read_records(path)) == RECORDS


@pytest.mark.parametrize(
    ("place", "fault"),
    [(3, "checksum of the length"), (9, "checksum of the length"), (13, "checksum of the data")],
)
def test_a_flipped_bit_is_named(tmp_path: Path, place: int, fault: str) -> None:
    path = tmp_path / "a.tfrecord"
    _write(path, RECORDS)
    data = bytearray(path.read_bytes())
    second = 16 + len(RECORDS[0])
    data[second + 16 + place] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptRecordError, match=fault) as caught:
        list(read_records(path))
    assert (caught.value.path, caught.value.index, caught.value.offset) == (path, 2, second + 16)
    assert str(caught.value).startswith(f"a.tfrecord, record 2 at byte {second + 16}: the checksum of ")


@pytest.mark.parametrize(
    ("length", "fault"), [(3 << 30, "ends within the record"), (1 << 60, "more than the maximum of a record")]
)
def test_an_absurd_length_takes_no_memory(tmp_path: Path, length: int, fault: str) -> None:
    path = tmp_path / "a.tfrecord"
    head = struct.pack("<Q", length)
    path.write_bytes(head + struct.pack("<I", masked_crc32c(head)) + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecordError, match=fault):
            list(read_records(path))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 << 20


def test_a_scan_steps_over_damaged_data_and_hashes_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    _write(path, RECORDS)
    data = bytearray(path.read_bytes())
    data[HEAD_BYTES] ^= 4
    path.write_bytes(data + b"behind the last record")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        first, second, third, rest = scan_records(file, digest)
    assert isinstance(first, CorruptRecord)
    assert (first.index, first.offset, first.code) == (0, 0, IssueCode.DATA_DAMAGED)
    assert second == FramedRecord(1, 16 + 5, b"")
    assert third == FramedRecord(2, 32 + 5, RECORDS[2])
    assert isinstance(rest, CorruptRecord)
    assert (rest.index, rest.offset, rest.code) == (3, len(data), IssueCode.LENGTH_DAMAGED)
    assert digest.hexdigest() == file_sha256(path)


@given(st.data())
def test_a_cut_file_never_passes_unless_between_records(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("framing") / "a.tfrecord"
    _write(path, RECORDS)
    whole = path.read_bytes()
    boundaries = [0, 16 + 5, 32 + 5, len(whole)]
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    if cut in boundaries:
        assert list(read_records(path)) == RECORDS[: boundaries.index(cut)]
    else:
        with pytest.raises(CorruptRecordError, match="ends within"):
            list(read_records(path))
