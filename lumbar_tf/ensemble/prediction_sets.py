"""Sets of grades that contain the reader's grade with a chosen probability, for each grade. NumPy only.

Definition: of the findings that a reader grades k, at least a share of `coverage` have k in their set, for
k = Normal/Mild, Moderate and Severe separately. A set is never empty, and its grades are contiguous.

With the calibrated probabilities p of a finding, and a threshold t for each grade of its family and its
pattern of available sources,

    r_k = p_k / t_k
    set = {k: r_k >= min(1, max over j of r_j)}, and Moderate if Normal/Mild and Severe are in it

so a grade is in the set if its probability reaches its own threshold; a finding that reaches none gets the
grade that comes nearest. Apart from the filling of empty sets and of gaps, sets of this form are the smallest
with coverage by grade (Sadinle, Lei and Wasserman 2019, "Least ambiguous set-valued classifiers with bounded
error levels", section 2).

Thresholds come from split conformal prediction within each grade (Vovk 2012, "Conditional validity of
inductive conformal predictors", section 4). With the n_k labelled findings of grade k, each predicted by a
stacker that was not fitted to its fold,

    t_k = the m-th smallest p_k of these findings, m = n_k + 1 - ceil((n_k + 1) * coverage)

covers a new finding of grade k with at least `coverage`. If m is 0 (fewer than 9 findings, for a coverage of
0.9), t_k is 0, and the grade is in every set. A finding without any source has thresholds of 0, too.

Filling adds grades, so that the sets of a good ensemble cover more than they need to. The thresholds are
therefore raised in turns for as long as the sets become smaller: t_k becomes the m-th smallest of the values
up to which the set of a finding of grade k contains k, given the other two thresholds. The findings that the
thresholds are fitted to remain covered. For new findings the guarantee is exact before this step and
approximate after it, because the other two thresholds depend on the findings of grade k a little. It is
measured on nested predictions: the sets of a fold have thresholds from the other folds only.

The guarantee is for studies that are exchangeable with those of the out-of-fold tables. It does not depend on
the frequencies of the grades, because each grade has its own threshold, but scanners, patients and readers
must be alike.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import NUM_SEVERITIES, Severity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Default probability that a set contains the reader's grade.
COVERAGE = 0.9
#: A grade with fewer labelled findings is marked: between tables of this size its coverage has a standard
#: deviation of 0.05.
FEW_ROWS = 30
#: Lower bound of probabilities and thresholds in a ratio, finite in float32 too.
SMALLEST = 1e-30
#: Upper bound of a threshold, so that ratios are not rounded to 0 in float32.
_LARGEST = 1e6
_MAX_ROUNDS = 100
#: Keeps the finding that a threshold was taken from inside, in spite of rounding.
_SLACK = 1e-9


@dataclass(frozen=True)
class SetThresholds:
    """Thresholds of the prediction sets of one family.

    Attributes:
        coverage: probability that a set contains the reader's grade.
        thresholds: t by pattern and grade, float64 [num_patterns, 3]; 0 puts the grade into every set.
        num_rows: number of labelled findings behind each threshold, int64 [num_patterns, 3].
    """

    coverage: float
    thresholds: Floats
    num_rows: Ints


def check_coverage(coverage: float) -> None:
    """Raises `ValueError` unless the coverage of prediction sets is in [0.5, 1)."""
    if not 0.5 <= coverage < 1:
        raise ValueError(f"`coverage` must be at least 0.5 and below 1. Received: {coverage}.")


def grade_sets(probability: NDArray[np.floating], thresholds: NDArray[np.floating]) -> Bools:
    """Returns which grades are in the set of each finding, bool [..., 3].

    Args:
        probability: calibrated probabilities, [..., 3].
        thresholds: t of each finding, [..., 3].

    >>> grade_sets(np.array([[0.9, 0.06, 0.04], [0.6, 0.3, 0.1]]), np.array([0.8, 0.2, 0.2])).tolist()
    [[True, False, False], [False, True, False]]
    """
    ratios = np.maximum(probability, SMALLEST) / np.maximum(thresholds, SMALLEST)
    inside = ratios >= np.minimum(1.0, ratios.max(axis=-1, keepdims=True))
    inside[..., Severity.MODERATE] |= inside[..., Severity.NORMAL_MILD] & inside[..., Severity.SEVERE]
    return np.asarray(inside, np.bool_)


def grade_rank(num_rows: int, coverage: float) -> int:
    """Returns m, the rank of the threshold among the ascending scores of a grade; 0 for too few.

    >>> [grade_rank(n, 0.9) for n in (0, 8, 9, 18, 19, 99)]
    [0, 0, 1, 1, 2, 10]
    """
    # Without the slack, rounding of 0.9 * 10 would cost a rank.
    return num_rows + 1 - math.ceil((num_rows + 1) * coverage - _SLACK)


def fit_thresholds(
    probability: Floats,
    labels: NDArray[np.integer],
    coverage: float,
    *,
    given: Mapping[Severity, float] | None = None,
) -> Floats:
    """Returns the thresholds of one pattern, float64 [3].

    Args:
        probability: held-out calibrated probabilities, float64 [num_rows, 3].
        labels: int [num_rows], 0 to 2.
        coverage: probability that a set contains the reader's grade.
        given: thresholds of grades that are not to be fitted.
    """
    given = given or {}
    of_grade = [probability[labels == grade] for grade in range(NUM_SEVERITIES)]
    thresholds = np.array([_lowest_inside(own[:, k], coverage) for k, own in enumerate(of_grade)])
    thresholds[list(given)] = list(given.values())
    size = grade_sets(probability, thresholds).sum()
    for _ in range(_MAX_ROUNDS):
        raised = thresholds.copy()
        for grade, own in enumerate(of_grade):
            if grade in given:
                continue
            found = _lowest_inside(_largest_thresholds(own, raised, grade), coverage) * (1 - _SLACK)
            raised[grade] = min(max(raised[grade], found), _LARGEST)
        raised_size = grade_sets(probability, raised).sum()
        if raised_size >= size:
            break
        thresholds, size = raised, raised_size
    return thresholds


def _lowest_inside(scores: Floats, coverage: float) -> float:
    """Returns the m-th smallest score, 0 if m is 0."""
    rank = grade_rank(len(scores), coverage)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank else 0.0


def _largest_thresholds(probability: Floats, thresholds: Floats, grade: int) -> Floats:
    """Returns the threshold of a grade up to which each set contains it, given the others, [num_rows]."""
    others = [k for k in range(NUM_SEVERITIES) if k != grade]
    ratios = np.maximum(probability, SMALLEST)[:, others] / np.maximum(thresholds[others], SMALLEST)
    largest = probability[:, grade] / np.minimum(1.0, ratios.max(axis=1))
    if grade == Severity.MODERATE:  # it fills the gap whatever its threshold
        largest = np.where((ratios >= 1).all(axis=1), np.inf, largest)
    return largest
