"""The order of studies in training: full epochs without end, a function of seed and epoch alone."""

import tensorflow as tf

from lumbar_tf.config import TrainingConfig

#: Any but 0, which TensorFlow compares with a seed's value when it has none yet.
_ORDER_SEED = 1


def epoch_batches(num_studies: int, batch_studies: int) -> int:
    """Returns how many full batches an epoch has; a cohort smaller than a batch is one batch.

    >>> epoch_batches(10, 4), epoch_batches(3, 4)
    (2, 1)
    """
    return num_studies // min(batch_studies, num_studies)


def epoch_studies(training: TrainingConfig, num_studies: int) -> int:
    """Returns how many studies the full batches of an epoch hold."""
    return epoch_batches(num_studies, training.batch_studies) * min(training.batch_studies, num_studies)


def with_seeds(dataset: tf.data.Dataset, seed: int, start: int) -> tf.data.Dataset:
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


def shuffled(
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
    length = epoch_studies(training, num_studies)

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
