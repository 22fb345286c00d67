import numpy as np
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from lumbar_tf.ensemble.regression import fit_softmax


def _problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(200, 4))
    labels = (features @ generator.normal(size=(4, 3)) + generator.gumbel(size=(200, 3))).argmax(axis=1)
    return features, labels, generator.uniform(0.5, 4.0, 200)


def _own_column_for_each_class(features: np.ndarray) -> np.ndarray:
    num_rows, num_features = features.shape
    return np.einsum("nf,ik->nikf", features, np.eye(3)).reshape(num_rows, 3, 3 * num_features)


def test_equals_scikit_learn_where_both_shrink_to_zero() -> None:
    features, labels, weights = _problem()
    reference = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(features, labels, sample_weight=weights)
    fitted = fit_softmax(
        _own_column_for_each_class(features), labels, weights, centre=np.zeros(12), precision=np.full(12, 2.0)
    )
    assert_allclose(fitted.reshape(3, 4), reference.coef_, atol=1e-5)


def test_without_rows_the_answer_is_the_centre() -> None:
    centre = np.arange(4.0)
    fitted = fit_softmax(
        np.zeros((0, 3, 4)), np.zeros(0, int), np.zeros(0), centre=centre, precision=np.ones(4)
    )
    assert_allclose(fitted, centre)


def test_a_strong_ridge_keeps_to_the_centre_and_a_weak_one_leaves_it() -> None:
    features, labels, weights = _problem()
    design = _own_column_for_each_class(features)
    centre = np.full(12, 0.3)
    strong = fit_softmax(design, labels, weights, centre=centre, precision=np.full(12, 1e9))
    weak = fit_softmax(design, labels, weights, centre=centre, precision=np.full(12, 0.1))
    assert_allclose(strong, centre, atol=1e-6)
    assert np.abs(weak - centre).max() > 0.5


def test_separable_rows_still_end() -> None:
    features = np.eye(3)[[0, 1, 2] * 5] * 50.0
    fitted = fit_softmax(
        _own_column_for_each_class(features),
        np.array([0, 1, 2] * 5),
        np.ones(15),
        centre=np.full(9, -5.0),
        precision=np.full(9, 1e-3),
    )
    assert np.isfinite(fitted).all()
