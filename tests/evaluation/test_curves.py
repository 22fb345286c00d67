import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from lumbar_tf.evaluation.curves import (
    FALSE_POSITIVE_RATES,
    THRESHOLDS,
    RankedRows,
    decision_curve,
    net_benefit,
    rank_rows,
    roc_curve,
)
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, EvaluatedTable
from lumbar_tf.evaluation.operating_points import Target

_ROWS = CONDITIONS["left_subarticular_stenosis"]


@pytest.fixture(scope="module")
def evaluated() -> EvaluatedTable:
    generator = np.random.default_rng(1)
    labels = generator.choice(3, size=(90, 25), p=[0.6, 0.25, 0.15])
    logits = np.eye(3)[labels] * 1.5 + generator.normal(size=(90, 25, 3))
    answers = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels[generator.random(labels.shape) < 0.2] = -1
    answers[labels == -1] = np.nan
    return EvaluatedTable(labels, answers, answers)


def _rows(evaluated: EvaluatedTable) -> tuple[np.ndarray, np.ndarray]:
    known = evaluated.labels[:, _ROWS] >= 0
    return evaluated.labels[:, _ROWS][known], evaluated.answers[:, _ROWS][known]


def test_the_curve_is_scikit_learns_and_lies_in_its_band(evaluated: EvaluatedTable) -> None:
    labels, answers = _rows(evaluated)
    curve = roc_curve(evaluated, _ROWS, Target.SEVERE, num_resamples=200, seed=0)
    alarms, hits, _ = sklearn_roc_curve(labels == 2, answers[:, 2])
    between = ~np.isin(FALSE_POSITIVE_RATES, alarms)
    expected = np.interp(FALSE_POSITIVE_RATES, alarms, hits)
    assert_allclose(curve.sensitivity.value[between], expected[between], atol=1e-12)
    assert (curve.num_positive, curve.num_rows) == ((labels == 2).sum(), labels.size)
    inside = (curve.sensitivity.low <= curve.sensitivity.value) & (
        curve.sensitivity.value <= curve.sensitivity.high
    )
    assert inside.mean() > 0.95
    assert (curve.sensitivity.high - curve.sensitivity.low).max() > 0.05


@pytest.mark.parametrize("target", list(Target))
def test_net_benefit_is_vickers_and_elkins(evaluated: EvaluatedTable, target: Target) -> None:
    labels, answers = _rows(evaluated)
    is_met = labels == 2 if target is Target.SEVERE else labels > 0
    chance = answers[:, 2] if target is Target.SEVERE else 1 - answers[:, 0]
    curve = decision_curve(evaluated, _ROWS, target, num_resamples=50, seed=0)
    for index, threshold in enumerate(THRESHOLDS):
        _, alarms, _, hits = confusion_matrix(is_met, chance >= threshold, labels=[False, True]).ravel()
        odds = threshold / (1 - threshold)
        expected = hits / labels.size - alarms / labels.size * odds
        assert curve.net_benefit.value[index] == pytest.approx(expected, abs=1e-12)
        share = is_met.mean()
        assert curve.treat_all[index] == pytest.approx(share - (1 - share) * odds, abs=1e-12)
    assert (curve.net_benefit.low <= curve.net_benefit.high).all()


def test_the_net_benefit_of_certain_right_answers_is_the_share_of_cases() -> None:
    assert_allclose(
        net_benefit(np.full(3, 20.0), np.zeros(3), np.array([100.0]), np.array([0.1, 0.5, 0.9])), 0.2
    )


def test_a_condition_without_labels_has_no_curves(evaluated: EvaluatedTable) -> None:
    nothing = EvaluatedTable(np.full_like(evaluated.labels, -1), evaluated.table, evaluated.answers)
    curve = decision_curve(nothing, _ROWS, Target.SEVERE, num_resamples=3, seed=0)
    assert np.isnan(curve.net_benefit.value).all() and np.isnan(curve.treat_all).all()
    roc = roc_curve(nothing, _ROWS, Target.SEVERE, num_resamples=3, seed=0)
    assert roc.num_rows == 0 and np.isnan(roc.sensitivity.value).all()


_NUM_STUDIES = 40


def _ranked_rows(seed: int, digits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, RankedRows]:
    """Rows of several findings a study; few digits make ties."""
    generator = np.random.default_rng(seed)
    studies = np.repeat(np.arange(_NUM_STUDIES), 5)
    is_positive = generator.random(200) < 0.3
    scores = (generator.normal(size=200) + is_positive).round(digits)
    return is_positive, scores, studies, rank_rows(is_positive, scores, studies)


@pytest.mark.parametrize("digits", [0, 1, 12])
@pytest.mark.parametrize("seed", range(3))
def test_areas_of_resamples_equal_scikit_learns(seed: int, digits: int) -> None:
    is_positive, scores, studies, ranked = _ranked_rows(seed, digits)
    counts = np.random.default_rng(seed).poisson(1.0, (4, _NUM_STUDIES)).astype(np.float64)
    expected = [roc_auc_score(is_positive, scores, sample_weight=row[studies]) for row in counts]
    assert_allclose(ranked.auc(counts), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("digits", [0, 1, 12])
def test_curves_of_resamples_pass_through_scikit_learns_cut_offs(digits: int) -> None:
    is_positive, scores, studies, ranked = _ranked_rows(5, digits)
    counts = np.random.default_rng(5).poisson(1.0, (3, _NUM_STUDIES)).astype(np.float64)
    for row in counts:
        alarms, hits, _ = sklearn_roc_curve(
            is_positive, scores, sample_weight=row[studies], drop_intermediate=False
        )
        # At one false-positive rate the curve has several sensitivities: the largest is meant.
        rates, places = np.unique(alarms, return_inverse=True)
        largest = np.zeros(rates.size)
        np.maximum.at(largest, places, hits)
        assert_allclose(ranked.sensitivity_at(row[None], rates)[0], largest, atol=1e-12)


def test_a_resample_without_one_of_the_classes_has_no_area() -> None:
    ranked = rank_rows(np.array([True, False]), np.array([0.4, 0.6]), np.arange(2))
    counts = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert_allclose(ranked.auc(counts), [np.nan, np.nan, 0.0])
    assert np.isnan(ranked.sensitivity_at(counts[:2], np.linspace(0, 1, 3))).all()
    nothing = rank_rows(np.zeros(0, bool), np.zeros(0), np.zeros(0, np.intp))
    assert np.isnan(nothing.auc(counts)).all()
    assert np.isnan(nothing.sensitivity_at(counts, np.zeros(1))).all()
