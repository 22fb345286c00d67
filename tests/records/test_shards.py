import hashlib
from pathlib import Path

import pytest
import tensorflow as tf

from lumbar_tf.files import file_sha256, replace_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.framing import read_records
from lumbar_tf.records.shards import open_shards, remove_shards, replace_shard, shard_name


def test_shards_of_a_part_read_back_and_are_described(tmp_path: Path) -> None:
    path = tmp_path / "axial_t2" / shard_name(7)
    with open_shards(tmp_path, 7) as shards:
        shards.write("1", {Plane.AXIAL_T2: [b"o", b"ne"]})
        shards.write("2", {Plane.AXIAL_T2: [b""], Plane.SAGITTAL_T1: [b"two"]})
        assert not path.exists()
    assert [each.numpy() for each in tf.data.TFRecordDataset([str(path)])] == [b"one", b""]
    assert [each.name for each in path.parent.iterdir()] == ["part-00007.tfrecord"]
    described = shards.describe()
    assert list(described) == ["axial_t2", "sagittal_t1"]
    shard = described["axial_t2"]
    assert (shard.file, shard.study_ids, shard.num_examples) == (
        "axial_t2/part-00007.tfrecord",
        ("1", "2"),
        2,
    )
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)
    assert shard.size_bytes == path.stat().st_size


def test_a_part_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with open_shards(tmp_path, 0) as shards:
            shards.write("1", {Plane.AXIAL_T2: [b"half"], Plane.SAGITTAL_T1: [b"half"]})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_only_wanted_shards_stay(tmp_path: Path) -> None:
    for index in (0, 1):
        with open_shards(tmp_path, index) as shards:
            shards.write("1", {Plane.AXIAL_T2: [b"x"]})
    (tmp_path / "axial_t2" / "notes.txt").write_text("somebody's own")
    remove_shards(tmp_path, {"axial_t2/part-00001.tfrecord"}.__contains__)
    assert sorted(each.name for each in (tmp_path / "axial_t2").iterdir()) == [
        "notes.txt",
        "part-00001.tfrecord",
    ]


def test_a_rewritten_shard_holds_the_new_records(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    sha256, size_bytes = replace_shard(path, [b"a", b"bc"])
    assert list(read_records(path)) == [b"a", b"bc"]
    assert (sha256, size_bytes) == (file_sha256(path), path.stat().st_size)


def test_an_older_file_survives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text("new, hal")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
