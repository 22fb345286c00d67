import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score, roc_curve

from lumbar_tf.evaluation.ranking import RankedRows, rank_rows

_NUM_STUDIES = 40


def _rows(seed: int, digits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, RankedRows]:
    """Rows of several findings a study; few digits make ties."""
    generator = np.random.default_rng(seed)
    studies = np.repeat(np.arange(_NUM_STUDIES), 5)
    is_positive = generator.random(200) < 0.3
    scores = (generator.normal(size=200) + is_positive).round(digits)
    return is_positive, scores, studies, rank_rows(is_positive, scores, studies)


@pytest.mark.parametrize("digits", [0, 1, 12])
@pytest.mark.parametrize("seed", range(3))
def test_areas_of_resamples_equal_scikit_learns(seed: int, digits: int) -> None:
    is_positive, scores, studies, ranked = _rows(seed, digits)
    counts = np.random.default_rng(seed).poisson(1.0, (4, _NUM_STUDIES)).astype(np.float64)
    expected = [roc_auc_score(is_positive, scores, sample_weight=row[studies]) for row in counts]
    assert_allclose(ranked.auc(counts), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("digits", [0, 1, 12])
def test_curves_of_resamples_pass_through_scikit_learns_cut_offs(digits: int) -> None:
    is_positive, scores, studies, ranked = _rows(5, digits)
    counts = np.random.default_rng(5).poisson(1.0, (3, _NUM_STUDIES)).astype(np.float64)
    for row in counts:
        alarms, hits, _ = roc_curve(is_positive, scores, sample_weight=row[studies], drop_intermediate=False)
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
