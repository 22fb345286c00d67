"""Batches of whole studies: order, seeds, augmentation, batching and prefetching.

The localizers and the graders share these two functions: `training_batches` and `evaluation_batches`. A
network's own dataset supplies the functions that decode, cut and augment one study.
"""

from collections.abc import Callable

import tensorflow as tf

from lumbar_tf.config import TrainingConfig
from lumbar_tf.inputs.crops import mask_slices
from lumbar_tf.inputs.record_source import (
    RecordSource,
    find_wanted,
    record_reader,
    wanted_records,
    without_autograph,
)
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.inputs.study_cache import is_cache_chosen

#: Any number but 0, which TensorFlow takes for an absent seed.
_ORDER_SEED = 1

#: Inputs of a network and its targets; inputs contain `image` float32 [..., H, W] and `mask` bool [...].
InputsAndTargets = tuple[dict[str, tf.Tensor], tf.Tensor]


def training_batches(
    source: RecordSource,
    *,
    prepare: Callable[[Record], Record],
    augment: Callable[[Record, tf.Tensor], InputsAndTargets],
    mix: Callable[[dict[str, tf.Tensor], tf.Tensor, tf.Tensor], InputsAndTargets] | None = None,
    training: TrainingConfig,
    seed: int,
    start_epoch: int,
) -> tf.data.Dataset:
    """Returns shuffled, augmented batches of whole studies, of static shape and without end.

    Every batch is a function of `seed` and its position in the run, so a run that resumes at an epoch sees
    the batches of an uninterrupted one.

    Args:
        source: training studies.
        prepare: decodes a parsed record; its results may be kept in memory, see `training.cache`.
        augment: cuts the inputs and targets of one study from a prepared record and a seed, int32 [2]. Masked
            slices are set to 0 afterwards.
        mix: mixes the studies of a batch of inputs and targets by a seed; None does not mix.
        training: batch size and cache.
        seed: seed of order and augmentation.
        start_epoch: first epoch, counted from 0.

    Returns:
        Dataset of (inputs, targets) with a leading study axis. All batches are full.
    """
    num_studies = len(source.study_ids)

    @without_autograph
    def augment_study(
        record: Record, study_seed: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        inputs, targets = augment(record, study_seed)
        image = mask_slices(inputs["image"], inputs["mask"])
        return {**inputs, "image": image}, targets, study_seed

    @without_autograph
    def finish_batch(
        inputs: dict[str, tf.Tensor], targets: tf.Tensor, study_seeds: tf.Tensor
    ) -> InputsAndTargets:
        # The first study's seed is as reproducible as the batch's position.
        return (inputs, targets) if mix is None else mix(inputs, targets, study_seeds[0])

    positions = find_wanted(source)
    read = record_reader(positions)

    @without_autograph
    def read_prepared(place: tf.Tensor) -> Record:
        return prepare(read(place))

    places, length = tf.data.Dataset.range(len(positions)), studies_per_epoch(training, num_studies)
    if is_cache_chosen(training.cache, positions, read_prepared):
        records = places.map(read_prepared, num_parallel_calls=tf.data.AUTOTUNE).cache()
        dataset = shuffle_studies(records, len(positions), length, seed, start_epoch)
    else:
        places = shuffle_studies(places, len(positions), length, seed, start_epoch)
        dataset = places.map(read_prepared, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = with_seeds(dataset, seed, start_epoch * studies_per_epoch(training, num_studies))
    dataset = dataset.map(augment_study, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(min(training.batch_studies, num_studies), drop_remainder=True)
    return dataset.map(finish_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    source: RecordSource, *, cut: Callable[[Record], InputsAndTargets], batch_studies: int
) -> tf.data.Dataset:
    """Returns batches of whole studies without augmentation, each study once.

    Args:
        source: studies.
        cut: decodes a parsed record and cuts its inputs and targets.
        batch_studies: batch size.

    Returns:
        Dataset of (inputs, targets, study_id) in the order of the files; the last batch may be smaller.
    """

    @without_autograph
    def cut_study(record: Record) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        inputs, targets = cut(record)
        return inputs, targets, record["study_id"]

    dataset = wanted_records(source).map(cut_study, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_studies).prefetch(tf.data.AUTOTUNE)


def batches_per_epoch(num_studies: int, batch_studies: int) -> int:
    """Returns the number of full batches in an epoch; a cohort smaller than a batch is one batch.

    >>> batches_per_epoch(10, 4), batches_per_epoch(3, 4)
    (2, 1)
    """
    return num_studies // min(batch_studies, num_studies)


def studies_per_epoch(training: TrainingConfig, num_studies: int) -> int:
    """Returns the number of studies in the full batches of an epoch."""
    return batches_per_epoch(num_studies, training.batch_studies) * min(training.batch_studies, num_studies)


def with_seeds(dataset: tf.data.Dataset, seed: int, start: int) -> tf.data.Dataset:
    """Pairs each element with a seed, int32 [2], that depends only on `seed` and on its position in the run.

    Args:
        dataset: elements of the run from position `start` on.
        seed: seed of the run.
        start: position of the first element.
    """

    @without_autograph
    def element_seed(position: tf.Tensor) -> tf.Tensor:
        value = tf.random.stateless_uniform(
            [], tf.stack([tf.constant(seed, tf.int64), position]), 0, 2_000_000_000, tf.int32
        )
        return tf.stack([value, seed])

    return tf.data.Dataset.zip(dataset, tf.data.Dataset.counter(start).map(element_seed))


def shuffle_studies(
    studies: tf.data.Dataset, num_studies: int, length: int, seed: int, start_epoch: int
) -> tf.data.Dataset:
    """Returns epochs without end, from `start_epoch` on, each in its own order.

    The order depends only on the number of studies, the seed and the epoch: not on what the elements are, so
    that it is the same with and without a cache, and a resumed run sees the same studies without reading the
    earlier epochs. Studies that would not fill the last batch of an epoch are left out of it; other epochs
    leave out others.

    Args:
        studies: small elements, or cached ones, since all are held in memory.
        num_studies: their number.
        length: studies in an epoch; studies are repeated if there are fewer.
        seed: seed of the run.
        start_epoch: first epoch.
    """

    @without_autograph
    def shuffle(epoch: tf.Tensor, repetition: tf.Tensor) -> tf.data.Dataset:
        # Sets the seed of this function's graph, so that the order does not depend on the process's global
        # seed.
        tf.random.set_seed(_ORDER_SEED)
        epoch_seed = tf.random.stateless_uniform(
            [], tf.stack([tf.constant(seed, tf.int64), epoch]), 1, 1 << 62, tf.int64
        )
        # Larger than the number of studies, since a cache is complete only once its end was read.
        return studies.shuffle(num_studies + 1, seed=epoch_seed + repetition)

    @without_autograph
    def fill(epoch: tf.Tensor) -> tf.data.Dataset:
        # Studies without a slice are skipped; where that leaves an epoch short, other studies are repeated.
        repetitions = tf.data.Dataset.range(length)
        return repetitions.flat_map(lambda repetition: shuffle(epoch, repetition)).take(length)

    return tf.data.Dataset.counter(start_epoch).flat_map(fill)
