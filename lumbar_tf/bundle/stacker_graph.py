"""Stacker in the graph: the TensorFlow equivalents of the formulas in `ensemble`."""

import numpy as np
import tensorflow as tf

from lumbar_tf.ensemble.features import MIN_PROBABILITY, NEIGHBOURS
from lumbar_tf.ensemble.intervals import FAMILY_OF, SMALLEST, VarianceTables, variance_tables
from lumbar_tf.ensemble.prediction_sets import SMALLEST as SMALLEST_THRESHOLD
from lumbar_tf.ensemble.stacker import FamilyStacker, Head, StackerCoefficients, family_findings
from lumbar_tf.labels import NUM_FINDINGS, NUM_SEVERITIES, Severity


def stack_predictions(
    stacker: StackerCoefficients, log_probabilities: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies a stacker to the predictions of its members; `stacker.apply_stacker` is the NumPy equivalent.

    Args:
        stacker: a fitted stacker.
        log_probabilities: of the members, float32 [member, study, 25, 3], NaN where missing.

    Returns:
        probability and competition float32 [study, 25, 3], and the pattern of available sources
        int32 [study, 25].
    """
    features, is_finite = centred_features(log_probabilities)
    context = _context(stacker, features, is_finite)
    columns: dict[Head, dict[int, tf.Tensor]] = {head: {} for head in Head}
    patterns: dict[int, tf.Tensor] = {}
    for family in stacker.families:
        rows, levels = family_findings(family.family)
        members = tf.constant(stacker.member_indices(family.family), tf.int32)
        mine = tf.gather(tf.gather(features, members, axis=0), rows, axis=2)
        is_there = tf.gather(tf.gather(is_finite[..., 0], members, axis=0), rows, axis=2)
        pattern = _pattern(family, is_there)
        mine = tf.where(is_there[..., tf.newaxis], mine, _mean_of_present(mine, is_there[..., tf.newaxis]))
        around = tf.gather(context, rows, axis=1)
        for head, fitted in family.heads.items():
            weights = tf.gather(tf.constant(fitted.weights, tf.float32), pattern)
            bias = tf.gather_nd(
                tf.constant(fitted.bias, tf.float32),
                tf.stack(
                    [pattern, tf.broadcast_to(tf.constant(levels, tf.int32), tf.shape(pattern))], axis=-1
                ),
            )
            logits = tf.einsum("srmij,msrj->sri", weights, mine) + bias
            if fitted.context.any():
                beside = tf.gather(tf.constant(fitted.context, tf.float32), pattern)
                logits += tf.einsum("srkij,srkj->sri", beside, around)
            values = tf.nn.softmax(logits)
            columns[head].update({row: values[:, place] for place, row in enumerate(rows)})
        patterns.update({row: pattern[:, place] for place, row in enumerate(rows)})
    heads = {head: tf.stack([columns[head][row] for row in range(NUM_FINDINGS)], axis=1) for head in Head}
    return (
        heads[Head.PROBABILITY],
        heads[Head.COMPETITION],
        tf.stack([patterns[row] for row in range(NUM_FINDINGS)], axis=1),
    )


def _mean_of_present(features: tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
    """Returns the mean over axis 0 of features [member, ..., 3] that are 0 where missing; 0 where all are."""
    counts = tf.reduce_sum(tf.cast(is_there, tf.float32), axis=0)
    return tf.reduce_sum(features, axis=0) / tf.maximum(counts, 1.0)


def _context(stacker: StackerCoefficients, features: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
    """Returns float32 [study, 25, slot, 3]; `features.context_features` is the NumPy equivalent."""
    is_known = tf.reduce_any(is_finite, axis=0)
    unusual = _mean_of_present(features, is_finite) - tf.constant(stacker.context_centre, tf.float32)
    unusual = tf.where(is_known, unusual, 0.0)
    return tf.einsum("kij,sjc->sikc", tf.constant(NEIGHBOURS, tf.float32), unusual)


def _pattern(family: FamilyStacker, is_there: tf.Tensor) -> tf.Tensor:
    """Returns the pattern of available sources, int32 [study, row], from bool [member, study, row]."""
    pattern = tf.zeros(tf.shape(is_there)[1:], tf.int32)
    for source in range(len(family.sources)):
        mine = [place for place, member_source in enumerate(family.member_sources) if member_source == source]
        pattern += tf.cast(tf.reduce_any(tf.gather(is_there, mine, axis=0), axis=0), tf.int32) * (1 << source)
    return pattern


def centred_features(log_probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the features x of `ensemble.stacker`, 0 where missing, and whether they are present.

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
    """Returns the bounds of `probability`; `ensemble.intervals` has the formula and the notation.

    Args:
        stacker: a fitted stacker.
        log_probabilities: of the members, float32 [member, study, 25, 3], NaN where missing.
        probability: output of the stacker, float32 [study, 25, 3].
        pattern: of available sources, int32 [study, 25].

    Returns:
        float32 [study, 25, 3, 2], lower and upper; NaN where fewer than two members have a prediction.
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


def find_prediction_sets(
    stacker: StackerCoefficients, probability: tf.Tensor, pattern: tf.Tensor
) -> tf.Tensor:
    """Returns the prediction sets; `stacker.find_sets` is the NumPy equivalent.

    Args:
        stacker: a fitted stacker.
        probability: output of the stacker, float32 [study, 25, 3].
        pattern: of available sources, int32 [study, 25].

    Returns:
        Which grades are in the set of each finding, bool [study, 25, 3]; none in a family without thresholds.
    """
    parts = [part.set_thresholds for part in stacker.families]
    size = max(part.num_patterns for part in stacker.families)
    thresholds = np.zeros((len(parts), size, NUM_SEVERITIES), np.float32)
    for place, part in enumerate(parts):
        if part is not None:
            thresholds[place, : len(part.thresholds)] = part.thresholds
    is_fitted = np.array([parts[place] is not None for place in FAMILY_OF])[:, np.newaxis]
    places = tf.broadcast_to(tf.constant(FAMILY_OF, tf.int32), tf.shape(pattern))
    own = tf.gather_nd(tf.constant(thresholds), tf.stack([places, pattern], axis=-1))
    ratios = tf.maximum(probability, SMALLEST_THRESHOLD) / tf.maximum(own, SMALLEST_THRESHOLD)
    inside = ratios >= tf.minimum(1.0, tf.reduce_max(ratios, axis=-1, keepdims=True))
    normal, moderate, severe = (inside[..., grade] for grade in Severity)
    # Moderate fills the gap between the two others.
    filled = tf.stack([normal, moderate | (normal & severe), severe], axis=-1)
    return tf.ensure_shape(filled & tf.constant(is_fitted), [None, NUM_FINDINGS, NUM_SEVERITIES])


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
