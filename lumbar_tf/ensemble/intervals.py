"""How far an answer hangs on the networks that happened to be in the ensemble. NumPy only.

The jackknife over members (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11): the
stacker answers once with all M members that a finding has and once without each of them, with the
coefficients of that pattern. With l_i the log-odds of a grade without member i,

    se^2     = (M - 1) / M * sum over i of (l_i - mean of l)^2
    interval = sigmoid(l +- z * factor * se)

It speaks of the spread of the networks alone: not of what no network sees, and not of the annotators'
disagreement. A finding with fewer than two members has no interval (NaN).
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import answered
from lumbar_tf.ensemble.stacking import Head, Stacker, apply_stacker

Floats = NDArray[np.float64]

_MIN_PROBABILITY = 1e-9


@dataclass(frozen=True)
class Intervals:
    """Bounds around a stacker's answers.

    Attributes:
        low: float64 [num_studies, 25, 3], NaN where fewer than two members answer.
        high: likewise.
        num_members: members that answered each finding, int64 [num_studies, 25].
    """

    low: Floats
    high: Floats
    num_members: NDArray[np.int64]


def log_odds(probabilities: Floats) -> Floats:
    """Returns ln(p / (1 - p)), with p kept 1e-9 away from 0 and 1."""
    clipped = np.clip(probabilities, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    odds: Floats = np.log(clipped) - np.log1p(-clipped)
    return odds


def jackknife_error(stacker: Stacker, probabilities: Floats, head: Head) -> tuple[Floats, NDArray[np.int64]]:
    """Returns the standard error of the log-odds, and how many members each finding has.

    Args:
        stacker: a fitted stacker.
        probabilities: as `apply_stacker` takes them, float64 [num_members, num_studies, 25, 3].
        head: of the answers.

    Returns:
        float64 [num_studies, 25, 3], NaN where fewer than two members answer, and int64 [num_studies, 25].
    """
    counts = np.zeros(probabilities.shape[1:3], np.int64)
    left_out, is_there = [], []
    for index in range(len(probabilities)):
        others = probabilities.copy()
        others[index] = np.nan
        left_out.append(log_odds(apply_stacker(stacker, others).head(head)))
        is_there.append(answered(probabilities[index]))
        counts += is_there[-1]
    if not left_out:
        return np.full(probabilities.shape[1:], np.nan), counts
    odds, known = np.stack(left_out), np.stack(is_there)[..., None]
    size = counts[..., None]
    mean = np.where(known, odds, 0.0).sum(axis=0) / np.maximum(size, 1)
    squares = (np.where(known, odds - mean, 0.0) ** 2).sum(axis=0)
    variance = squares * np.maximum(size - 1, 0) / np.maximum(size, 1)
    return np.where(size > 1, np.sqrt(variance), np.nan), counts


def member_intervals(
    stacker: Stacker,
    probabilities: Floats,
    *,
    head: Head = Head.PROBABILITY,
    level: float = 0.95,
    factor: float = 1.0,
) -> Intervals:
    """Returns the interval of each answer from the spread of the members: the module's formula.

    Args:
        stacker: a fitted stacker.
        probabilities: as `apply_stacker` takes them.
        head: of the answers.
        level: share of such intervals that should hold the answer of other networks, in (0, 1).
        factor: widens the standard error; 1 is the jackknife's own.

    Raises:
        ValueError: `level` is not between 0 and 1, or the array is not the stacker's.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"`level` must be between 0 and 1. Received: {level}.")
    answers = log_odds(apply_stacker(stacker, probabilities).head(head))
    error, counts = jackknife_error(stacker, probabilities, head)
    reach = NormalDist().inv_cdf(0.5 + level / 2) * factor * error
    low, high = (1 / (1 + np.exp(-(answers + side * reach))) for side in (-1, 1))
    return Intervals(low, high, counts)
