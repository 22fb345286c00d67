import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, cohen_kappa_score, confusion_matrix, roc_auc_score

from lumbar_tf.evaluation.discrimination import auc, brier_score, confusion, quadratic_kappa


def _rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    # Rounded, so that there are ties.
    return generator.choice(3, 200, p=[0.6, 0.3, 0.1]), generator.dirichlet([1, 1, 1], 200).round(1)


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_scikit_learns(seed: int) -> None:
    labels, probabilities = _rows(seed)
    predictions = probabilities.argmax(axis=1)
    assert auc(labels == 2, probabilities[:, 2]) == pytest.approx(
        roc_auc_score(labels == 2, probabilities[:, 2])
    )
    kappa = cohen_kappa_score(labels, predictions, weights="quadratic")
    assert quadratic_kappa(labels, predictions) == pytest.approx(kappa)
    assert (confusion(labels, predictions) == confusion_matrix(labels, predictions, labels=[0, 1, 2])).all()
    by_class = [brier_score_loss(labels == k, probabilities[:, k]) for k in range(3)]
    assert brier_score(labels, probabilities) == pytest.approx(sum(by_class))


def test_undefined_figures_are_nan() -> None:
    zeros = np.zeros(3, int)
    assert math.isnan(auc(zeros == 1, np.arange(3.0)))
    assert math.isnan(quadratic_kappa(zeros, zeros))
    assert math.isnan(brier_score(zeros[:0], np.zeros((0, 3))))
    assert math.isnan(quadratic_kappa(zeros[:0], zeros[:0]))
