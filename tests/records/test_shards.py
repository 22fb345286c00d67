import hashlib
from pathlib import Path

import pytest
import tensorflow as tf

from lumbar_tf.files import file_sha256, replace_atomically
from lumbar_tf.records.shards import open_shard, shard_name


def test_a_shard_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "plane" / shard_name(0, 1)
    with open_shard(path) as writer:
        writer.write(b"one")
        writer.write(b"")
        assert not path.exists()
    assert [each.numpy() for each in tf.data.TFRecordDataset([str(path)])] == [b"one", b""]
    assert [each.name for each in path.parent.iterdir()] == ["part-00000-of-00001.tfrecord"]
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with open_shard(tmp_path / "a.tfrecord") as writer:
            writer.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


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
