"""Areas under ROC curves, and the curves, of many resamples of studies at once. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RankedRows:
    """Rows in falling order of their score, sorted once for all resamples.

    Attributes:
        studies: the study of each row, intp [num_rows].
        is_positive: whether it is of the class sought, float64 [num_rows], 0 or 1.
        ends: the last row of each run of equal scores: the cut-offs, intp [num_cut_offs].
    """

    studies: NDArray[np.intp]
    is_positive: Floats
    ends: NDArray[np.intp]

    def above(self, counts: Floats) -> tuple[Floats, Floats]:
        """Returns positives and negatives at each cut-off or above it, two [num_resamples, num_cut_offs].

        Args:
            counts: how often each resample holds each study, float64 [num_resamples, num_studies].
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
        # The trapezoid rule, the curve's start at (0, 0) apart: its first trapezoid is a triangle.
        area = positives[:, 0] * negatives[:, 0] / 2
        area += ((positives[:, 1:] + positives[:, :-1]) * np.diff(negatives, axis=1)).sum(axis=1) / 2
        return np.divide(area, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)

    def sensitivity_at(self, counts: Floats, false_positive_rates: Floats) -> Floats:
        """Returns each resample's ROC curve, NaN where a class is absent.

        Between two cut-offs the curve is a straight line, as where ties are broken by chance.

        Args:
            counts: float64 [num_resamples, num_studies].
            false_positive_rates: where the curve is read off, rising, float64 [num_rates].

        Returns:
            sensitivity, float64 [num_resamples, num_rates].
        """
        found = np.full((len(counts), len(false_positive_rates)), np.nan)
        for row, hits, alarms in zip(found, *self.above(counts), strict=True):
            if hits.size and hits[-1] and alarms[-1]:
                # Where the curve climbs straight up, np.interp takes the last point: the top of the climb.
                rates = np.concatenate([[0.0], alarms / alarms[-1]])
                row[:] = np.interp(false_positive_rates, rates, np.concatenate([[0.0], hits / hits[-1]]))
        return found


def rank_rows(is_positive: NDArray[np.bool_], scores: Floats, studies: NDArray[np.intp]) -> RankedRows:
    """Sorts rows.

    Args:
        is_positive: bool [num_rows].
        scores: larger means more likely positive, [num_rows].
        studies: the index of each row's study, [num_rows].

    >>> ranked = rank_rows(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]), np.arange(3))
    >>> ranked.auc(np.ones((1, 3))).tolist()
    [0.75]
    """
    order = np.argsort(-scores, kind="stable")
    is_last = np.ones(len(scores), np.bool_)
    is_last[:-1] = np.diff(scores[order]) != 0
    return RankedRows(studies[order], is_positive[order].astype(np.float64), np.flatnonzero(is_last))
