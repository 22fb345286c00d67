"""Which records a dataset is made of, and the points that belong to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import NUM_FINDINGS
from lumbar_tf.records.parsing import records_dataset

Points = NDArray[np.float32]


@dataclass(frozen=True)
class RecordSource:
    """Which records to read.

    Attributes:
        shards: TFRecord files of one plane.
        study_ids: the studies wanted; all others are passed over.
    """

    shards: tuple[Path, ...]
    study_ids: tuple[str, ...]


def wanted_records(source: RecordSource) -> tf.data.Dataset:
    """Yields parsed records of the wanted studies that have at least one slice."""
    wanted = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(source.study_ids or ("",)), tf.ones(max(len(source.study_ids), 1), tf.int64)
        ),
        default_value=0,
    )
    return records_dataset(source.shards).filter(
        lambda record: (wanted.lookup(record["study_id"]) > 0) & (tf.size(record["slices/group"]) > 0)
    )


def read_points(source: RecordSource) -> dict[str, Points]:
    """Returns the annotated points of the studies, float32 [25, 3] by study, LPS mm, NaN missing."""
    records = wanted_records(source).map(lambda record: (record["study_id"], record["points"]))
    return {study.decode(): points for study, points in records.as_numpy_iterator()}


def attach_points(points: Mapping[str, Points]) -> Callable[[Record], Record]:
    """Makes the function that adds `landmarks`, float32 [25, 3], LPS mm, NaN where unknown."""
    ids = list(points) or [""]
    table = np.full((len(ids) + 1, NUM_FINDINGS, 3), np.nan, np.float32)
    for place, study_id in enumerate(points, start=1):
        table[place] = points[study_id]
    values = tf.constant(table)
    places = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(ids), tf.range(1, len(ids) + 1)), default_value=0
    )

    def attach(record: Record) -> Record:
        return {**record, "landmarks": values[places.lookup(record["study_id"])]}

    return attach
