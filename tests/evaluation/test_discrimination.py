import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from lumbar_tf.evaluation.discrimination import auc, confusion


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
    assert (confusion(labels, predictions) == confusion_matrix(labels, predictions, labels=[0, 1, 2])).all()


def test_undefined_figures_are_nan() -> None:
    zeros = np.zeros(3, int)
    assert math.isnan(auc(zeros == 1, np.arange(3.0)))
