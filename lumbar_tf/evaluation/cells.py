"""Metrics of pooled findings (a condition at a level, a condition, a family), with intervals over studies.

`METRICS` declares every metric once: its key in `metrics.json`, its heading in tables and pages, and its
computation. All metrics except areas under curves are functions of sums over studies (of losses, of entries
of confusion matrices). The sums of a bootstrap resample are weighted sums of the studies' contributions, so
the sums of many resamples are one matrix product.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, bootstrap_counts
from lumbar_tf.evaluation.curves import rank_target
from lumbar_tf.evaluation.evaluated_table import EvaluatedTable
from lumbar_tf.evaluation.metrics import log_losses, sample_weights, weighted_log_loss
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS, OperatingPoint, Target
from lumbar_tf.evaluation.reliability import classwise_calibration_error
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, NUM_SEVERITIES, Severity

Floats = NDArray[np.float64]

#: A metric of a class with fewer labels is unreliable and its percentile interval too narrow: reports mark
#: it.
FEW_LABELS = 10

#: (prediction - label) ** 2, the weights of kappa, [9].
_DISTANCES = (np.arange(NUM_SEVERITIES)[:, None] - np.arange(NUM_SEVERITIES)[None, :]).ravel() ** 2.0
#: (label, prediction) of true and false positives, true and false negatives.
_OUTCOMES = ((True, True), (False, True), (False, False), (True, False))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of pooled findings.

    Attributes:
        name: key in `metrics.json`.
        title: heading of its column.
        target: the yes-or-no question whose labels it needs; None for a metric of all three grades.
    """

    name: str
    title: str
    target: Target | None = None
    has_interval: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SumMetric(Metric):
    """A metric that is a function of sums over studies, with an interval.

    Attributes:
        study_sums: returns the contribution of each study and finding, float64 [num_studies, 25, num_sums].
        value: returns the metric [...] of sums [..., num_sums].
    """

    study_sums: Callable[[EvaluatedTable], Floats]
    value: Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class AreaMetric(Metric):
    """Area under the ROC curve of the probability of `target`, with an interval."""

    target: Target


@dataclass(frozen=True, kw_only=True)
class PlainMetric(Metric):
    """A metric without an interval.

    Attributes:
        value: returns the metric of a table, of the prior [num_studies, 25, 3], and of the indices of
            findings.
    """

    has_interval: ClassVar[bool] = False

    value: Callable[[EvaluatedTable, Floats, Sequence[int]], float]


