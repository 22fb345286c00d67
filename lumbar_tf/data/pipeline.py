"""tf.data: from record shards to batches of whole studies with static shapes.

Two stages: the first reads, parses and decodes just the slices that are needed (and can be kept in
memory), the second warps and cuts. Training and evaluation have makers of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import CropConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.data.anchors import CropLayout, anchor_points
from lumbar_tf.data.augment import augment_crops, mix_studies, random_intensity, random_warp
from lumbar_tf.data.augment.draws import Draw, stream
from lumbar_tf.data.crops import (
    Crops,
    Record,
    cut_crops,
    identity_warp,
    keep_slices,
    select_slices,
)
from lumbar_tf.data.fields import Field, FieldSpec, cut_field, select_stack
from lumbar_tf.data.label_mask import mask_labels
from lumbar_tf.labels import NUM_FINDINGS, NUM_SEVERITIES
from lumbar_tf.records.parsing import read_dataset

Points = NDArray[np.float32]

#: Slices decoded beyond a crop's own on either side, so that a jittered landmark finds its slice.
_SLACK_SLICES = 1
#: Any but 0, which TensorFlow compares with a seed's value when it has none yet.
_ORDER_SEED = 1


@dataclass(frozen=True)
class RecordSource:
    """Which records to read.

    Attributes:
        shards: TFRecord files of one plane.
        study_ids: the studies wanted; all others are passed over.
    """

    shards: tuple[Path, ...]
    study_ids: tuple[str, ...]


def _records(source: RecordSource) -> tf.data.Dataset:
    """Yields parsed records of the wanted studies that have at least one slice."""
    wanted = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(source.study_ids or ("",)), tf.ones(max(len(source.study_ids), 1), tf.int64)
        ),
        default_value=0,
    )
    return read_dataset(source.shards).filter(
        lambda record: (wanted.lookup(record["study_id"]) > 0) & (tf.size(record["slices/group"]) > 0)
    )


def read_points(source: RecordSource) -> dict[str, Points]:
    """Returns the annotated points of the studies, float32 [25, 3] by study, LPS mm, NaN missing."""
    records = _records(source).map(lambda record: (record["study_id"], record["points"]))
    return {study.decode(): points for study, points in records.as_numpy_iterator()}


def _attach_points(points: Mapping[str, Points]) -> Callable[[Record], Record]:
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


def _keep_for_crops(record: Record, layout: CropLayout, crop: CropConfig, *, slack: int) -> Record:
    """Decodes the slices that the crops around `landmarks` need."""
    anchors = anchor_points(record["landmarks"], layout)
    selection = select_slices(
        record,
        anchors,
        num_slices=crop.num_slices + 2 * slack,
        max_distance_mm=crop.max_distance_mm + 20.0 * slack,
        plane=layout.plane,
        reverse=tf.zeros(len(layout.sides), tf.bool),
    )
    index = tf.boolean_mask(selection.index, selection.mask)
    # A study without a single usable landmark still needs a slice to keep shapes whole.
    index = tf.cond(tf.size(index) > 0, lambda: index, lambda: tf.zeros(1, tf.int32))
    return {**keep_slices(record, index), **_passed_on(record, "labels", "landmarks", "study_id")}


def _keep_for_field(record: Record, num_slices: int) -> Record:
    """Decodes the slices that the localizer looks at."""
    index, mask = select_stack(record, num_slices)
    kept = keep_slices(record, tf.boolean_mask(index, mask))
    return {**kept, **_passed_on(record, "points", "study_id")}


def _passed_on(record: Record, *keys: str) -> Record:
    return {key: record[key] for key in keys}


def study_crops(
    record: Record, landmarks: tf.Tensor, layout: CropLayout, crop: CropConfig
) -> dict[str, tf.Tensor]:
    """Cuts one study's crops as evaluation and the exported graph see them.

    Args:
        record: parsed record with at least one slice.
        landmarks: float32 [25, 3], LPS mm, NaN where unknown.
        layout: the plane's layout.
        crop: size.

    Returns:
        The grader's inputs; see `grader_inputs`.
    """
    kept = _keep_for_crops({**record, "landmarks": landmarks}, layout, crop, slack=0)
    return grader_inputs(_plain_crops(kept, layout, crop))


def _plain_crops(kept: Record, layout: CropLayout, crop: CropConfig) -> Crops:
    return cut_crops(
        kept,
        anchor_points(kept["landmarks"], layout),
        config=crop,
        plane=layout.plane,
        sides=layout.sides,
        warp=identity_warp(),
    )


def study_field(record: Record, spec: FieldSpec) -> dict[str, tf.Tensor]:
    """Cuts one study's field as evaluation and the exported graph see it.

    Args:
        record: parsed record with at least one slice.
        spec: the field.

    Returns:
        The localizer's inputs; see `localizer_inputs`.
    """
    return localizer_inputs(
        cut_field(_keep_for_field(record, spec.num_slices), spec=spec, warp=identity_warp())
    )


def _prefer_annotated(record: Record) -> Record:
    """Trains around the annotator's point where there is one, else around the predicted one."""
    points = record["points"]
    return {**record, "landmarks": tf.where(tf.math.is_finite(points), points, record["landmarks"])}


