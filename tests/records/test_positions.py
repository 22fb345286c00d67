import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.example import parse_example_features, parse_feature
from lumbar_tf.records.framing import CorruptRecordError
from lumbar_tf.records.parsing import parse_example, read_parsed_record
from lumbar_tf.records.positions import find_records
from lumbar_tf.records.schema import FEATURES, encode_plane


@pytest.fixture
def records(make_slice: Callable[..., Slice]) -> list[bytes]:
    slices = [make_slice((4.0 * number, 0.0, 0.0), instance_number=number) for number in range(3)]
    return [
        encode_plane(study, Plane.SAGITTAL_T2, kept)
        for study, kept in (("a", slices), ("none", []), ("c", slices[:2]))
    ]


def _write(path: Path, records: list[bytes]) -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.mark.parametrize("name", [*FEATURES, "absent"])
def test_one_feature_is_what_the_whole_message_has(records: list[bytes], name: str) -> None:
    for record in records:
        whole = parse_example_features(record).get(name, [])
        np.testing.assert_array_equal(parse_feature(memoryview(record), name), whole)


def test_messages_of_another_form_are_parsed_whole(records: list[bytes]) -> None:
    # TensorFlow's writer is free in the order of entries; two messages in a row are one.
    example = tf.train.Example.FromString(records[0])
    rewritten = example.SerializeToString()
    assert parse_feature(memoryview(rewritten), "study_id") == [b"a"]
    extra = tf.train.Example()
    extra.features.feature["note"].bytes_list.value.append(b"later")
    assert parse_feature(memoryview(rewritten + extra.SerializeToString()), "note") == [b"later"]
    for damaged in (b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff", rewritten[:-3]):
        with pytest.raises(ValueError, match=r"tf\.train\.Example"):
            parse_feature(memoryview(damaged), "study_id")
    assert parse_feature(memoryview(b""), "study_id") == []


def test_positions_lead_to_the_records(tmp_path: Path, records: list[bytes]) -> None:
    late, early = _write(tmp_path / "b.tfrecord", records), _write(tmp_path / "a.tfrecord", records[::-1])
    found = find_records([late, early])
    expected = [("c", True), ("none", False), ("a", True), ("a", True), ("none", False), ("c", True)]
    assert [(position.study_id, position.has_slices) for position in found] == expected
    for position, record in zip(found, [*records[::-1], *records], strict=True):
        assert position.size_bytes == len(record)
        read = read_parsed_record(tf.constant(str(position.path)), tf.constant(position.offset, tf.int64))
        tf.nest.map_structure(np.testing.assert_array_equal, read, parse_example(tf.constant(record)))
    assert find_records([_write(tmp_path / "empty.tfrecord", [])]) == []


def test_replaced_files_are_read_again(tmp_path: Path, records: list[bytes]) -> None:
    path = _write(tmp_path / "a.tfrecord", records[:1])
    assert [position.study_id for position in find_records([path])] == ["a"]
    _write(path, records[2:])
    os.utime(path, ns=(1, 1))
    assert [position.study_id for position in find_records([path])] == ["c"]


def test_damaged_lengths_and_data_are_errors(tmp_path: Path, records: list[bytes]) -> None:
    path = _write(tmp_path / "a.tfrecord", records)
    content = bytearray(path.read_bytes())
    second = find_records([path])[1].offset
    path.write_bytes(content[:-5])
    with pytest.raises(CorruptRecordError, match=r"a\.tfrecord, record 2 at byte \d+: .*ends within"):
        find_records([path])
    content[second + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError, match=r"record 1 .* checksum of the length"):
        find_records([path])
    content[second + 3] ^= 1
    content[second - 10] ^= 0xFF  # at the end of the first record's data
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError, match=r"a\.tfrecord, record 0 at byte 0: .*"):
        find_records([path])
    content[second - 10] ^= 0xFF
    content[second // 2] ^= 1  # within a slice
    path.write_bytes(content)
    (first, *_) = find_records([path])
    with pytest.raises(tf.errors.DataLossError):
        read_parsed_record(tf.constant(str(path)), tf.constant(first.offset, tf.int64))