def _divide(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _grades(evaluated: EvaluatedTable) -> tuple[NDArray[np.bool_], NDArray[np.integer], Floats]:
    """Returns where there is a label, labels with 0 for missing ones, and probabilities with 1 for NaN."""
    known = evaluated.labels != MISSING_LABEL
    answers = np.where(np.isnan(evaluated.answers), 1.0, evaluated.answers)
    return known, np.where(known, evaluated.labels, 0), answers


def _loss_sums(evaluated: EvaluatedTable) -> Floats:
    weights = sample_weights(evaluated.labels)
    return np.stack([weights * log_losses(evaluated.labels, evaluated.table), weights], axis=-1)


def _distance_sums(evaluated: EvaluatedTable) -> Floats:
    known, grades, answers = _grades(evaluated)
    distances = ((answers - np.eye(NUM_SEVERITIES)[grades]) ** 2).sum(axis=-1)
    return np.stack([np.where(known, distances, 0.0), known], axis=-1)


def _confusion_sums(evaluated: EvaluatedTable) -> Floats:
    known, grades, answers = _grades(evaluated)
    places = grades * NUM_SEVERITIES + answers.argmax(axis=-1)
    return np.stack([known & (places == place) for place in range(NUM_SEVERITIES**2)], axis=-1).astype(float)


def _outcome_sums(evaluated: EvaluatedTable, point: OperatingPoint) -> Floats:
    known, grades, answers = _grades(evaluated)
    is_met, is_predicted = point.target.is_met(grades), point.is_predicted(answers)
    sums = [known & (is_met == met) & (is_predicted == yes) for met, yes in _OUTCOMES]
    return np.stack(sums, axis=-1).astype(float)


def _mean_of_sums(sums: Floats) -> Floats:
    return _divide(sums[..., 0], sums[..., 1])


def _quadratic_kappa(agreement: Floats) -> Floats:
    """Returns Cohen's kappa of confusion matrices [..., 9]: 1 minus observed over expected disagreement.

    Source: Cohen 1968, "Weighted kappa", Psychological Bulletin 70: 213.
    """
    square = agreement.reshape(*agreement.shape[:-1], NUM_SEVERITIES, NUM_SEVERITIES)
    by_chance = square.sum(axis=-1)[..., :, None] * square.sum(axis=-2)[..., None, :]
    expected = by_chance.reshape(agreement.shape) @ _DISTANCES
    return 1.0 - _divide(agreement @ _DISTANCES * agreement.sum(axis=-1), expected)


def _sensitivity(outcomes: Floats) -> Floats:
    hits, _, _, misses = np.moveaxis(outcomes, -1, 0)
    return _divide(hits, hits + misses)


def _specificity(outcomes: Floats) -> Floats:
    _, alarms, rejections, _ = np.moveaxis(outcomes, -1, 0)
    return _divide(rejections, rejections + alarms)


def _prior_log_loss(evaluated: EvaluatedTable, prior: Floats, rows: Sequence[int]) -> float:
    return weighted_log_loss(evaluated.labels[:, rows], prior[:, rows])


def _calibration_error(evaluated: EvaluatedTable, prior: Floats, rows: Sequence[int]) -> float:
    labels, answers, _ = evaluated.rows(rows)
    return classwise_calibration_error(labels, answers)


#: The metrics of a cell, in the order of tables.
METRICS: tuple[Metric, ...] = (
    # Weights 1, 2, 4, of the predictions as given.
    SumMetric(name="log_loss", title="Weighted log loss", study_sums=_loss_sums, value=_mean_of_sums),
    # The same of the condition-by-level prior of these labels.
    PlainMetric(name="prior_log_loss", title="Prior log loss", value=_prior_log_loss),
    AreaMetric(name="auc_severe", title="AUC severe", target=Target.SEVERE),
    AreaMetric(name="auc_not_normal", title="AUC not normal", target=Target.NOT_NORMAL),
    # Of the most probable grade.
    SumMetric(name="kappa", title="Quadratic kappa", study_sums=_confusion_sums, value=_quadratic_kappa),
    # Mean squared distance to the one-hot label over the three classes, 0 to 2.
    SumMetric(name="brier", title="Brier score", study_sums=_distance_sums, value=_mean_of_sums),
    # No interval: the repeats in a resample make its error larger than that of the data.
    PlainMetric(name="calibration_error", title="Class-wise ECE", value=_calibration_error),
)


def _point_metrics(point: OperatingPoint) -> tuple[SumMetric, SumMetric]:
    sums = partial(_outcome_sums, point=point)
    return (
        SumMetric(name=f"{point.name}/sensitivity", title="Sensitivity", study_sums=sums, value=_sensitivity),
        SumMetric(name=f"{point.name}/specificity", title="Specificity", study_sums=sums, value=_specificity),
    )


_POINT_METRICS = {point.name: _point_metrics(point) for point in OPERATING_POINTS}


@dataclass(frozen=True)
class PointFigures:
    """Sensitivity and specificity at an operating point.

    Attributes:
        sensitivity: share of the positives that are predicted positive; NaN where there is none.
        specificity: share of the negatives that are predicted negative; NaN where there is none.
    """

    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True)
class Cell:
    """Metrics of some findings pooled.

    Attributes:
        name: name of a family, a condition, or a finding.
        counts: number of labels of each grade.
        metrics: value and interval by the name of the metric, in the order of `METRICS`; the bounds of a
            `PlainMetric` are NaN.
        operating_points: by name, see `operating_points.OPERATING_POINTS`.
    """

    name: str
    counts: tuple[int, ...]
    metrics: Mapping[str, Interval]
    operating_points: Mapping[str, PointFigures]

    def num_positive(self, target: Target) -> int:
        """Returns the number of labels for which the answer to a question is yes."""
        return sum(
            n for grade, n in zip(Severity, self.counts, strict=True) if target.is_met(np.array(grade))
        )

    def has_few(self, target: Target | None) -> bool:
        """Returns whether either answer to the question has fewer than `FEW_LABELS` labels; no for None."""
        if target is None:
            return False
        positives = self.num_positive(target)
        return min(positives, sum(self.counts) - positives) < FEW_LABELS