def epoch_batches(num_studies: int, batch_studies: int) -> int:
    """Returns how many full batches an epoch has; a cohort smaller than a batch is one batch.

    >>> epoch_batches(10, 4), epoch_batches(3, 4)
    (2, 1)
    """
    return num_studies // min(batch_studies, num_studies)


def _epoch_studies(training: TrainingConfig, num_studies: int) -> int:
    """Returns how many studies the full batches of an epoch hold."""
    return epoch_batches(num_studies, training.batch_studies) * min(training.batch_studies, num_studies)


def _with_seeds(dataset: tf.data.Dataset, seed: int, start: int) -> tf.data.Dataset:
    """Pairs each element with a seed int32 [2] that depends on `seed` and on its place in the run alone.

    Args:
        dataset: elements of the run from place `start` on.
        seed: of the run.
        start: place of the first element.
    """

    def number(place: tf.Tensor) -> tf.Tensor:
        drawn = tf.random.stateless_uniform(
            [], tf.stack([tf.constant(seed, tf.int64), place]), 0, 2_000_000_000, tf.int32
        )
        return tf.stack([drawn, seed])

    return tf.data.Dataset.zip(dataset, tf.data.Dataset.counter(start).map(number))


def _shuffled(
    dataset: tf.data.Dataset, training: TrainingConfig, num_studies: int, seed: int, start_epoch: int
) -> tf.data.Dataset:
    """Full epochs without end, from `start_epoch` on, each in an order of its own.

    An order depends on seed and epoch alone, so that a run that is taken up again at an epoch sees what an
    undisturbed one sees, and nothing has to be read to get there. What does not fill the last batch of an
    epoch is left out of it; the next order leaves out others.
    """
    if training.cache:
        dataset = dataset.cache()
    # Decoded studies are megabytes each: a bounded buffer keeps memory flat as a cohort grows. One place
    # more than there are studies: a cache is kept only where its end was seen.
    buffer = num_studies + 1 if training.cache else min(num_studies, 64)
    length = _epoch_studies(training, num_studies)

    def shuffle(epoch: tf.Tensor, again: tf.Tensor) -> tf.data.Dataset:
        # Of this function's own graph: the order must not depend on a seed that others set for the process.
        tf.random.set_seed(_ORDER_SEED)
        drawn = tf.random.stateless_uniform(
            [], tf.stack([tf.constant(seed, tf.int64), epoch]), 1, 1 << 62, tf.int64
        )
        return dataset.shuffle(buffer, seed=drawn + again)

    def fill(epoch: tf.Tensor) -> tf.data.Dataset:
        # Studies without a slice are not there: where that leaves an epoch short, others come again.
        again = tf.data.Dataset.range(length)
        return again.flat_map(lambda number: shuffle(epoch, number)).take(length)

    return tf.data.Dataset.counter(start_epoch).flat_map(fill)


def _batched(dataset: tf.data.Dataset, batch_studies: int, *, drop_remainder: bool) -> tf.data.Dataset:
    return dataset.batch(batch_studies, drop_remainder=drop_remainder).prefetch(tf.data.AUTOTUNE)


def grader_inputs(crops: Crops) -> dict[str, tf.Tensor]:
    """Returns the grader's inputs: image [P, S, H, W], mask [P, S], offset_mm [P, S]."""
    return {"image": crops.image, "mask": crops.mask, "offset_mm": crops.offset_mm}


