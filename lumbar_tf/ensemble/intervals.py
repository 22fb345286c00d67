"""Intervals around the stacker's predictions, from the variation between its members. NumPy only.

Definition: if the same networks were trained and stacked again, with other random seeds and the same labels,
the `probability` of that second ensemble would lie within the interval for 95% of the numbers (findings x
grades). With the M members that predict a finding, and the weights W and V of `stacker.py`,

    d_m  = x_m - mean of x - bias_m(mean of x)      deviation of a member beyond its systematic bias
    u_m  = W_m @ d_m + sum over slots of V_slot @ (context of d_m / M)
    v_mc = u_mc - mean of u_mk over the other grades k, weighted by their probabilities
           (the change of the log-odds l_c of grade c)
    s_c^2 = (f * exp(log_variance(l_c)) + M^2 * sum over m of v_mc^2) / (f + M - 1)
    interval = sigmoid(l_c +- t(97.5%, f + M - 1) * sqrt(2 / M) * s_c)

M^2 / (M - 1) * sum v^2 estimates one member's variance: the infinitesimal jackknife over members (Efron and
Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11). With few members the estimate is noisy, so
it is pooled with the variance of findings of similar log-odds, which counts as f degrees of freedom (Smyth
2004, "Linear models and empirical Bayes methods", section 4). The factor 2 is there because the second
ensemble varies as much as the first.

The interval covers the training randomness of the networks only. It does not cover errors that all members
share (their landmarks, their labels, whatever no network sees) or the disagreement between annotators, and it
is not a confidence interval of the true probability. A finding with fewer than two members has no interval
(NaN).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lumbar_tf.ensemble.features import NEIGHBOURS, NUM_SLOTS, is_available, member_features
from lumbar_tf.ensemble.stacker import (
    BIAS_TERMS,
    LOG_VARIANCE_TERMS,
    Head,
    Stacked,
    StackerCoefficients,
    apply_stacker,
)
from lumbar_tf.labels import FINDINGS, NUM_SEVERITIES, Family

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Nominal coverage of an interval.
LEVEL = 0.95
#: Lower bound of a probability before its logarithm, finite in float32 too.
SMALLEST = 1e-30
#: Index in `Family` of each finding's family.
FAMILY_OF = np.array([list(Family).index(finding.condition.family) for finding in FINDINGS])


@dataclass(frozen=True)
class Intervals:
    """Intervals around a stacker's predictions of the head `probability`.

    Attributes:
        low: lower bounds, float64 [num_studies, 25, 3], NaN where fewer than two members have a prediction.
        high: upper bounds, likewise.
        num_members: number of members with a prediction, int64 [num_studies, 25].
    """

    low: Floats
    high: Floats
    num_members: Ints


@dataclass(frozen=True)
class VarianceTables:
    """A stacker's coefficients as arrays indexed by family and pattern; the exported graph holds the same.

    Attributes:
        weights: W of the probability head, float64 [family, pattern, member, 3, 3], 0 where a member does
            not cover the family.
        context: V, float64 [family, pattern, slot, 3, 3].
        bias: bias of the members, float64 [family, pattern, member, 3, 4].
        log_variance: float64 [family, pattern, 3, 3].
        bounds: range of log-odds of `log_variance`, float64 [family, pattern, 3, 2].
        freedom: prior degrees of freedom, float64 [family, pattern, 3].
        quantiles: quantiles of Student's t by number of members, float64 [family, pattern, number, 3]; NaN
            below two members, and where the stacker has no `member_variance`.
        covers: whether a member covers a finding, bool [25, member].
    """

    weights: Floats
    context: Floats
    bias: Floats
    log_variance: Floats
    bounds: Floats
    freedom: Floats
    quantiles: Floats
    covers: NDArray[np.bool_]


def variance_tables(stacker: StackerCoefficients) -> VarianceTables:
    """Returns the tables of a fitted stacker."""
    size, num_members = max(part.num_patterns for part in stacker.families), len(stacker.members)
    head = (len(stacker.families), size)
    square = (NUM_SEVERITIES, NUM_SEVERITIES)
    tables = VarianceTables(
        weights=np.zeros((*head, num_members, *square)),
        context=np.zeros((*head, NUM_SLOTS, *square)),
        bias=np.zeros((*head, num_members, NUM_SEVERITIES, BIAS_TERMS)),
        log_variance=np.zeros((*head, NUM_SEVERITIES, LOG_VARIANCE_TERMS)),
        bounds=np.zeros((*head, NUM_SEVERITIES, 2)),
        freedom=np.zeros((*head, NUM_SEVERITIES)),
        quantiles=np.full((*head, num_members + 1, NUM_SEVERITIES), np.nan),
        covers=np.zeros((len(FINDINGS), num_members), np.bool_),
    )
    counts = np.arange(2, num_members + 1)[:, None]
    for place, part in enumerate(stacker.families):
        own, patterns = stacker.member_indices(part.family), slice(part.num_patterns)
        coefficients = part.heads[Head.PROBABILITY]
        tables.weights[place, patterns, own] = coefficients.weights.swapaxes(0, 1)
        tables.context[place, patterns] = coefficients.context
        for member in own:
            tables.covers[np.equal(FAMILY_OF, place), member] = True
        if part.member_variance is not None:
            tables.bias[place, patterns, own] = part.member_variance.bias.swapaxes(0, 1)
            tables.log_variance[place, patterns] = part.member_variance.log_variance
            tables.bounds[place, patterns] = part.member_variance.bounds
            tables.freedom[place, patterns] = part.member_variance.freedom
            freedom = part.member_variance.freedom[:, None] + counts - 1
            tables.quantiles[place, patterns, 2:] = stdtrit(freedom, 0.5 + LEVEL / 2)
    return tables


def member_deviations(
    tables: VarianceTables, stacked: Stacked, probabilities: Floats
) -> tuple[Floats, Floats, Ints]:
    """Returns l, the sum of v^2 over the members, and M of the module's formula.

    Args:
        tables: tables of the stacker.
        stacked: the stacker's predictions for `probabilities`.
        probabilities: the members' predictions, as for `apply_stacker`.

    Returns:
        Log-odds, float64 [num_studies, 25, 3]; sums of squares, likewise; and number of members, int64
        [num_studies, 25].
    """
    available = is_available(probabilities).transpose(1, 2, 0) & tables.covers
    mask = available[..., None].astype(np.float64)
    features = member_features(probabilities).transpose(1, 2, 0, 3) * mask
    counts = available.sum(axis=-1)
    size = np.maximum(counts, 1)[..., None]
    mean = features.sum(axis=2) / size
    terms = np.concatenate([np.ones_like(mean[..., :1]), mean], axis=-1)
    bias = np.einsum("simab,sib->sima", tables.bias[FAMILY_OF, stacked.pattern], terms)
    own = (features - mean[:, :, None] - bias) * mask
    around = np.einsum("kij,sjmc->sikmc", NEIGHBOURS, own / size[..., None], optimize=True)
    weights = tables.weights[FAMILY_OF, stacked.pattern]
    # A missing member whose source is available is replaced by the mean of the others, which so share its
    # weight.
    spare = (weights * (1 - mask)[..., None]).sum(axis=2) / size[..., None]
    changes = np.einsum("simab,simb->sima", weights + spare[:, :, None], own)
    changes += np.einsum("sikab,sikmb->sima", tables.context[FAMILY_OF, stacked.pattern], around)
    kept = np.maximum(stacked.probability, SMALLEST)
    others = kept[..., None, :] * (1 - np.eye(NUM_SEVERITIES))
    rest = others.sum(axis=-1)
    changes -= np.einsum("sick,simk->simc", others / rest[..., None], changes)
    return np.log(kept) - np.log(rest), (changes**2).sum(axis=2), counts


def member_intervals(stacker: StackerCoefficients, probabilities: Floats) -> Intervals:
    """Returns the 95% interval of each prediction (see the module's formula).

    Args:
        stacker: a fitted stacker; a family without `member_variance` has NaN intervals.
        probabilities: the members' predictions, as for `apply_stacker`.

    Raises:
        ValueError: the array does not have the shape of the stacker's members.
    """
    tables, stacked = variance_tables(stacker), apply_stacker(stacker, probabilities)
    log_odds, squares, counts = member_deviations(tables, stacked, probabilities)
    index = (FAMILY_OF, stacked.pattern)
    low, high = np.moveaxis(tables.bounds[index], -1, 0)
    size, freedom = counts[..., None], tables.freedom[index]
    prior = np.exp(log_variance(tables.log_variance[index], np.clip(log_odds, low, high)))
    variance = (freedom * prior + size**2 * squares) / np.maximum(freedom + size - 1, 1)
    reach = tables.quantiles[(*index, counts)] * np.sqrt(2 * variance / np.maximum(size, 1))
    low, high = (1 / (1 + np.exp(-(log_odds + side * reach))) for side in (-1, 1))
    return Intervals(low, high, counts)


def log_variance(coefficients: Floats, log_odds: Floats) -> Floats:
    """Returns the polynomial with coefficients [..., 3], constant first, at log-odds [...]."""
    value: Floats = coefficients[..., 0] + log_odds * (coefficients[..., 1] + log_odds * coefficients[..., 2])
    return value
