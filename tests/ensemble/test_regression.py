import numpy as np
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from lumbar_tf.ensemble.regression import CONTRASTS, fit_contrasts


def _problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(200, 4))
    labels = (features @ generator.normal(size=(4, 3)) + generator.gumbel(size=(200, 3))).argmax(axis=1)
    return features, labels


def _ridge(strength: float, num_features: int = 4) -> np.ndarray:
    return np.full(2 * num_features, strength) * np.eye(2 * num_features)


def test_contrasts_are_an_orthonormal_basis_of_what_moves_probabilities() -> None:
    assert_allclose(CONTRASTS.T @ CONTRASTS, np.eye(2), atol=1e-15)
    assert_allclose(CONTRASTS.sum(axis=0), 0.0, atol=1e-15)


def test_equals_scikit_learn_where_both_shrink_to_zero() -> None:
    features, labels = _problem()
    reference = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(features, labels)
    fitted = fit_contrasts(features, labels, centre=np.zeros((2, 4)), precision=_ridge(2.0))
    assert_allclose(CONTRASTS @ fitted, reference.coef_, atol=1e-5)


def test_a_start_leads_to_the_same_answer() -> None:
    features, labels = _problem(1)
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(8, 8))
    problem = {"centre": generator.normal(size=(2, 4)), "precision": mixing @ mixing.T + np.eye(8)}
    cold = fit_contrasts(features, labels, **problem)
    far = fit_contrasts(features, labels, start=5 * generator.normal(size=(2, 4)), **problem)
    assert_allclose(far, cold, atol=1e-9)


def test_without_rows_the_answer_is_the_centre() -> None:
    centre = np.arange(8.0).reshape(2, 4)
    fitted = fit_contrasts(np.zeros((0, 4)), np.zeros(0, int), centre=centre, precision=_ridge(1.0))
    assert_allclose(fitted, centre)


def test_a_strong_ridge_keeps_to_the_centre_and_a_weak_one_leaves_it() -> None:
    features, labels = _problem()
    centre = np.full((2, 4), 0.3)
    strong = fit_contrasts(features, labels, centre=centre, precision=_ridge(1e9))
    weak = fit_contrasts(features, labels, centre=centre, precision=_ridge(0.1))
    assert_allclose(strong, centre, atol=1e-6)
    assert np.abs(weak - centre).max() > 0.5


def test_separable_rows_still_end() -> None:
    labels = np.array([0, 1, 2] * 5)
    fitted = fit_contrasts(
        np.eye(3)[labels] * 50.0, labels, centre=np.full((2, 3), -5.0), precision=_ridge(1e-3, 3)
    )
    assert np.isfinite(fitted).all()