def severity_targets(labels: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns one-hot targets of the answered rows, float32 [rows, 3], all zeros where the label is missing.

    Args:
        labels: integers [25], -1 for missing.
        layout: the plane's layout.
    """
    return tf.one_hot(tf.gather(tf.cast(labels, tf.int32), layout.rows), NUM_SEVERITIES)


def localizer_inputs(field: Field) -> dict[str, tf.Tensor]:
    """Returns the localizer's inputs, named as the fields of `Field`."""
    return dict(field._asdict())


def make_grader_train_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    layout: CropLayout,
    crop: CropConfig,
    training: TrainingConfig,
    jitter_mm: Sequence[float],
    seed: int,
    start_epoch: int = 0,
    hidden: Mapping[str, NDArray[np.bool_]] | None = None,
) -> tf.data.Dataset:
    """Batches of augmented crops of whole studies.

    Args:
        source: the training folds.
        points: predicted landmarks by study, used where the annotator gave none.
        layout: crops and rows.
        crop: size.
        training: batch size, cache and augmentation.
        jitter_mm: standard deviation of the landmark jitter along x, y, z (LPS).
        seed: of order and augmentation.
        start_epoch: the first epoch that is wanted; its batches are those of a run from epoch 0 on.
        hidden: labels that training does not see, bool [25] by study; see `mask_labels`.

    Returns:
        Dataset of (inputs, targets): inputs as `grader_inputs` with a leading study axis, targets float32
        [study, rows, 3] as `severity_targets` gives them, soft where crops are mixed. Batches are full and
        never end.
    """
    sigma = tf.constant(jitter_mm, tf.float32)

    def augment(record: Record, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        anchors = anchor_points(record["landmarks"], layout)
        jitter = tf.random.stateless_normal(tf.shape(anchors), stream(number, Draw.JITTER))
        moved = anchors + sigma * jitter
        crops = cut_crops(
            record,
            moved,
            config=crop,
            plane=layout.plane,
            sides=layout.sides,
            warp=random_warp(number, training.augmentation),
        )
        crops = augment_crops(crops, number, training.augmentation)
        return grader_inputs(crops), severity_targets(record["labels"], layout), number

    def mix(
        inputs: dict[str, tf.Tensor], targets: tf.Tensor, numbers: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        # A batch mixes by its first study's number: that depends on the place in the run alone, too.
        return mix_studies(inputs, targets, numbers[0], training.augmentation, layout=layout)

    dataset = _records(source).map(mask_labels(hidden or {}))
    dataset = dataset.map(_attach_points(points)).map(_prefer_annotated)
    dataset = dataset.map(
        lambda record: _keep_for_crops(record, layout, crop, slack=_SLACK_SLICES),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    dataset = _shuffled(dataset, training, len(source.study_ids), seed, start_epoch)
    start = start_epoch * _epoch_studies(training, len(source.study_ids))
    dataset = _with_seeds(dataset, seed, start).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(min(training.batch_studies, len(source.study_ids)), drop_remainder=True)
    return dataset.map(mix, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def make_grader_eval_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    layout: CropLayout,
    crop: CropConfig,
    batch_studies: int,
) -> tf.data.Dataset:
    """Batches of plain crops at the given (predicted) landmarks.

    Returns:
        Dataset of (inputs, targets, study_id), targets as `severity_targets` gives them, in an order that
        depends on the files alone; the last batch may be smaller.
    """

    def cut(record: Record) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        targets = severity_targets(record["labels"], layout)
        return study_crops(record, record["landmarks"], layout, crop), targets, record["study_id"]

    dataset = _records(source).map(_attach_points(points))
    dataset = dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return _batched(dataset, batch_studies, drop_remainder=False)


def field_spec(config: LocalizerConfig) -> FieldSpec:
    """Returns the field that a localizer's configuration names."""
    return FieldSpec(
        config.side_mm, config.side_px, config.supersample, config.num_slices, config.covers_image
    )


def make_localizer_train_dataset(
    source: RecordSource, *, rows: Sequence[int], config: LocalizerConfig, seed: int, start_epoch: int = 0
) -> tf.data.Dataset:
    """Batches of augmented fields with the annotated points; see `make_grader_train_dataset`.

    Returns:
        Dataset of (inputs, points): inputs as `localizer_inputs` with a leading study axis, points
        float32 [study, rows, 3], LPS mm, NaN where nobody annotated. Batches are full and never end.
    """
    spec, training = field_spec(config), config.training

    def augment(record: Record, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        field = cut_field(record, spec=spec, warp=random_warp(number, training.augmentation))
        image = random_intensity(field.image, number, training.augmentation)
        image = tf.where(field.mask[:, tf.newaxis, tf.newaxis], image, 0.0)
        return localizer_inputs(field._replace(image=image)), tf.gather(record["points"], list(rows))

    dataset = _records(source)
    dataset = dataset.map(
        lambda record: _keep_for_field(record, config.num_slices), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = _shuffled(dataset, training, len(source.study_ids), seed, start_epoch)
    start = start_epoch * _epoch_studies(training, len(source.study_ids))
    dataset = _with_seeds(dataset, seed, start).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return _batched(dataset, min(training.batch_studies, len(source.study_ids)), drop_remainder=True)


def make_localizer_eval_dataset(
    source: RecordSource, *, rows: Sequence[int], config: LocalizerConfig, batch_studies: int
) -> tf.data.Dataset:
    """Batches of plain fields.

    Returns:
        Dataset of (inputs, points, study_id), in an order that depends on the files alone; the last
        batch may be smaller.
    """
    spec = field_spec(config)

    def cut(record: Record) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        return study_field(record, spec), tf.gather(record["points"], list(rows)), record["study_id"]

    dataset = _records(source).map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return _batched(dataset, batch_studies, drop_remainder=False)
