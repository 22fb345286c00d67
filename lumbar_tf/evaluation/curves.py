"""ROC and decision curves with bootstrap bands over studies. NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, bootstrap_counts
from lumbar_tf.evaluation.evaluated_table import EvaluatedTable
from lumbar_tf.evaluation.operating_points import Target
from lumbar_tf.labels import MISSING_LABEL

Floats = NDArray[np.float64]

#: False-positive rates at which the sensitivity of a ROC curve is evaluated.
FALSE_POSITIVE_RATES: Floats = np.linspace(0.0, 1.0, 101)
#: Thresholds of a decision curve: nobody requires more than 80% certainty before a second look.
THRESHOLDS: Floats = np.arange(1, 41) / 50.0


@dataclass(frozen=True, eq=False)
class RankedRows:
    """Rows in falling order of their score, sorted once for all resamples.

    Attributes:
        studies: index of the study of each row, intp [num_rows].
        is_positive: whether each row is positive, float64 [num_rows], 0 or 1.
        ends: index of the last row of each run of equal scores: the cut-offs, intp [num_cut_offs].
    """

    studies: NDArray[np.intp]
    is_positive: Floats
    ends: NDArray[np.intp]

    def above(self, counts: Floats) -> tuple[Floats, Floats]:
        """Returns positives and negatives at or above each cut-off, two arrays [num_resamples, num_cut_offs].

        Args:
            counts: number of times that each resample contains each study, float64 [num_resamples,
                num_studies].
        """
        weights = counts[:, self.studies]
        positives = np.cumsum(weights * self.is_positive, axis=1)
        negatives = np.cumsum(weights, axis=1) - positives
        if self.ends.size < self.studies.size:
            positives, negatives = positives[:, self.ends], negatives[:, self.ends]
        return positives, negatives

    def auc(self, counts: Floats) -> Floats:
        """Returns the area under each resample's ROC curve, ties counted half; NaN where a class is absent.

        Args:
            counts: float64 [num_resamples, num_studies].

        Returns:
            float64 [num_resamples].
        """
        if not self.ends.size:
            return np.full(len(counts), np.nan)
        positives, negatives = self.above(counts)
        pairs = positives[:, -1] * negatives[:, -1]
        # Trapezoid rule. The curve starts at (0, 0), so its first trapezoid is a triangle.
        area = positives[:, 0] * negatives[:, 0] / 2
        area += ((positives[:, 1:] + positives[:, :-1]) * np.diff(negatives, axis=1)).sum(axis=1) / 2
        return np.divide(area, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)

    def sensitivity_at(self, counts: Floats, false_positive_rates: Floats) -> Floats:
        """Returns each resample's ROC curve, NaN where a class is absent.

        Between two cut-offs the curve is a straight line, as if ties were broken at random.

        Args:
            counts: float64 [num_resamples, num_studies].
            false_positive_rates: rising, float64 [num_rates].

        Returns:
            Sensitivity, float64 [num_resamples, num_rates].
        """
        sensitivity = np.full((len(counts), len(false_positive_rates)), np.nan)
        for row, hits, alarms in zip(sensitivity, *self.above(counts), strict=True):
            if hits.size and hits[-1] and alarms[-1]:
                # On a vertical segment np.interp takes the last point, which is its top.
                rates = np.concatenate([[0.0], alarms / alarms[-1]])
                row[:] = np.interp(false_positive_rates, rates, np.concatenate([[0.0], hits / hits[-1]]))
        return sensitivity


def rank_rows(is_positive: NDArray[np.bool_], scores: Floats, studies: NDArray[np.intp]) -> RankedRows:
    """Sorts rows by their score.

    Args:
        is_positive: bool [num_rows].
        scores: larger means more likely positive, [num_rows].
        studies: index of each row's study, [num_rows].

    >>> ranked = rank_rows(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]), np.arange(3))
    >>> ranked.auc(np.ones((1, 3))).tolist()
    [0.75]
    """
    order = np.argsort(-scores, kind="stable")
    is_last = np.ones(len(scores), np.bool_)
    is_last[:-1] = np.diff(scores[order]) != 0
    return RankedRows(studies[order], is_positive[order].astype(np.float64), np.flatnonzero(is_last))


def rank_target(evaluated: EvaluatedTable, findings: Sequence[int], target: Target) -> RankedRows:
    """Returns the labelled rows of some findings, sorted by the probability of a target."""
    labels, answers, studies = evaluated.rows(findings)
    return rank_rows(target.is_met(labels), target.probability(answers), studies)


@dataclass(frozen=True, eq=False)
class Band:
    """A curve and its 95% interval at each point, float64 [num_points]; NaN where undefined."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class RocCurve:
    """A ROC curve.

    Attributes:
        sensitivity: sensitivity at `FALSE_POSITIVE_RATES`.
        num_positive: number of positive rows.
        num_rows: number of rows.
    """

    sensitivity: Band
    num_positive: int
    num_rows: int


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """A decision curve at `THRESHOLDS`.

    Attributes:
        net_benefit: net benefit of a yes at or above the threshold.
        treat_all: net benefit of a yes for every row, float64 [num_thresholds]; that of a no for every row is
            0.
    """

    net_benefit: Band
    treat_all: Floats


