"""Records of selected studies, with their landmarks and label masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS
from lumbar_tf.records.parsing import read_parsed_record
from lumbar_tf.records.positions import RecordPosition, find_records

Points = NDArray[np.float32]

#: Decorates functions that datasets map over. Autograph would convert all that they call, which takes longer
#: than tracing it, and none of it has a Python condition or loop over tensors.
without_autograph = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class RecordSource:
    """Selection of records.

    Attributes:
        shards: TFRecord files of one plane.
        study_ids: studies to read; all others are skipped.
    """

    shards: tuple[Path, ...]
    study_ids: tuple[str, ...]


def find_wanted(source: RecordSource) -> list[RecordPosition]:
    """Returns the positions of the records of a source that have at least one slice."""
    wanted = set(source.study_ids)
    return [
        position
        for position in find_records(source.shards)
        if position.has_slices and position.study_id in wanted
    ]


def record_reader(positions: Sequence[RecordPosition]) -> Callable[[tf.Tensor], Record]:
    """Returns a function that reads and parses the record of a place in `positions`, int64 []."""
    paths = tf.constant([str(position.path) for position in positions], tf.string)
    offsets = tf.constant([position.offset for position in positions], tf.int64)

    def read(place: tf.Tensor) -> Record:
        return read_parsed_record(paths[place], offsets[place])

    return read


def wanted_records(source: RecordSource) -> tf.data.Dataset:
    """Returns a dataset of the parsed records of a source that have at least one slice."""
    positions = find_wanted(source)
    read = without_autograph(record_reader(positions))
    return tf.data.Dataset.range(len(positions)).map(read, num_parallel_calls=tf.data.AUTOTUNE)


def read_points(source: RecordSource) -> dict[str, Points]:
    """Returns the annotated points of the studies, float32 [25, 3] by study, LPS mm, NaN where missing."""
    records = wanted_records(source).map(lambda record: (record["study_id"], record["points"]))
    return {study.decode(): points for study, points in records.as_numpy_iterator()}


def attach_points(points: Mapping[str, Points]) -> Callable[[Record], Record]:
    """Returns a function that adds `landmarks`, float32 [25, 3], LPS mm, NaN where unknown, to a record.

    Args:
        points: float32 [25, 3] by study.
    """
    lookup = _study_lookup(points, np.full((NUM_FINDINGS, 3), np.nan, np.float32))

    def attach(record: Record) -> Record:
        return {**record, "landmarks": lookup(record["study_id"])}

    return attach


def mask_labels(hidden: Mapping[str, NDArray[np.bool_]]) -> Callable[[Record], Record]:
    """Returns a function that sets labels of a record to missing; the other features are unchanged.

    For training only, before studies are mixed (mixup, cutmix) and labels become targets.

    Args:
        hidden: bool [25] by study, True for a label to hide; other studies keep all labels.

    Returns:
        Function from a record with `study_id` and `labels` [25] to one with labels of the same dtype,
        `MISSING_LABEL` where hidden.

    Raises:
        ValueError: an array is not of shape [25].
    """
    lookup = _study_lookup(hidden, np.zeros(NUM_FINDINGS, np.bool_))

    def mask(record: Record) -> Record:
        labels = record["labels"]
        missing = tf.cast(MISSING_LABEL, labels.dtype)
        return {**record, "labels": tf.where(lookup(record["study_id"]), missing, labels)}

    return mask


def _study_lookup(
    values: Mapping[str, NDArray[np.generic]], default: NDArray[np.generic]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from a study_id to its value; `default` has the shape and dtype of all values."""
    ids = list(values) or [""]
    table = np.stack([default] * (len(ids) + 1))
    for place, study_id in enumerate(values, start=1):
        value = np.asarray(values[study_id])
        if value.shape != default.shape:
            raise ValueError(
                f"Values of a study must have the shape {default.shape}. "
                f"Received: {value.shape} (study {study_id})."
            )
        table[place] = value
    rows = tf.constant(table)
    # Row 0 is the default.
    places = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(ids), tf.range(1, len(ids) + 1)), default_value=0
    )
    return lambda study_id: rows[places.lookup(study_id)]
