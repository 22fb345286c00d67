"""Where another ensemble's answers would lie, from the spread of the members. NumPy only.

The claim: had the same networks been trained and stacked anew, from other random seeds, on the same labels,
their ensemble's `probability` would lie within the interval for 95% of numbers (findings x grades). With M
members that answer a finding, and the weights W and V of `stacking.py`,

    d_m  = x_m - mean of x - habit_m(mean of x)      what this member says beside its habit
    u_m  = W_m @ d_m + sum over slots of V_slot @ (context of d_m / M)
    v_mc = u_mc - mean of u_mk over the other grades k, weighted by their probabilities
           (the change of the log-odds l_c of grade c)
    s_c^2 = (f * exp(trend(l_c)) + M^2 * sum over m of v_mc^2) / (f + M - 1)
    interval = sigmoid(l_c +- t(97.5%, f + M - 1) * sqrt(2 / M) * s_c)

M^2 / (M - 1) * sum v^2 is a member's variance: the infinitesimal jackknife over members (Efron and Tibshirani
1993, "An Introduction to the Bootstrap", chapter 11). With few members it is noisy, so it is pooled with what
findings of such log-odds show, which is worth f degrees of freedom (Smyth 2004, "Linear models and empirical
Bayes methods", section 4). The 2 is there because the other ensemble varies as much as this one.

It speaks of the networks alone: not of what no network sees, not of what all members share (the points that
they look at, the labels), not of the annotators' disagreement. It is no interval of the true probability. A
finding with fewer than two members has none (NaN).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lumbar_tf.ensemble.features import NEIGHBOURS, NUM_SLOTS, answered, member_features
from lumbar_tf.ensemble.stacker import (
    HABIT_TERMS,
    TREND_TERMS,
    Head,
    Stacked,
    StackerCoefficients,
    apply_stacker,
)
from lumbar_tf.labels import FINDINGS, NUM_SEVERITIES, Family

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Share of other ensembles' answers that an interval is to hold.
LEVEL = 0.95
#: Keeps the logarithm of a probability finite, in float32 too.
SMALLEST = 1e-30
#: Index in `Family` of each finding's family.
FAMILY_OF = np.array([list(Family).index(finding.condition.family) for finding in FINDINGS])


@dataclass(frozen=True)
class Intervals:
    """Bounds around a stacker's answers, head `probability`.

    Attributes:
        low: float64 [num_studies, 25, 3], NaN where fewer than two members answer.
        high: likewise.
        num_members: members that answered each finding, int64 [num_studies, 25].
    """

    low: Floats
    high: Floats
    num_members: Ints


@dataclass(frozen=True)
class VarianceTables:
    """A stacker's numbers, laid out to be looked up by family and pattern; the graph holds the same.

    Attributes:
        weights: W of the probability head, float64 [family, pattern, member, 3, 3], 0 where a member does
            not cover the family.
        context: V, float64 [family, pattern, slot, 3, 3].
        habits: float64 [family, pattern, member, 3, 4].
        trend: float64 [family, pattern, 3, 3].
        bounds: float64 [family, pattern, 3, 2].
        freedom: float64 [family, pattern, 3].
        quantiles: of Student's t by the number of members, float64 [family, pattern, number, 3]; NaN below
            two members, and where a stacker holds no spread.
        covers: bool [25, member].
    """

    weights: Floats
    context: Floats
    habits: Floats
    trend: Floats
    bounds: Floats
    freedom: Floats
    quantiles: Floats
    covers: NDArray[np.bool_]


def variance_tables(stacker: StackerCoefficients) -> VarianceTables:
    """Returns the tables of a fitted stacker."""
    size, num_members = max(each.num_patterns for each in stacker.families), len(stacker.members)
    head = (len(stacker.families), size)
    square = (NUM_SEVERITIES, NUM_SEVERITIES)
    tables = VarianceTables(
        weights=np.zeros((*head, num_members, *square)),
        context=np.zeros((*head, NUM_SLOTS, *square)),
        habits=np.zeros((*head, num_members, NUM_SEVERITIES, HABIT_TERMS)),
        trend=np.zeros((*head, NUM_SEVERITIES, TREND_TERMS)),
        bounds=np.zeros((*head, NUM_SEVERITIES, 2)),
        freedom=np.zeros((*head, NUM_SEVERITIES)),
        quantiles=np.full((*head, num_members + 1, NUM_SEVERITIES), np.nan),
        covers=np.zeros((len(FINDINGS), num_members), np.bool_),
    )
    counts = np.arange(2, num_members + 1)[:, None]
    for place, each in enumerate(stacker.families):
        mine, patterns = stacker.member_indices(each.family), slice(each.num_patterns)
        fitted = each.heads[Head.PROBABILITY]
        tables.weights[place, patterns, mine] = fitted.weights.swapaxes(0, 1)
        tables.context[place, patterns] = fitted.context
        for member in mine:
            tables.covers[np.equal(FAMILY_OF, place), member] = True
        if each.spread is not None:
            tables.habits[place, patterns, mine] = each.spread.habits.swapaxes(0, 1)
            tables.trend[place, patterns] = each.spread.trend
            tables.bounds[place, patterns] = each.spread.bounds
            tables.freedom[place, patterns] = each.spread.freedom
            freedom = each.spread.freedom[:, None] + counts - 1
            tables.quantiles[place, patterns, 2:] = stdtrit(freedom, 0.5 + LEVEL / 2)
    return tables


def deviations(
    tables: VarianceTables, stacked: Stacked, probabilities: Floats
) -> tuple[Floats, Floats, Ints]:
    """Returns l, the sum of v^2 and M of the module's formula.

    Args:
        tables: of the stacker.
        stacked: its answers to `probabilities`.
        probabilities: as `apply_stacker` takes them.

    Returns:
        float64 [num_studies, 25, 3], likewise, and int64 [num_studies, 25].
    """
    is_there = answered(probabilities).transpose(1, 2, 0) & tables.covers
    there = is_there[..., None].astype(np.float64)
    features = member_features(probabilities).transpose(1, 2, 0, 3) * there
    counts = is_there.sum(axis=-1)
    size = np.maximum(counts, 1)[..., None]
    mean = features.sum(axis=2) / size
    terms = np.concatenate([np.ones_like(mean[..., :1]), mean], axis=-1)
    habits = np.einsum("simab,sib->sima", tables.habits[FAMILY_OF, stacked.pattern], terms)
    own = (features - mean[:, :, None] - habits) * there
    around = np.einsum("kij,sjmc->sikmc", NEIGHBOURS, own / size[..., None], optimize=True)
    weights = tables.weights[FAMILY_OF, stacked.pattern]
    # A member that is missing beside others of its source says what all others say on average.
    spare = (weights * (1 - there)[..., None]).sum(axis=2) / size[..., None]
    changes = np.einsum("simab,simb->sima", weights + spare[:, :, None], own)
    changes += np.einsum("sikab,sikmb->sima", tables.context[FAMILY_OF, stacked.pattern], around)
    kept = np.maximum(stacked.probability, SMALLEST)
    others = kept[..., None, :] * (1 - np.eye(NUM_SEVERITIES))
    rest = others.sum(axis=-1)
    changes -= np.einsum("sick,simk->simc", others / rest[..., None], changes)
    return np.log(kept) - np.log(rest), (changes**2).sum(axis=2), counts


def member_intervals(stacker: StackerCoefficients, probabilities: Floats) -> Intervals:
    """Returns the 95% interval of each answer from the spread of the members: the module's formula.

    Args:
        stacker: a fitted stacker; of a family whose spread was not measured all are NaN.
        probabilities: as `apply_stacker` takes them.

    Raises:
        ValueError: the array is not the stacker's.
    """
    tables, stacked = variance_tables(stacker), apply_stacker(stacker, probabilities)
    odds, squares, counts = deviations(tables, stacked, probabilities)
    where = (FAMILY_OF, stacked.pattern)
    low, high = np.moveaxis(tables.bounds[where], -1, 0)
    size, freedom = counts[..., None], tables.freedom[where]
    pooled = freedom * np.exp(trend_of(tables.trend[where], np.clip(odds, low, high))) + size**2 * squares
    variance = pooled / np.maximum(freedom + size - 1, 1)
    reach = tables.quantiles[(*where, counts)] * np.sqrt(2 * variance / np.maximum(size, 1))
    low, high = (1 / (1 + np.exp(-(odds + side * reach))) for side in (-1, 1))
    return Intervals(low, high, counts)


def trend_of(coefficients: Floats, odds: Floats) -> Floats:
    """Returns the trend, [...], of coefficients [..., 3] at log-odds [...]."""
    trend: Floats = coefficients[..., 0] + odds * (coefficients[..., 1] + odds * coefficients[..., 2])
    return trend
