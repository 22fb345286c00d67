"""Parsing of records in TensorFlow's graphs; `tfrecords/README.md` documents every feature.

Only core TensorFlow ops are used, because the exported graph contains these functions.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS
from lumbar_tf.records.schema import FEATURES, IMAGE_FEATURE, FeatureAxis, FeatureSpec, PixelEncoding

#: Files read in parallel, so that parsing does not wait for reading; each takes the memory of a record.
_PARALLEL_READS = 2
#: Read buffer: records are megabytes, and the default of 256 KB takes a quarter more time.
_READ_BYTES = 1 << 20

#: Images that start after this offset are copied before decoding; other features are small.
_HEAD_BYTES = 1 << 16
_PIXEL_BYTES = 2
#: Binary logarithm of the maximum number of map entries before the images: 32, of which 12 are used.
_DOUBLINGS = 5
#: Tag of field 1 with bytes or a message, and every single byte.
_FIELD_1 = b"\x0a"
_BYTES = tuple(bytes([value]) for value in range(256))
#: Bytes of the longest varint: seven bits per byte, and messages have fewer than 2**31 bytes.
_VARINT_BYTES = 5
#: Key of the map's entry, field 1, and the tag of its value, field 2.
_KEY = _FIELD_1 + bytes([len(IMAGE_FEATURE)]) + IMAGE_FEATURE.encode() + b"\x12"

_DTYPES = {bytes: tf.string, int: tf.int64, float: tf.float32}
_MISSING: dict[type, object] = {bytes: "", int: MISSING_LABEL, float: float("nan")}


def feature_spec() -> dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]:
    """Returns every feature's parsing specification; an absent feature is empty or missing, not an error."""
    return {name: _parsing_spec(spec) for name, spec in FEATURES.items()}


def _parsing_spec(spec: FeatureSpec) -> tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature:
    dtype, shape = _DTYPES[spec.kind], [] if spec.size == 1 else [spec.size]
    if spec.axis in (FeatureAxis.SERIES, FeatureAxis.SLICE):
        return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)
    if spec.axis is FeatureAxis.FINDING:
        shape = [NUM_FINDINGS, *shape]
    return tf.io.FixedLenFeature(shape, dtype, [_MISSING[spec.kind]] * math.prod(shape))


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record without decoding its images.

    Args:
        serialized: scalar string, an Example from `encode_plane`, or "" for a missing plane.

    Returns:
        The features by name: `labels` int64 [25] (-1 missing), `points` float32 [25, 3] (LPS mm, NaN
        missing), `series/*` [S], `slices/*` [N] and the three vectors [N, 3]. A missing plane has
        S = N = 0. Instead of `slices/image` there are `images`, a scalar string that contains the encoded
        images, and their offsets and sizes in it in bytes, `slices/start` and `slices/size`, int64 [N].
    """
    spec = feature_spec()
    image_spec = {IMAGE_FEATURE: spec.pop(IMAGE_FEATURE)}
    record = tf.io.parse_single_example(serialized, spec)
    size = record["slices/rows"] * record["slices/columns"] * _PIXEL_BYTES
    start, is_found = _raw_starts(serialized, size)

    def copied() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images = tf.io.parse_single_example(serialized, image_spec)[IMAGE_FEATURE]
        sizes = tf.cast(tf.strings.length(images), tf.int64)
        return tf.strings.reduce_join(images), tf.cumsum(sizes, exclusive=True), sizes

    # Most images are not needed: they are copied only if their offsets cannot be determined.
    images, start, size = tf.cond(
        is_found & tf.equal(record["codec"], PixelEncoding.RAW.value),
        lambda: (serialized, start, size),
        copied,
    )
    return {**record, "images": images, "slices/start": start, "slices/size": size}


#: Traced once a process instead of once a dataset, of which a fold makes several.
_traced_parse_example = tf.function(
    parse_example, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def _raw_starts(serialized: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Locates images of known sizes in a serialized Example.

    The wire format has a tag and the length before every message and string
    (protobuf.dev/programming-guides/encoding), so that the sizes determine all bytes before the first image
    and between images. The images are found only if exactly these bytes are present, in a map entry that the
    lengths of the entries before it lead to, and no later entry replaces it. Records of other sizes, or from
    another writer, are not found and therefore never misread.

    Args:
        serialized: scalar string.
        size: int64 [N], bytes of each image.

    Returns:
        Offset of each image, int64 [N], and whether they were found, bool [].
    """
    total = tf.cast(tf.strings.length(serialized), tf.int64)
    frame_size = 1 + _varint_size(size)
    list_size = tf.reduce_sum(frame_size + size)
    value_size = 1 + _varint_size(list_size) + list_size
    entry_size = len(_KEY) + _varint_size(value_size) + value_size
    opening = tf.strings.join(
        [_FIELD_1, _varint(entry_size), _KEY, _varint(value_size), _FIELD_1, _varint(list_size)]
    )
    before = tf.strings.split(tf.strings.substr(serialized, 0, _HEAD_BYTES), opening)
    is_opened = tf.size(before) > 1
    place = tf.where(is_opened, tf.reduce_sum(tf.strings.length(before[:1])), 0)
    first = tf.cast(place + tf.strings.length(opening), tf.int64)
    start = first + tf.cumsum(frame_size + size) - size

    # Offsets are clipped, since sizes may overflow.
    frame = tf.strings.substr(serialized, tf.clip_by_value(start - frame_size, 0, total), frame_size)
    is_framed = tf.equal(frame, tf.strings.join([_FIELD_1, _varint(size)]))
    is_within = (size >= 0) & (size <= total) & (start + size <= total)
    after = tf.strings.substr(serialized, tf.clip_by_value(first + list_size, 0, total), total)
    # Of entries with the same key the last one is used.
    is_last = tf.size(tf.strings.split(after, IMAGE_FEATURE)) < 2
    is_found = is_opened & tf.reduce_all(is_framed & is_within) & is_last & _is_entry(serialized, place)
    return start, is_found


