"""Reliability diagrams, calibration errors, and the change of calibration by stacking."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import mean_in_logits
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, EvaluatedTable
from lumbar_tf.files import find_paths
from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES, Condition
from lumbar_tf.tables.out_of_fold import align_members, read_out_of_fold_tables, restrict_studies

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: Equal-width bins of the expected calibration error, as in Guo et al. 2017, "On Calibration of Modern Neural
#: Networks", section 2.
NUM_BINS = 15


@dataclass(frozen=True)
class ReliabilityBins:
    """Reliability diagram of one class: predicted and observed frequency in each bin.

    Attributes:
        predicted: mean probability in each bin, float64 [num_bins], NaN where it is empty.
        observed: share of rows in the bin that are of the class, [num_bins], NaN where it is empty.
        counts: number of rows in each bin, int [num_bins].
    """

    predicted: Floats
    observed: Floats
    counts: NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean over rows of |predicted - observed| of their bin; NaN if empty."""
        if not self.counts.sum():
            return math.nan
        gaps = np.nan_to_num(np.abs(self.predicted - self.observed))
        return float((gaps * self.counts).sum() / self.counts.sum())


def reliability_bins(
    is_class: NDArray[np.bool_], probability: Floats, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sorts rows into equal-width bins of their probability.

    Args:
        is_class: whether each row is of the class, bool [num_rows].
        probability: predicted probability of the class, float64 [num_rows] in [0, 1].
        num_bins: number of bins; bin k is [k/num_bins, (k+1)/num_bins), and the last bin includes 1.0.

    >>> reliability_bins(np.array([True, False]), np.array([0.5, 0.5]), num_bins=2).observed.tolist()
    [nan, 0.5]
    """
    places = np.clip((probability * num_bins).astype(np.int64), 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    empty = np.full(num_bins, np.nan)
    sums = (np.bincount(places, weights=values, minlength=num_bins) for values in (probability, is_class))
    predicted, observed = (np.divide(s, counts, out=empty.copy(), where=counts > 0) for s in sums)
    return ReliabilityBins(predicted, observed, counts)


def classwise_calibration_error(labels: Labels, probabilities: Floats, num_bins: int = NUM_BINS) -> float:
    """Returns the class-wise expected calibration error: the mean of the errors of the classes.

    Source: Kull et al. 2019, "Beyond temperature scaling", section 2 (equal-width bins).

    Args:
        labels: int [num_rows]; missing ones are left out.
        probabilities: float64 [num_rows, 3].
        num_bins: number of bins for each class.
    """
    usable = labels != MISSING_LABEL
    errors = [
        reliability_bins(labels[usable] == k, probabilities[usable, k], num_bins).expected_error
        for k in range(NUM_SEVERITIES)
    ]
    return float(np.mean(errors))


@dataclass(frozen=True)
class CalibrationChange:
    """Calibration of a condition before and after stacking, on the rows that both have a prediction for.

    Attributes:
        condition: the condition, levels pooled.
        num_rows: number of labelled rows.
        error_before: class-wise expected calibration error of the members' plain mean.
        error: the same of the evaluated table.
        brier_before: Brier score of the members' plain mean: mean squared distance to the one-hot label, 0 to
            2.
        brier: the same of the evaluated table.
    """

    condition: Condition
    num_rows: int
    error_before: float
    error: float
    brier_before: float
    brier: float


def find_tables(pattern: str) -> list[Path]:
    """Returns the tables that match a glob pattern, sorted.

    Raises:
        ValueError: no file matches.
    """
    paths = find_paths(pattern)
    if not paths:
        raise ValueError(f"A pattern of members' tables must match a file. Received: {pattern!r}.")
    return paths


def read_uncalibrated(paths: Sequence[Path], study_ids: Sequence[str]) -> Floats:
    """Returns the plain mean of the members in some tables, which is not calibrated.

    Args:
        paths: tables of one or more models; other studies are ignored.
        study_ids: studies of the result, [num_studies].

    Returns:
        float64 [num_studies, 25, 3], NaN where no member has a prediction.
    """
    return mean_in_logits(
        align_members(restrict_studies(read_out_of_fold_tables(paths), study_ids), study_ids).probabilities
    )


def calibration_changes(evaluated: EvaluatedTable, uncalibrated: Floats) -> tuple[CalibrationChange, ...]:
    """Compares calibration by condition; conditions without common rows are left out.

    Args:
        evaluated: labels and predictions.
        uncalibrated: plain mean of the members, float64 [num_studies, 25, 3], NaN where there is no
            prediction.
    """
    changes = (_calibration_change(condition, evaluated, uncalibrated) for condition in Condition)
    return tuple(change for change in changes if change is not None)


def _calibration_change(
    condition: Condition, evaluated: EvaluatedTable, uncalibrated: Floats
) -> CalibrationChange | None:
    labels, after, before = common_rows(evaluated, uncalibrated, CONDITIONS[condition.value])
    if not labels.size:
        return None
    truth = np.eye(NUM_SEVERITIES)[labels]
    return CalibrationChange(
        condition=condition,
        num_rows=int(labels.size),
        error_before=classwise_calibration_error(labels, before),
        error=classwise_calibration_error(labels, after),
        brier_before=float(((before - truth) ** 2).sum(axis=-1).mean()),
        brier=float(((after - truth) ** 2).sum(axis=-1).mean()),
    )


def common_rows(
    evaluated: EvaluatedTable, uncalibrated: Floats, findings: Sequence[int]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Returns the labelled rows of some findings that both have a prediction for.

    Args:
        evaluated: labels and predictions.
        uncalibrated: float64 [num_studies, 25, 3], NaN where there is no prediction.
        findings: indices of the findings.

    Returns:
        Labels [n], evaluated probabilities [n, 3], uncalibrated probabilities [n, 3].
    """
    labels, after, _ = evaluated.rows(findings)
    # In the same order as `rows`: study by study, finding by finding.
    known = evaluated.labels[:, findings] != MISSING_LABEL
    before = uncalibrated[:, findings][known]
    both = np.isfinite(before).all(axis=-1)
    return labels.astype(np.int64)[both], after[both], before[both]