def _band(intervals: Sequence[Interval]) -> Band:
    return Band(*np.array([[point.value, point.low, point.high] for point in intervals]).T)


def roc_curve(
    evaluated: EvaluatedTable, findings: Sequence[int], target: Target, *, num_resamples: int, seed: int
) -> RocCurve:
    """Returns the ROC curve of some findings pooled.

    The band is the interval of the sensitivity at each false-positive rate (vertical averaging; Fawcett 2006,
    "An introduction to ROC analysis", section 8.1).

    Args:
        evaluated: labels and predictions.
        findings: indices of the findings that are pooled.
        target: the question.
        num_resamples: number of bootstrap resamples of studies.
        seed: seed of the bootstrap.
    """
    ranked = rank_target(evaluated, findings, target)
    intervals = bootstrap_counts(
        lambda counts: ranked.sensitivity_at(counts, FALSE_POSITIVE_RATES),
        len(evaluated.labels),
        num_resamples=num_resamples,
        seed=seed,
    )
    return RocCurve(_band(intervals), int(ranked.is_positive.sum()), ranked.is_positive.size)


def net_benefit(hits: Floats, alarms: Floats, num_rows: Floats, thresholds: Floats) -> Floats:
    """Returns the net benefit, in true positives per row: hits / n - alarms / n * p / (1 - p).

    Source: Vickers and Elkin 2006, "Decision curve analysis", Medical Decision Making 26: 565. A threshold p
        implies
    that a missed case is (1 - p) / p times as bad as a false alarm.

    Args:
        hits: true positives at each threshold, [..., num_thresholds].
        alarms: false positives, [..., num_thresholds].
        num_rows: number of rows, [..., 1].
        thresholds: [num_thresholds], below 1.

    >>> net_benefit(np.array([2.0]), np.array([4.0]), np.array([10.0]), np.array([0.2])).tolist()
    [0.1]
    """
    return (hits - alarms * thresholds / (1.0 - thresholds)) / num_rows


def decision_curve(
    evaluated: EvaluatedTable, findings: Sequence[int], target: Target, *, num_resamples: int, seed: int
) -> DecisionCurve:
    """Returns the decision curve of some findings pooled; arguments as for `roc_curve`."""
    labels = evaluated.labels[:, findings]
    known = labels != MISSING_LABEL
    positive, negative = known & target.is_met(labels), known & ~target.is_met(labels)
    # Comparisons with NaN, where there is no prediction, are False; these labels are hidden.
    is_predicted = target.probability(evaluated.answers[:, findings])[..., None] >= THRESHOLDS
    # Contributions of each study: hits and alarms at each threshold, positives, negatives.
    parts = [
        positive[..., None] & is_predicted,
        negative[..., None] & is_predicted,
        positive[..., None],
        negative[..., None],
    ]
    sums = np.concatenate([part.sum(axis=1) for part in parts], axis=1).astype(np.float64)
    size = THRESHOLDS.size

    def benefits(counts: Floats) -> Floats:
        resampled = counts @ sums
        num_rows = resampled[:, -2:].sum(axis=1, keepdims=True)
        num_rows = np.where(num_rows > 0, num_rows, np.nan)
        return net_benefit(resampled[:, :size], resampled[:, size:-2], num_rows, THRESHOLDS)

    intervals = bootstrap_counts(benefits, len(labels), num_resamples=num_resamples, seed=seed)
    num_rows = np.array([known.sum() or np.nan])
    treat_all = net_benefit(sums[:, -2].sum(), sums[:, -1].sum(), num_rows, THRESHOLDS)
    return DecisionCurve(_band(intervals), treat_all)