def _is_entry(serialized: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Returns whether an entry of an Example's map begins at an offset, not similar bytes in a string.

    Every byte before the offset is interpreted as the start of an entry, which gives the offset of the next
    entry. Following these links from the first entry shows whether they lead to the offset.

    Args:
        serialized: scalar string.
        place: the offset, int32 [].

    Returns:
        bool []; also False with more than 32 entries before the offset.
    """
    # Two more positions: the offset, which links to itself, and the target of all links beyond it.
    position = tf.range(place + 2)
    read = tf.io.decode_raw(tf.strings.substr(serialized, 0, place), tf.uint8)
    # An entry whose length is cut off here ends behind the offset, whatever its other bytes are.
    read = tf.cast(tf.pad(read, [[0, 2 + _VARINT_BYTES]]), tf.int64)
    group = tf.stack([read[first : first + place + 2] for first in range(1, 1 + _VARINT_BYTES)], axis=-1)
    shift = 7 * tf.range(_VARINT_BYTES, dtype=tf.int64)
    is_longer = tf.cast(group >= 128, tf.int64)
    is_part = tf.math.cumprod(is_longer, axis=-1, exclusive=True)
    header = 1 + tf.reduce_sum(is_part, axis=-1)
    length = tf.reduce_sum(tf.bitwise.left_shift(is_part * (group % 128), shift), axis=-1)
    is_field = tf.equal(read[: place + 2], _FIELD_1[0]) & tf.equal(tf.reduce_prod(is_longer, axis=-1), 0)
    end = tf.cast(position, tf.int64) + header + length
    step = tf.where(is_field & (end <= tf.cast(place, tf.int64)), tf.cast(end, tf.int32), place + 1)
    step = tf.where(tf.equal(position, place), place, step)
    for _ in range(_DOUBLINGS):
        step = tf.gather(step, step)
    # The only field of an Example is the map. A second occurrence of it would add entries.
    is_whole = is_field[0] & tf.equal(end[0], tf.cast(tf.strings.length(serialized), tf.int64))
    first = tf.minimum(tf.cast(header[0], tf.int32), place + 1)
    return is_whole & tf.equal(step[first], place)


def _varint_size(value: tf.Tensor) -> tf.Tensor:
    """Returns the number of bytes of int64 values from 0 to 2**35 as varints."""
    is_longer = value[..., tf.newaxis] >= tf.constant([1 << 7, 1 << 14, 1 << 21, 1 << 28], tf.int64)
    return 1 + tf.reduce_sum(tf.cast(is_longer, tf.int64), axis=-1)


def _varint(value: tf.Tensor) -> tf.Tensor:
    """Returns int64 values from 0 to 2**35 as varints (strings); see `records.example`."""
    place = tf.range(_VARINT_BYTES, dtype=tf.int64)
    last = _varint_size(value)[..., tf.newaxis] - 1
    group = tf.bitwise.right_shift(value[..., tf.newaxis], 7 * place) % 128
    written = tf.gather(_BYTES, tf.where(place < last, group + 128, group))
    return tf.strings.reduce_join(tf.where(place <= last, written, ""), axis=-1)


def records_dataset(files: Iterable[Path]) -> tf.data.Dataset:
    """Returns a dataset of the records of shards, parsed by `parse_example`.

    Two shards are read in parallel. The order of the records depends on the files only.

    Args:
        files: shards.
    """
    names = [str(path) for path in sorted(files)]
    dataset = tf.data.TFRecordDataset(names, buffer_size=_READ_BYTES, num_parallel_reads=_PARALLEL_READS)
    return dataset.map(_traced_parse_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def read_parsed_record(path: tf.Tensor, offset: tf.Tensor) -> dict[str, tf.Tensor]:
    """Reads one record of a shard, verifies its checksum and parses it by `parse_example`.

    Args:
        path: the shard, scalar string.
        offset: offset of the record in it, int64 [], from `records.positions`.

    Raises:
        DataLossError: (at run time) the record is damaged.
    """
    # Of the public API only this op reads at an offset; `TFRecordDataset` has no such argument.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path, compression_type="", buffer_size=_READ_BYTES, byte_offsets=offset
    )
    dataset = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    return _traced_parse_example(dataset.take(1).get_single_element())


def decode_image(
    record: dict[str, tf.Tensor], index: tf.Tensor, rows: tuple[tf.Tensor, tf.Tensor]
) -> tf.Tensor:
    """Decodes some rows of one slice to stored values.

    A pixel's value is stored * `slices/scale` + `slices/offset`.

    Args:
        record: from `parse_example`.
        index: int32 [], the slice.
        rows: first row and end (exclusive) within the slice, int64 [] each.

    Returns:
        uint16 [end - first, columns].

    Raises:
        InvalidArgumentError: (at run time) the image does not have `slices/rows` x `slices/columns` pixels.
    """
    height, columns = record["slices/rows"][index], record["slices/columns"][index]
    start, size = record["slices/start"][index], record["slices/size"][index]
    first, end = rows

    def raw() -> tf.Tensor:
        # In float64, which does not overflow and is exact up to 2**53.
        expected = tf.cast(height, tf.float64) * tf.cast(columns, tf.float64) * _PIXEL_BYTES
        rule = "A raw image must have two bytes for each of `slices/rows` x `slices/columns`. Received:"
        is_whole = tf.equal(tf.cast(size, tf.float64), expected) & (tf.minimum(height, columns) >= 0)
        with tf.control_dependencies([tf.debugging.Assert(is_whole, [rule, size, "for", height, columns])]):
            line = columns * _PIXEL_BYTES
            length = tf.minimum((end - first) * line, size - first * line)
        encoded = tf.strings.substr(record["images"], start + first * line, length)
        pixels = tf.io.decode_raw(encoded, tf.uint16, little_endian=True)
        return tf.reshape(pixels, tf.stack([end - first, columns]))

    def png() -> tf.Tensor:
        encoded = tf.strings.substr(record["images"], start, size)
        image = tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)[..., 0]
        shape, expected = tf.shape(image, tf.int64), tf.stack([height, columns])
        rule = "A PNG image must be of `slices/rows` x `slices/columns` pixels. Received:"
        is_whole = tf.reduce_all(tf.equal(shape, expected))
        with tf.control_dependencies([tf.debugging.Assert(is_whole, [rule, shape, "for", expected])]):
            return image[first:end]

    return tf.cond(tf.equal(record["codec"], PixelEncoding.RAW.value), raw, png)
