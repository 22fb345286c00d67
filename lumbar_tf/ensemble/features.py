"""Features that the stacker computes from its members' predictions. NumPy only."""

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Family, Level, mirror_indices

Floats = NDArray[np.float64]

#: Probabilities are not taken below this before their logarithm: a member's "never" is worth 14 nats.
MIN_PROBABILITY = 1e-6


def centred_logs(probabilities: Floats) -> Floats:
    """Returns ln(clip(p, 1e-6, 1)) less its mean over the three classes; NaN rows stay NaN.

    Args:
        probabilities: float64 [..., 3].

    >>> centred_logs(np.array([1 / 3, 1 / 3, 1 / 3])).tolist()
    [0.0, 0.0, 0.0]
    """
    logs = np.log(np.clip(probabilities, MIN_PROBABILITY, 1.0))
    return logs - logs.mean(axis=-1, keepdims=True)


def softmax(logits: Floats) -> Floats:
    """Returns the softmax over the last axis, float64, rows sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def answered(probabilities: Floats) -> NDArray[np.bool_]:
    """Returns where all three of a row are finite, bool [...], of probabilities [..., 3]."""
    return np.asarray(np.isfinite(probabilities).all(axis=-1))


def member_features(probabilities: Floats) -> Floats:
    """Returns centred logarithms, 0 where any of the three is missing.

    Args:
        probabilities: float64 [..., 3], NaN where missing.
    """
    finite = np.isfinite(probabilities).all(axis=-1, keepdims=True)
    return np.where(finite, centred_logs(np.where(finite, probabilities, 1.0)), 0.0)


def fill_missing(features: Floats, is_there: NDArray[np.bool_]) -> Floats:
    """Returns x of the module's formula: a missing member says what the others say on average.

    Args:
        features: of `member_features`, a family's members only, float64 [num_members, ..., 3].
        is_there: bool [num_members, ...].
    """
    counts = is_there.sum(axis=0)[..., None]
    return np.where(is_there[..., None], features, features.sum(axis=0) / np.maximum(counts, 1))


def patterns_of(probabilities: Floats, member_sources: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns the pattern of available sources of each row.

    Args:
        probabilities: a family's members, float64 [num_members, ..., 3], NaN where missing.
        member_sources: source index of each member.

    Returns:
        int64 [...]: the sum of 2^k over the sources k with a finite row.

    >>> patterns_of(np.array([[0.2, 0.3, 0.5], [np.nan] * 3, [0.2, 0.3, 0.5]]), (0, 0, 1)).item()
    3
    """
    pattern = np.zeros(probabilities.shape[1:-1], np.int64)
    for member, source in zip(probabilities, member_sources, strict=True):
        pattern |= np.isfinite(member).all(axis=-1).astype(np.int64) << source
    return pattern


_ORDINALS = ("first", "second", "third", "fourth", "fifth")
#: Other side, level above, level below, then the other families at the level, in the order of `Family`.
SLOTS: tuple[str, ...] = (
    "other_side",
    "above",
    "below",
    *(f"{ordinal}_other_family" for ordinal in _ORDINALS[: len(Family) - 1]),
)

NUM_SLOTS = len(SLOTS)


def _neighbours() -> Floats:
    """Returns A, float64 [5 slots, 25, 25]: the share of each finding in a slot of each finding.

    A pair of sides that faces a finding without a side counts half each.
    """
    shares = np.zeros((NUM_SLOTS, NUM_FINDINGS, NUM_FINDINGS))
    levels = list(Level)
    for i, one in enumerate(FINDINGS):
        others = [family for family in Family if family is not one.condition.family]
        for j, other in enumerate(FINDINGS):
            step = levels.index(other.level) - levels.index(one.level)
            if other.condition is one.condition and step in (-1, 1):
                shares[SLOTS.index("above" if step < 0 else "below"), i, j] = 1.0
            if step == 0 and other == one.mirrored and other != one:
                shares[SLOTS.index("other_side"), i, j] = 1.0
            if step == 0 and other.condition.family in others:
                sides = {one.condition.side, other.condition.side}
                share = 0.5 if one.condition.side is None else float(len(sides) == 1 or None in sides)
                shares[3 + others.index(other.condition.family), i, j] = share
    return shares


#: A of the module's formula: context = A @ (mean of members - centre).
NEIGHBOURS: Floats = _neighbours()


def mean_features(features: Floats, is_there: NDArray[np.bool_]) -> Floats:
    """Returns the mean over the members that are there, [num_studies, 25, 3], NaN where none is.

    Args:
        features: x of `stacking.py`, float64 [num_members, num_studies, 25, 3], 0 where missing.
        is_there: bool [num_members, num_studies, 25].
    """
    counts = is_there.sum(axis=0)[..., None]
    return np.where(counts > 0, features.sum(axis=0) / np.maximum(counts, 1), np.nan)


def context_centre(mean: Floats) -> Floats:
    """Returns each finding's mean over studies and sides, [25, 3]; 0 where no study has one.

    Both sides share one centre, so that a mirrored patient has mirrored answers.

    Args:
        mean: of `mean_features`.
    """
    known = np.isfinite(mean)
    sums, counts = np.where(known, mean, 0.0).sum(axis=0), known.sum(axis=0)
    mirror = list(mirror_indices())
    centre: Floats = (sums + sums[mirror]) / np.maximum(counts + counts[mirror], 1)
    return centre


def context_features(mean: Floats, centre: Floats) -> Floats:
    """Returns the context of each finding, float64 [num_studies, 25, 5 slots, 3].

    Args:
        mean: of `mean_features`, [num_studies, 25, 3].
        centre: of `context_centre`, [25, 3].
    """
    known = np.where(np.isfinite(mean), mean - centre, 0.0)
    return np.einsum("kij,sjc->sikc", NEIGHBOURS, known, optimize=True)
