"""Shards: plain TFRecord files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from lumbar_tf.files import replace_atomically


def shard_name(index: int, count: int) -> str:
    """Returns a shard's file name.

    >>> shard_name(3, 16)
    'part-00003-of-00016.tfrecord'
    """
    return f"part-{index:05d}-of-{count:05d}.tfrecord"


@contextmanager
def open_shard(path: Path) -> Iterator[tf.io.TFRecordWriter]:
    """Writes a shard under a temporary name; it gets its own name when the block ends well.

    Args:
        path: where the shard goes; its folder is made if needed.

    Yields:
        A writer of serialized Examples.
    """
    with replace_atomically(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        yield writer
