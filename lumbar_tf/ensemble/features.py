"""Features that the stacker computes from its members' predictions. NumPy only.

Two kinds of features describe a finding: the centred log-probabilities that the members predict for the
finding itself, and its context, the mean prediction for the findings around it (the other side, the
neighbouring levels, the other conditions at the level). The context is measured from each finding's mean over
the studies that the stacker was fitted to, so that 0 stands both for an average neighbour and for an unknown
one.
"""

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Family, Level, mirror_indices

Floats = NDArray[np.float64]

#: Probabilities are clipped to this before the logarithm, so that a predicted 0 costs at most 14 nats.
MIN_PROBABILITY = 1e-6

_ORDINALS = ("first", "second", "third", "fourth", "fifth")
#: Neighbours of a finding: the other side, the level above, the level below, then the other families at the
#: same level, in the order of `Family`.
SLOTS: tuple[str, ...] = (
    "other_side",
    "above",
    "below",
    *(f"{ordinal}_other_family" for ordinal in _ORDINALS[: len(Family) - 1]),
)
NUM_SLOTS = len(SLOTS)


def centred_logs(probabilities: Floats) -> Floats:
    """Returns ln(clip(p, 1e-6, 1)) minus its mean over the three classes; NaN rows stay NaN.

    Args:
        probabilities: float64 [..., 3].

    >>> centred_logs(np.array([1 / 3, 1 / 3, 1 / 3])).tolist()
    [0.0, 0.0, 0.0]
    """
    logs = np.log(np.clip(probabilities, MIN_PROBABILITY, 1.0))
    return logs - logs.mean(axis=-1, keepdims=True)


def softmax(logits: Floats) -> Floats:
    """Returns the softmax over the last axis, float64; rows sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def is_available(probabilities: Floats) -> NDArray[np.bool_]:
    """Returns whether all three probabilities of a row are finite, bool [...].

    Args:
        probabilities: float64 [..., 3], NaN where a member has no prediction.
    """
    return np.asarray(np.isfinite(probabilities).all(axis=-1))


def member_features(probabilities: Floats) -> Floats:
    """Returns centred log-probabilities, 0 where any of the three is missing.

    Args:
        probabilities: float64 [..., 3], NaN where missing.
    """
    finite = np.isfinite(probabilities).all(axis=-1, keepdims=True)
    return np.where(finite, centred_logs(np.where(finite, probabilities, 1.0)), 0.0)


def fill_missing(features: Floats, available: NDArray[np.bool_]) -> Floats:
    """Returns the features with missing members replaced by the mean of the available ones.

    Args:
        features: features of one family's members, float64 [num_members, ..., 3], 0 where missing.
        available: bool [num_members, ...].
    """
    counts = available.sum(axis=0)[..., None]
    return np.where(available[..., None], features, features.sum(axis=0) / np.maximum(counts, 1))


def patterns_of(probabilities: Floats, member_sources: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns the pattern of available sources of each row.

    Args:
        probabilities: one family's members, float64 [num_members, ..., 3], NaN where missing.
        member_sources: index of the source of each member.

    Returns:
        int64 [...]: the sum of 2^k over the sources k with a finite row.

    >>> patterns_of(np.array([[0.2, 0.3, 0.5], [np.nan] * 3, [0.2, 0.3, 0.5]]), (0, 0, 1)).item()
    3
    """
    pattern = np.zeros(probabilities.shape[1:-1], np.int64)
    for member, source in zip(probabilities, member_sources, strict=True):
        pattern |= np.isfinite(member).all(axis=-1).astype(np.int64) << source
    return pattern


def _neighbours() -> Floats:
    """Returns A, float64 [5 slots, 25, 25]: the share of each finding in each slot of each finding.

    For a finding without a side, the left and the right neighbour count half each.
    """
    shares = np.zeros((NUM_SLOTS, NUM_FINDINGS, NUM_FINDINGS))
    levels = list(Level)
    for i, finding in enumerate(FINDINGS):
        other_families = [family for family in Family if family is not finding.condition.family]
        for j, other in enumerate(FINDINGS):
            step = levels.index(other.level) - levels.index(finding.level)
            if other.condition is finding.condition and step in (-1, 1):
                shares[SLOTS.index("above" if step < 0 else "below"), i, j] = 1.0
            if step == 0 and other == finding.mirrored and other != finding:
                shares[SLOTS.index("other_side"), i, j] = 1.0
            if step == 0 and other.condition.family in other_families:
                sides = {finding.condition.side, other.condition.side}
                share = 0.5 if finding.condition.side is None else float(len(sides) == 1 or None in sides)
                shares[3 + other_families.index(other.condition.family), i, j] = share
    return shares


#: A of `context_features`: context = A @ (mean of the members - centre), float64 [5 slots, 25, 25].
NEIGHBOURS: Floats = _neighbours()


def mean_features(features: Floats, available: NDArray[np.bool_]) -> Floats:
    """Returns the mean over the available members, [num_studies, 25, 3], NaN where none is available.

    Args:
        features: float64 [num_members, num_studies, 25, 3], 0 where missing.
        available: bool [num_members, num_studies, 25].
    """
    counts = available.sum(axis=0)[..., None]
    return np.where(counts > 0, features.sum(axis=0) / np.maximum(counts, 1), np.nan)


def context_centre(mean: Floats) -> Floats:
    """Returns the mean of each finding over studies and sides, [25, 3]; 0 where no study has one.

    Both sides share one centre, so that a mirrored patient gets mirrored predictions.

    Args:
        mean: result of `mean_features`, [num_studies, 25, 3].
    """
    known = np.isfinite(mean)
    sums, counts = np.where(known, mean, 0.0).sum(axis=0), known.sum(axis=0)
    mirror = list(mirror_indices())
    centre: Floats = (sums + sums[mirror]) / np.maximum(counts + counts[mirror], 1)
    return centre


def context_features(mean: Floats, centre: Floats) -> Floats:
    """Returns the context of each finding, float64 [num_studies, 25, 5 slots, 3].

    Args:
        mean: result of `mean_features`, [num_studies, 25, 3].
        centre: result of `context_centre`, [25, 3].
    """
    known = np.where(np.isfinite(mean), mean - centre, 0.0)
    return np.einsum("kij,sjc->sikc", NEIGHBOURS, known, optimize=True)
