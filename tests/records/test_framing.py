from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.files import file_sha256
from lumbar_tf.records.framing import DamagedRecordError, RecordWriter, read_records

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
    [(3, "checksum of its length"), (9, "checksum of its length"), (13, "checksum of its data")],
)
def test_a_flipped_bit_is_named(tmp_path: Path, place: int, fault: str) -> None:
    path = tmp_path / "a.tfrecord"
    _write(path, RECORDS)
    data = bytearray(path.read_bytes())
    second = 16 + len(RECORDS[0])
    data[second + 16 + place] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedRecordError, match=fault) as caught:
        list(read_records(path))
    assert (caught.value.index, caught.value.offset) == (2, second + 16)


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
        with pytest.raises(DamagedRecordError, match="ends within"):
            list(read_records(path))
