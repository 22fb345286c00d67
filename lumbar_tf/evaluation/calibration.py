"""Reliability diagrams, calibration errors, and calibration before and after stacking."""

import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import mean_in_logits
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, EvaluatedTable
from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES, Condition
from lumbar_tf.tables.out_of_fold import align_members, read_out_of_fold_tables, restrict_studies

Floats = NDArray[np.float64]

Labels = NDArray[np.integer]

#: Equal-width bins of the expected calibration error, as in Guo et al. 2017, "On Calibration of Modern Neural
#: Networks", section 2.
NUM_BINS = 15


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram of one class: bin by bin, what was said and what happened.

    Attributes:
        predicted: mean probability in each bin, float64 [num_bins], NaN where it is empty.
        observed: share of rows in the bin that are of the class, [num_bins], NaN where it is empty.
        counts: rows in each bin, int [num_bins].
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
        probability: what was predicted for the class, float64 [num_rows] in [0, 1].
        num_bins: number of bins; bin k holds [k/num_bins, (k+1)/num_bins), the last one 1.0 too.

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
    """Returns the class-wise expected calibration error: the mean over classes of each one's error.

    Source: Kull et al. 2019, "Beyond temperature scaling", section 2 (equal-width bins).

    Args:
        labels: int [num_rows]; missing ones are left out.
        probabilities: float64 [num_rows, 3].
        num_bins: bins a class.
    """
    usable = labels != MISSING_LABEL
    return float(
        np.mean(
            [
                reliability_bins(labels[usable] == k, probabilities[usable, k], num_bins).expected_error
                for k in range(NUM_SEVERITIES)
            ]
        )
    )


@dataclass(frozen=True)
class CalibrationChange:
    """A condition's calibration before and after the members were combined, on the rows that both answer.

    Attributes:
        condition: all its levels pooled.
        num_rows: labelled rows.
        error_before: class-wise expected calibration error of the members' plain mean.
        error: the same of the table that is judged.
        brier_before: mean squared distance to the one-hot label, 0 to 2, of the members' plain mean.
        brier: the same of the table that is judged.
    """

    condition: Condition
    num_rows: int
    error_before: float
    error: float
    brier_before: float
    brier: float


def find_tables(pattern: str) -> list[Path]:
    """Returns the tables that a pattern matches, sorted.

    Raises:
        ValueError: there is none.
    """
    paths = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too
    if not paths:
        raise ValueError(f"A pattern of members' tables must match a file. Received: {pattern!r}.")
    return paths


def read_before(paths: Sequence[Path], study_ids: Sequence[str]) -> Floats:
    """Returns the plain mean of the members in some tables, as they come: uncalibrated.

    Args:
        paths: tables of one or several models; studies that are not asked for are passed over.
        study_ids: whose rows are wanted.

    Returns:
        float64 [num_studies, 25, 3], NaN where no member answers.
    """
    return mean_in_logits(
        align_members(restrict_studies(read_out_of_fold_tables(paths), study_ids), study_ids).probabilities
    )


def calibration_changes(judged: EvaluatedTable, before: Floats) -> tuple[CalibrationChange, ...]:
    """Compares calibration, condition by condition; one without a row that both answer is left out.

    Args:
        judged: labels and answers.
        before: float64 [num_studies, 25, 3], NaN where there is no answer.
    """
    found = (_change(condition, judged, before) for condition in Condition)
    return tuple(each for each in found if each is not None)


def _change(condition: Condition, judged: EvaluatedTable, before: Floats) -> CalibrationChange | None:
    labels, answers, earlier = rows_before(judged, before, CONDITIONS[condition.value])
    if not labels.size:
        return None
    truth = np.eye(NUM_SEVERITIES)[labels]
    return CalibrationChange(
        condition=condition,
        num_rows=int(labels.size),
        error_before=classwise_calibration_error(labels, earlier),
        error=classwise_calibration_error(labels, answers),
        brier_before=float(((earlier - truth) ** 2).sum(axis=-1).mean()),
        brier=float(((answers - truth) ** 2).sum(axis=-1).mean()),
    )


def rows_before(
    judged: EvaluatedTable, before: Floats, findings: Sequence[int]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Returns the labelled rows of some findings that both answer.

    Args:
        judged: labels and answers.
        before: float64 [num_studies, 25, 3], NaN where there is no answer.
        findings: rows of the 25.

    Returns:
        Labels [n], answers [n, 3], answers before calibration [n, 3].
    """
    labels, answers, _ = judged.rows(findings)
    # `rows` takes study by study, finding by finding, as a mask does.
    known = judged.labels[:, findings] != MISSING_LABEL
    earlier = before[:, findings][known]
    both = np.isfinite(earlier).all(axis=-1)
    return labels.astype(np.int64)[both], answers[both], earlier[both]
