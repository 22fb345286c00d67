import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from lumbar_tf.ensemble.calibration import (
    apply_temperature,
    classwise_calibration_error,
    fit_temperature,
    reliability_bins,
)


def _table(seed: int, temperature: float = 1.0, num_rows: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those probabilities sharpened by `temperature`."""
    generator = np.random.default_rng(seed)
    truth = generator.dirichlet([2.0, 1.0, 0.5], num_rows)
    labels = (generator.random((num_rows, 1)) > truth.cumsum(axis=1)[:, :2]).sum(axis=1)
    sharpened = truth ** (1 / temperature)
    return labels, sharpened / sharpened.sum(axis=1, keepdims=True)


def test_finds_the_temperature_that_was_put_in() -> None:
    labels, overconfident = _table(0, temperature=0.5)
    assert fit_temperature(labels, overconfident) == pytest.approx(2.0, abs=0.1)


def test_equals_a_search_over_scikit_learns_log_loss() -> None:
    labels, probabilities = _table(1, temperature=0.7, num_rows=400)
    weights = np.random.default_rng(2).uniform(0.5, 4, 400)

    def loss(temperature: float) -> float:
        return log_loss(labels, apply_temperature(probabilities, temperature), sample_weight=weights)

    expected = minimize_scalar(loss, bounds=(0.2, 5), method="bounded", options={"xatol": 1e-8}).x
    assert fit_temperature(labels, probabilities, weights) == pytest.approx(expected, rel=1e-4)


def test_missing_labels_and_predictions_change_nothing() -> None:
    labels, probabilities = _table(3, num_rows=300)
    holes = (
        np.concatenate([labels, [-1, 2]]),
        np.concatenate([probabilities, [[0.1, 0.1, 0.8], [np.nan] * 3]]),
    )
    assert fit_temperature(*holes) == fit_temperature(labels, probabilities)


def test_without_labels_the_temperature_is_one() -> None:
    assert fit_temperature(np.array([-1]), np.array([[0.2, 0.3, 0.5]])) == 1.0


def test_temperature_keeps_rows_summing_to_one_and_their_order() -> None:
    _, probabilities = _table(4, num_rows=200)
    softened = apply_temperature(probabilities, 3.0)
    assert_allclose(softened.sum(axis=1), 1.0)
    assert (softened.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_bins_equal_scikit_learns_calibration_curve() -> None:
    labels, probabilities = _table(5, temperature=0.6)
    bins = reliability_bins(labels == 1, probabilities[:, 1], num_bins=10)
    observed, predicted = calibration_curve(labels == 1, probabilities[:, 1], n_bins=10)
    filled = bins.counts > 0
    assert_allclose(bins.observed[filled], observed)
    assert_allclose(bins.predicted[filled], predicted)


def test_error_is_near_zero_when_calibrated_and_large_when_not() -> None:
    calibrated, overconfident = _table(6, num_rows=20000), _table(6, temperature=0.4, num_rows=20000)
    assert classwise_calibration_error(*calibrated) < 0.01
    assert classwise_calibration_error(*overconfident) > 0.04


def test_certain_predictions_fall_into_the_last_bin() -> None:
    bins = reliability_bins(np.array([True, True]), np.array([1.0, 0.95]), num_bins=10)
    assert bins.counts.tolist() == [0] * 9 + [2]
