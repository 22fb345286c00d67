import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, cohen_kappa_score, log_loss, recall_score, roc_auc_score

from lumbar_tf.evaluation.bootstrap import bootstrap
from lumbar_tf.evaluation.cells import Cell, make_cells
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, FAMILIES, SINGLE_FINDINGS, EvaluatedTable
from lumbar_tf.evaluation.metrics import condition_level_prior, weighted_log_loss
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS, Target

_NUM_STUDIES = 80


@pytest.fixture(scope="module")
def evaluated() -> EvaluatedTable:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(_NUM_STUDIES, 25), p=[0.6, 0.25, 0.15])
    logits = np.eye(3)[labels] * 1.5 + generator.normal(size=(_NUM_STUDIES, 25, 3))
    answers = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels[generator.random(labels.shape) < 0.2] = -1
    answers[labels == -1] = np.nan
    return EvaluatedTable(labels, answers, answers)


def _cells(
    evaluated: EvaluatedTable, groups: dict[str, list[int]], num_resamples: int = 60
) -> tuple[Cell, ...]:
    prior = np.broadcast_to(condition_level_prior(evaluated.labels), (_NUM_STUDIES, 25, 3))
    return make_cells(evaluated, prior, groups, num_resamples=num_resamples, seed=3)


@pytest.mark.parametrize("groups", [FAMILIES, CONDITIONS, dict(list(SINGLE_FINDINGS.items())[::6])])
def test_metrics_equal_scikit_learns(evaluated: EvaluatedTable, groups: dict[str, list[int]]) -> None:
    for cell, rows in zip(_cells(evaluated, groups), groups.values(), strict=True):
        known = evaluated.labels[:, rows] >= 0
        labels, answers = evaluated.labels[:, rows][known], evaluated.answers[:, rows][known]
        predicted = answers.argmax(axis=1)
        assert cell.counts == tuple(np.bincount(labels, minlength=3))
        expected = {
            "log_loss": log_loss(labels, answers, sample_weight=2.0**labels, labels=[0, 1, 2]),
            "auc_severe": roc_auc_score(labels == 2, answers[:, 2]),
            "auc_not_normal": roc_auc_score(labels > 0, answers[:, 1] + answers[:, 2]),
            "kappa": cohen_kappa_score(labels, predicted, weights="quadratic"),
            "brier": sum(brier_score_loss(labels == k, answers[:, k]) for k in range(3)),
        }
        for name, value in expected.items():
            assert cell.metrics[name].value == pytest.approx(value, abs=1e-12), name
        for name, is_met, says_yes in (
            ("not_normal_most_probable", labels > 0, predicted > 0),
            ("not_normal_half", labels > 0, answers[:, 0] <= 0.5),
            ("severe_most_probable", labels == 2, predicted == 2),
            ("severe_fifth", labels == 2, answers[:, 2] >= 0.2),
        ):
            found = cell.operating_points[name]
            assert found.sensitivity.value == pytest.approx(recall_score(is_met, says_yes))
            assert found.specificity.value == pytest.approx(recall_score(~is_met, ~says_yes))


def test_intervals_equal_those_of_metrics_recomputed_in_every_resample(evaluated: EvaluatedTable) -> None:
    (cell,) = _cells(evaluated, {"foraminal": FAMILIES["foraminal"]})
    rows = FAMILIES["foraminal"]

    def figures(indices: np.ndarray) -> np.ndarray:
        known = evaluated.labels[indices][:, rows] >= 0
        labels, answers = (
            evaluated.labels[indices][:, rows][known],
            evaluated.answers[indices][:, rows][known],
        )
        says_yes = answers[:, 2] >= 0.2
        return np.array(
            [
                weighted_log_loss(labels, answers),
                roc_auc_score(labels == 2, answers[:, 2]),
                cohen_kappa_score(labels, answers.argmax(axis=1), weights="quadratic"),
                recall_score(labels == 2, says_yes),
            ]
        )

    expected = bootstrap(figures, _NUM_STUDIES, seed=3, num_resamples=60)
    found = (
        *(cell.metrics[name] for name in ("log_loss", "auc_severe", "kappa")),
        cell.operating_points["severe_fifth"].sensitivity,
    )
    for one, other in zip(found, expected, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx(
            (other.value, other.low, other.high), abs=1e-12
        )


def test_cells_hold_every_label_once(evaluated: EvaluatedTable) -> None:
    for groups in (FAMILIES, CONDITIONS, SINGLE_FINDINGS):
        assert sorted(row for rows in groups.values() for row in rows) == list(range(25))
        cells = _cells(evaluated, groups, num_resamples=2)
        assert sum(sum(cell.counts) for cell in cells) == (evaluated.labels >= 0).sum()


def test_a_metric_without_its_labels_is_nan_and_marked_as_of_few(evaluated: EvaluatedTable) -> None:
    labels = np.where(evaluated.labels == 2, 1, evaluated.labels)
    labels[:, 3] = -1
    alone = EvaluatedTable(labels, evaluated.table, evaluated.answers)
    (pooled, nothing) = _cells(alone, {"canal": FAMILIES["canal"], "one": [3]}, num_resamples=5)
    assert math.isnan(pooled.metrics["auc_severe"].value) and math.isnan(pooled.metrics["auc_severe"].low)
    assert math.isnan(pooled.operating_points["severe_fifth"].sensitivity.value)
    assert pooled.operating_points["severe_fifth"].specificity.value > 0.5
    assert pooled.has_few(Target.SEVERE) and not pooled.has_few(Target.NOT_NORMAL)
    assert pooled.num_positive(Target.NOT_NORMAL) == pooled.counts[1]
    assert nothing.counts == (0, 0, 0)
    assert math.isnan(nothing.metrics["log_loss"].value) and math.isnan(nothing.metrics["kappa"].value)
    assert set(nothing.operating_points) == {point.name for point in OPERATING_POINTS}
