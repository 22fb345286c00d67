"""The intervals in the graph: the twin of `intervals.py`, whose formula and names these are."""

import numpy as np
import tensorflow as tf

from lumbar_tf.ensemble.features import MIN_PROBABILITY, NEIGHBOURS
from lumbar_tf.ensemble.intervals import FAMILY_OF, SMALLEST, VarianceTables, variance_tables
from lumbar_tf.ensemble.stacker import StackerCoefficients
from lumbar_tf.labels import NUM_FINDINGS, NUM_SEVERITIES


def centred_features(log_probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns x of `stacking.py`, 0 where missing, and where it is not.

    Args:
        log_probabilities: float32 [member, study, 25, 3], NaN where missing.

    Returns:
        float32 [member, study, 25, 3], and bool [member, study, 25, 1].
    """
    is_there = tf.reduce_all(tf.math.is_finite(log_probabilities), axis=-1, keepdims=True)
    clipped = tf.maximum(tf.where(is_there, log_probabilities, 0.0), float(np.log(MIN_PROBABILITY)))
    return clipped - tf.reduce_mean(clipped, axis=-1, keepdims=True), is_there


def find_intervals(
    stacker: StackerCoefficients, log_probabilities: tf.Tensor, probability: tf.Tensor, pattern: tf.Tensor
) -> tf.Tensor:
    """Returns the bounds of the head `probability`.

    Args:
        stacker: a fitted stacker.
        log_probabilities: of the members, float32 [member, study, 25, 3], NaN where missing.
        probability: the stacker's answers, float32 [study, 25, 3].
        pattern: of available sources, int32 [study, 25].

    Returns:
        float32 [study, 25, 3, 2], lower and upper; NaN where fewer than two members answer.
    """
    tables = variance_tables(stacker)
    places = tf.broadcast_to(tf.constant(FAMILY_OF, tf.int32), tf.shape(pattern))
    where = tf.stack([places, pattern], axis=-1)
    odds, squares, counts = _deviations(tables, where, log_probabilities, probability)

    def look_up(table: np.ndarray) -> tf.Tensor:
        return tf.gather_nd(tf.constant(table, tf.float32), where)

    size = tf.cast(counts, tf.float32)[..., tf.newaxis]
    bounds, log_variance, freedom = (
        look_up(table) for table in (tables.bounds, tables.log_variance, tables.freedom)
    )
    clipped = tf.clip_by_value(odds, bounds[..., 0], bounds[..., 1])
    usual = tf.exp(log_variance[..., 0] + clipped * (log_variance[..., 1] + clipped * log_variance[..., 2]))
    variance = (freedom * usual + size**2 * squares) / tf.maximum(freedom + size - 1, 1.0)
    by_count = tf.concat([where, counts[..., tf.newaxis]], axis=-1)
    quantiles = tf.gather_nd(tf.constant(tables.quantiles, tf.float32), by_count)
    reach = quantiles * tf.sqrt(2 * variance / tf.maximum(size, 1.0))
    bounds = tf.stack([tf.sigmoid(odds - reach), tf.sigmoid(odds + reach)], axis=-1)
    return tf.ensure_shape(bounds, [None, NUM_FINDINGS, NUM_SEVERITIES, 2])


def _deviations(
    tables: VarianceTables, where: tf.Tensor, log_probabilities: tf.Tensor, probability: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns l and the sum of v^2, float32 [study, 25, 3], and M, int32 [study, 25].

    Args:
        tables: of the stacker.
        where: family and pattern, int32 [study, 25, 2].
        log_probabilities: see `find_intervals`.
        probability: likewise.
    """
    features, is_known = centred_features(log_probabilities)
    is_there = tf.transpose(is_known[..., 0], [1, 2, 0]) & tf.constant(tables.covers)
    there = tf.cast(is_there, tf.float32)[..., tf.newaxis]
    features = tf.transpose(features, [1, 2, 0, 3]) * there
    counts = tf.reduce_sum(tf.cast(is_there, tf.int32), axis=-1)
    size = tf.maximum(tf.cast(counts, tf.float32), 1.0)[..., tf.newaxis]
    mean = tf.reduce_sum(features, axis=2) / size
    terms = tf.concat([tf.ones_like(mean[..., :1]), mean], axis=-1)
    bias = tf.einsum("simab,sib->sima", tf.gather_nd(tf.constant(tables.bias, tf.float32), where), terms)
    own = (features - mean[:, :, tf.newaxis] - bias) * there
    weights = tf.gather_nd(tf.constant(tables.weights, tf.float32), where)
    spare = tf.reduce_sum(weights * (1 - there)[..., tf.newaxis], axis=2) / size[..., tf.newaxis]
    changes = tf.einsum("simab,simb->sima", weights + spare[:, :, tf.newaxis], own)
    if tables.context.any():
        shared = own / size[..., tf.newaxis]
        around = tf.einsum("kij,sjmc->sikmc", tf.constant(NEIGHBOURS, tf.float32), shared)
        beside = tf.gather_nd(tf.constant(tables.context, tf.float32), where)
        changes += tf.einsum("sikab,sikmb->sima", beside, around)
    kept = tf.maximum(probability, SMALLEST)
    others = kept[..., tf.newaxis, :] * (1 - tf.eye(NUM_SEVERITIES))
    rest = tf.reduce_sum(others, axis=-1)
    changes -= tf.einsum("sick,simk->simc", others / rest[..., tf.newaxis], changes)
    return tf.math.log(kept) - tf.math.log(rest), tf.reduce_sum(changes**2, axis=2), counts
