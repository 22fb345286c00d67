"""The figures of a condition at a level, of a condition, and of a family, with intervals over studies.

All but the areas under curves are made of sums over studies (of losses, of entries of confusion
matrices), so a resample's figures are those of a weighted sum, and many resamples are one matrix product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, bootstrap_counts
from lumbar_tf.evaluation.calibration import classwise_calibration_error
from lumbar_tf.evaluation.curves import rank_target
from lumbar_tf.evaluation.evaluated_table import EvaluatedTable
from lumbar_tf.evaluation.metrics import log_losses, sample_weights, weighted_log_loss
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS, Target
from lumbar_tf.labels import (
    MISSING_LABEL,
    NUM_FINDINGS,
    NUM_SEVERITIES,
    Severity,
)

Floats = NDArray[np.float64]

Labels = NDArray[np.integer]

#: A figure of a class with fewer labels says little, and its percentile interval is too narrow: it is marked.
FEW_LABELS = 10

_AGREEMENT = slice(4, 4 + NUM_SEVERITIES**2)

#: (prediction - label) ** 2, the weights of kappa, [9].
_DISTANCES = (np.arange(NUM_SEVERITIES)[:, None] - np.arange(NUM_SEVERITIES)[None, :]).ravel() ** 2.0


@dataclass(frozen=True)
class PointFigures:
    """What an operating point finds and spares.

    Attributes:
        sensitivity: share of the positives that it says yes to; NaN where there is none.
        specificity: share of the negatives that it says no to; NaN where there is none.
    """

    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True)
class Cell:
    """The figures of some findings pooled.

    Attributes:
        name: a family's, a condition's, or a finding's.
        counts: labels of each grade.
        log_loss: weighted 1, 2, 4, of the table as it is.
        prior_log_loss: the same of the condition-by-level prior of these very labels.
        auc_severe: of P(Severe), Severe against the rest.
        auc_not_normal: of P(Moderate) + P(Severe), Normal/Mild against the rest.
        kappa: Cohen's with quadratic weights, of the most probable grade.
        brier: mean squared distance to the one-hot label over the three classes, 0 to 2.
        calibration_error: class-wise expected calibration error. It has no interval: a resample has repeats
            and so a larger error than the data it was drawn from.
        operating_points: by name, see `operating_points.OPERATING_POINTS`.
    """

    name: str
    counts: tuple[int, ...]
    log_loss: Interval
    prior_log_loss: float
    auc_severe: Interval
    auc_not_normal: Interval
    kappa: Interval
    brier: Interval
    calibration_error: float
    operating_points: Mapping[str, PointFigures]

    def num_positive(self, target: Target) -> int:
        """Returns how many labels say yes to a question."""
        return sum(
            n for grade, n in zip(Severity, self.counts, strict=True) if target.is_met(np.array(grade))
        )

    def has_few(self, target: Target) -> bool:
        """Whether either answer to the question has fewer than `FEW_LABELS` labels."""
        positives = self.num_positive(target)
        return min(positives, sum(self.counts) - positives) < FEW_LABELS


def _study_sums(judged: EvaluatedTable) -> Floats:
    """Returns what each study adds to the figures' sums, float64 [num_studies, 25, num_sums].

    In order: weighted loss, weight, squared distance, one; the confusion matrix; and for each operating
    point true and false positives, true and false negatives.
    """
    labels, answers = judged.labels, np.where(np.isnan(judged.answers), 1.0, judged.answers)
    known = labels != MISSING_LABEL
    grades = np.where(known, labels, 0)
    weights = sample_weights(labels)
    distances = ((answers - np.eye(NUM_SEVERITIES)[grades]) ** 2).sum(axis=-1)
    sums = [weights * log_losses(labels, judged.table), weights, np.where(known, distances, 0.0), known]
    places = grades * NUM_SEVERITIES + answers.argmax(axis=-1)
    sums += [known & (places == place) for place in range(NUM_SEVERITIES**2)]
    for point in OPERATING_POINTS:
        is_met, says_yes = point.target.is_met(grades), point.says_yes(answers)
        sums += [known & (is_met == met) & (says_yes == yes) for met, yes in _OUTCOMES]
    return np.stack(sums, axis=-1).astype(np.float64)


#: (label, answer) of true and false positives, true and false negatives.
_OUTCOMES = ((True, True), (False, True), (False, False), (True, False))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _figures_of_sums(sums: Floats) -> Floats:
    """Returns log loss, Brier score, kappa, and each point's sensitivity and specificity, [..., 11]."""
    agreement = sums[..., _AGREEMENT]
    square = agreement.reshape(*agreement.shape[:-1], NUM_SEVERITIES, NUM_SEVERITIES)
    by_chance = square.sum(axis=-1)[..., :, None] * square.sum(axis=-2)[..., None, :]
    chance = by_chance.reshape(agreement.shape) @ _DISTANCES
    figures = [
        _ratio(sums[..., 0], sums[..., 1]),
        _ratio(sums[..., 2], sums[..., 3]),
        # Cohen 1968: 1 less observed over expected disagreement.
        1.0 - _ratio(agreement @ _DISTANCES * sums[..., 3], chance),
    ]
    outcomes = sums[..., _AGREEMENT.stop :].reshape(*sums.shape[:-1], len(OPERATING_POINTS), len(_OUTCOMES))
    for index in range(len(OPERATING_POINTS)):
        hits, alarms, rejections, misses = np.moveaxis(outcomes[..., index, :], -1, 0)
        figures += [_ratio(hits, hits + misses), _ratio(rejections, rejections + alarms)]
    return np.stack(figures, axis=-1)


