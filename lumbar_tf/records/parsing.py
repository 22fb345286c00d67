"""Reads records inside TensorFlow's graphs; `tfrecords/README.md` documents every feature.

Core TensorFlow ops only: the exported graph calls these very functions.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS
from lumbar_tf.records.schema import Codec

#: Files that are read side by side: with one, parsing waits for reading; each holds a record in memory.
_PARALLEL_READS = 2

_SLICE_VECTORS = ("slices/position", "slices/row_direction", "slices/column_direction")
_SLICE_FLOATS = ("slices/scale", "slices/offset", "slices/row_spacing_mm", "slices/column_spacing_mm")
_SLICE_INTEGERS = (
    "slices/rows",
    "slices/columns",
    "slices/series",
    "slices/group",
    "slices/instance_number",
)


def feature_spec() -> dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]:
    """Returns how each feature is parsed; an absent feature is empty or missing, not an error."""

    def sequence(shape: Sequence[int], dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
        return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)

    spec = {
        name: tf.io.FixedLenFeature([], tf.string, "")
        for name in ("schema_version", "study_id", "plane", "codec")
    }
    spec["labels"] = tf.io.FixedLenFeature([NUM_FINDINGS], tf.int64, [MISSING_LABEL] * NUM_FINDINGS)
    spec["points"] = tf.io.FixedLenFeature([NUM_FINDINGS, 3], tf.float32, [float("nan")] * (NUM_FINDINGS * 3))
    spec["series/id"] = sequence([], tf.string)
    spec["series/low"] = sequence([], tf.float32)
    spec["series/high"] = sequence([], tf.float32)
    spec["slices/image"] = sequence([], tf.string)
    spec.update({name: sequence([], tf.float32) for name in _SLICE_FLOATS})
    spec.update({name: sequence([], tf.int64) for name in _SLICE_INTEGERS})
    spec.update({name: sequence([3], tf.float32) for name in _SLICE_VECTORS})
    return spec


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record; images stay encoded.

    Args:
        serialized: scalar string, an Example made by `encode_plane`, or "" for a missing plane.

    Returns:
        The features by name: `labels` int64 [25] (-1 missing), `points` float32 [25, 3] (LPS mm, NaN
        missing), `series/*` [S], `slices/*` [N] and the three vectors [N, 3]. A missing plane has
        S = N = 0.
    """
    return tf.io.parse_single_example(serialized, feature_spec())


def read_dataset(files: Iterable[Path]) -> tf.data.Dataset:
    """Reads shards, two side by side, and parses their records.

    Returns:
        A dataset of what `parse_example` gives, in an order that depends on the files alone.
    """
    names = [str(path) for path in sorted(files)]
    dataset = tf.data.TFRecordDataset(names, num_parallel_reads=_PARALLEL_READS)
    return dataset.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def decode_image(encoded: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, codec: tf.Tensor) -> tf.Tensor:
    """Decodes one entry of `slices/image` to stored values.

    A pixel's value is stored * `slices/scale` + `slices/offset`.

    Args:
        encoded: scalar string.
        rows: its entry of `slices/rows`.
        columns: its entry of `slices/columns`.
        codec: the record's `codec`, scalar string.

    Returns:
        uint16 [rows, columns].
    """
    flat = tf.cond(
        tf.equal(codec, Codec.RAW.value),
        lambda: tf.io.decode_raw(encoded, tf.uint16, little_endian=True),
        lambda: tf.reshape(tf.io.decode_png(encoded, channels=1, dtype=tf.uint16), [-1]),
    )
    return tf.reshape(flat, [rows, columns])