def make_cells(
    evaluated: EvaluatedTable,
    prior: Floats,
    groups: Mapping[str, list[int]],
    *,
    num_resamples: int,
    seed: int,
) -> tuple[Cell, ...]:
    """Returns a cell for each group of findings.

    Args:
        evaluated: labels and predictions.
        prior: the condition-by-level prior, float64 [num_studies, 25, 3].
        groups: name -> indices of the findings that are pooled.
        num_resamples: number of bootstrap resamples of studies.
        seed: seed of the bootstrap.
    """
    intervals = _bootstrap_metrics(evaluated, groups, num_resamples=num_resamples, seed=seed)
    return tuple(_make_cell(name, rows, evaluated, prior, intervals[name]) for name, rows in groups.items())


def _bootstrap_metrics(
    evaluated: EvaluatedTable, groups: Mapping[str, list[int]], *, num_resamples: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Returns value and interval of every metric that has one, by group and metric."""
    areas = [metric for metric in METRICS if isinstance(metric, AreaMetric)]
    sum_metrics = [metric for metric in METRICS if isinstance(metric, SumMetric)]
    sum_metrics += [metric for pair in _POINT_METRICS.values() for metric in pair]
    # Metrics of the same sums share them.
    parts = {metric.study_sums: metric.study_sums(evaluated) for metric in sum_metrics}
    ends = np.cumsum([part.shape[-1] for part in parts.values()])
    flat = np.concatenate(list(parts.values()), axis=-1).reshape(len(evaluated.labels), -1)
    is_pooled = np.array(
        [[row in rows for row in range(NUM_FINDINGS)] for rows in groups.values()], np.float64
    )
    ranked = [[rank_target(evaluated, rows, area.target) for area in areas] for rows in groups.values()]
    names = [metric.name for metric in (*areas, *sum_metrics)]

    def statistics(counts: Floats) -> Floats:
        """Returns the metrics of some resamples, [num_resamples, num_groups * num_metrics]."""
        sums = is_pooled @ (counts @ flat).reshape(len(counts), NUM_FINDINGS, -1)
        own = dict(zip(parts, np.split(sums, ends[:-1], axis=-1), strict=True))
        values = [metric.value(own[metric.study_sums]) for metric in sum_metrics]
        area_values = [np.stack([rows.auc(counts) for rows in line], axis=-1) for line in ranked]
        together = np.concatenate([np.stack(area_values, axis=1), np.stack(values, axis=-1)], axis=-1)
        return together.reshape(len(counts), -1)

    found = iter(bootstrap_counts(statistics, len(flat), num_resamples=num_resamples, seed=seed))
    return {group: {name: next(found) for name in names} for group in groups}


def _make_cell(
    name: str, rows: list[int], evaluated: EvaluatedTable, prior: Floats, intervals: Mapping[str, Interval]
) -> Cell:
    labels, _, _ = evaluated.rows(rows)
    return Cell(
        name=name,
        counts=tuple(int((labels == severity).sum()) for severity in Severity),
        metrics={
            metric.name: Interval(metric.value(evaluated, prior, rows), np.nan, np.nan)
            if isinstance(metric, PlainMetric)
            else intervals[metric.name]
            for metric in METRICS
        },
        operating_points={
            name: PointFigures(*(intervals[metric.name] for metric in pair))
            for name, pair in _POINT_METRICS.items()
        },
    )


def cell_json(cell: Cell) -> dict[str, object]:
    """Returns a cell as `metrics.json` has it: metrics at the top, those without an interval as a number."""
    metrics = {
        metric.name: asdict(cell.metrics[metric.name])
        if metric.has_interval
        else cell.metrics[metric.name].value
        for metric in METRICS
    }
    points = {name: asdict(figures) for name, figures in cell.operating_points.items()}
    return {"name": cell.name, "counts": cell.counts, **metrics, "operating_points": points}