def make_cells(
    judged: EvaluatedTable,
    prior: Floats,
    groups: Mapping[str, list[int]],
    *,
    num_resamples: int,
    seed: int,
) -> tuple[Cell, ...]:
    """Returns a cell for each group of findings.

    Args:
        judged: labels and answers.
        prior: the floor, float64 [num_studies, 25, 3].
        groups: name -> rows of the findings that are pooled.
        num_resamples: of the bootstrap over studies.
        seed: of the bootstrap.
    """
    sums = _study_sums(judged)
    flat = sums.reshape(len(sums), -1)
    is_pooled = np.array(
        [[row in rows for row in range(NUM_FINDINGS)] for rows in groups.values()], np.float64
    )
    ranked = [[rank_target(judged, rows, target) for target in Target] for rows in groups.values()]

    def figures(counts: Floats) -> Floats:
        resampled = (counts @ flat).reshape(len(counts), NUM_FINDINGS, -1)
        pooled = _figures_of_sums(is_pooled @ resampled)
        areas = np.stack([np.stack([each.auc(counts) for each in pair], -1) for pair in ranked], axis=1)
        return np.concatenate([areas, pooled], axis=-1).reshape(len(counts), -1)

    intervals = bootstrap_counts(figures, len(sums), num_resamples=num_resamples, seed=seed)
    size = len(intervals) // len(groups)
    return tuple(
        _make_cell(name, rows, judged, prior, intervals[index * size : (index + 1) * size])
        for index, (name, rows) in enumerate(groups.items())
    )


def _make_cell(
    name: str, rows: list[int], judged: EvaluatedTable, prior: Floats, intervals: Sequence[Interval]
) -> Cell:
    labels, answers, _ = judged.rows(rows)
    auc_not_normal, auc_severe, log_loss, brier, kappa, *points = intervals
    return Cell(
        name=name,
        counts=tuple(int((labels == severity).sum()) for severity in Severity),
        log_loss=log_loss,
        prior_log_loss=weighted_log_loss(judged.labels[:, rows], prior[:, rows]),
        auc_severe=auc_severe,
        auc_not_normal=auc_not_normal,
        kappa=kappa,
        brier=brier,
        calibration_error=classwise_calibration_error(labels, answers),
        operating_points={
            point.name: PointFigures(*points[2 * index : 2 * index + 2])
            for index, point in enumerate(OPERATING_POINTS)
        },
    )
