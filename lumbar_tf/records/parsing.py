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
#: Read from a file at a time: records are megabytes, and the default of 256 KB took a quarter longer.
_READ_BYTES = 1 << 20

_IMAGES = "slices/image"
#: What a record starts with is small; images that begin later than this are copied before they are decoded.
_HEAD_BYTES = 1 << 16
_PIXEL_BYTES = 2
#: Tag of field 1 where it holds bytes or a message, and every single byte.
_FIELD_1 = b"\x0a"
_BYTES = tuple(bytes([each]) for each in range(256))
#: Key of the map's entry, field 1, and the tag of its value, field 2.
_OPENING = _FIELD_1 + bytes([len(_IMAGES)]) + _IMAGES.encode() + b"\x12"

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
    """Parses one record; its images stay encoded, and where they lie.

    Args:
        serialized: scalar string, an Example made by `encode_plane`, or "" for a missing plane.

    Returns:
        The features by name: `labels` int64 [25] (-1 missing), `points` float32 [25, 3] (LPS mm, NaN
        missing), `series/*` [S], `slices/*` [N] and the three vectors [N, 3]. A missing plane has
        S = N = 0. Instead of `slices/image` there are `images`, a scalar string that holds the encoded images
        among other things, and where in it, in bytes: `slices/start` and `slices/size`, int64 [N].
    """
    spec = feature_spec()
    image_spec = {_IMAGES: spec.pop(_IMAGES)}
    record = tf.io.parse_single_example(serialized, spec)
    size = record["slices/rows"] * record["slices/columns"] * _PIXEL_BYTES
    start, is_found = _raw_starts(serialized, size)

    def copied() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images = tf.io.parse_single_example(serialized, image_spec)[_IMAGES]
        sizes = tf.cast(tf.strings.length(images), tf.int64)
        return tf.strings.reduce_join(images), tf.cumsum(sizes, exclusive=True), sizes

    # Megabytes that are mostly not needed: they are copied only where their places cannot be told.
    images, start, size = tf.cond(
        is_found & tf.equal(record["codec"], Codec.RAW.value), lambda: (serialized, start, size), copied
    )
    return {**record, "images": images, "slices/start": start, "slices/size": size}


def _raw_starts(serialized: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds images of known sizes in a serialized Example.

    The wire format puts a tag and the length before every message and every string
    (protobuf.dev/programming-guides/encoding), so that sizes give all that stands before the first image. It
    is looked for as a whole: a record that some other writer arranged is not found, and never misread.

    Args:
        serialized: scalar string.
        size: int64 [N], bytes of each image.

    Returns:
        int64 [N], where each image begins, and whether they were found.
    """
    framed = 1 + _varint_size(size) + size
    list_size = tf.reduce_sum(framed)
    value_size = 1 + _varint_size(list_size) + list_size
    opening = tf.strings.join([_OPENING, _varint(value_size), _FIELD_1, _varint(list_size), _FIELD_1])
    before = tf.strings.split(tf.strings.substr(serialized, 0, _HEAD_BYTES), opening)
    first = tf.strings.length(before[:1]) + tf.strings.length(opening) - 1
    start = tf.cast(first, tf.int64) + tf.cumsum(framed, exclusive=True) + 1 + _varint_size(size)
    return start, tf.size(before) > 1


def _varint_size(value: tf.Tensor) -> tf.Tensor:
    """Returns how many bytes int64 values from 0 to 2**35 take, seven bits each."""
    is_longer = value[..., tf.newaxis] >= tf.constant([1 << 7, 1 << 14, 1 << 21, 1 << 28], tf.int64)
    return 1 + tf.reduce_sum(tf.cast(is_longer, tf.int64), axis=-1)


def _varint(value: tf.Tensor) -> tf.Tensor:
    """Writes an int64 from 0 to 2**35 as protobuf does; see `records.example`. Returns a scalar string."""
    place = tf.range(_varint_size(value))
    group = tf.bitwise.right_shift(value, 7 * place) % 128
    is_last = tf.equal(place, tf.size(place, tf.int64) - 1)
    return tf.strings.reduce_join(tf.gather(_BYTES, tf.where(is_last, group, group + 128)))


def read_dataset(files: Iterable[Path]) -> tf.data.Dataset:
    """Reads shards, two side by side, and parses their records.

    Returns:
        A dataset of what `parse_example` gives, in an order that depends on the files alone.
    """
    names = [str(path) for path in sorted(files)]
    dataset = tf.data.TFRecordDataset(names, buffer_size=_READ_BYTES, num_parallel_reads=_PARALLEL_READS)
    return dataset.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def decode_image(
    record: dict[str, tf.Tensor], index: tf.Tensor, rows: tuple[tf.Tensor, tf.Tensor]
) -> tf.Tensor:
    """Decodes some rows of one slice to stored values.

    A pixel's value is stored * `slices/scale` + `slices/offset`.

    Args:
        record: from `parse_example`.
        index: int32 [], the slice.
        rows: int64 [] each, the first row and the one after the last, within the slice.

    Returns:
        uint16 [rows, columns].
    """
    columns = record["slices/columns"][index]
    start, size = record["slices/start"][index], record["slices/size"][index]
    first, end = rows

    def raw() -> tf.Tensor:
        line = columns * _PIXEL_BYTES
        encoded = tf.strings.substr(record["images"], start + first * line, (end - first) * line)
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint16, little_endian=True), [-1, columns])

    def png() -> tf.Tensor:
        encoded = tf.strings.substr(record["images"], start, size)
        return tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)[first:end, :, 0]

    return tf.cond(tf.equal(record["codec"], Codec.RAW.value), raw, png)
