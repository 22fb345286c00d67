import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from lumbar_tf.labels import FINDINGS, Family
from lumbar_tf.models.losses import WeightedSeverityLoss

WEIGHTS = np.array([1.0, 2.0, 4.0])


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _reference(rows: list[int], labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean over families of scikit-learn's log loss with the competition's sample weights."""
    losses = []
    for family in Family:
        columns = [place for place, row in enumerate(rows) if FINDINGS[row].condition.family is family]
        grades = labels[:, columns].ravel()
        answers = _softmax(logits[:, columns].reshape(-1, 3).astype(np.float64))
        known = grades >= 0
        if known.any():
            losses.append(
                log_loss(
                    grades[known], answers[known], sample_weight=WEIGHTS[grades[known]], labels=[0, 1, 2]
                )
            )
    return float(np.mean(losses)) if losses else 0.0


ROWS = {"canal": range(5), "foraminal": range(5, 15), "axial": [*range(5), *range(15, 25)], "all": range(25)}


@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), missing=st.sampled_from([0.0, 0.3, 0.9]))
def test_is_the_mean_over_families_of_scikit_learns_weighted_log_loss(
    name: str, seed: int, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = list(ROWS[name])
    labels = rng.integers(0, 3, (4, len(rows)))
    labels[rng.random(labels.shape) < missing] = -1
    logits = rng.normal(0, 3, (*labels.shape, 3)).astype(np.float32)
    loss = WeightedSeverityLoss(rows)(labels, logits)
    assert float(loss) == pytest.approx(_reference(rows, labels, logits), rel=1e-4, abs=1e-6)


def test_a_batch_without_labels_costs_nothing_and_pulls_nowhere() -> None:
    logits = tf.Variable(tf.random.stateless_normal((2, 5, 3), [0, 0]))
    with tf.GradientTape() as tape:
        loss = WeightedSeverityLoss(range(5))(-tf.ones((2, 5), tf.int32), logits)
    assert float(loss) == 0.0
    assert not np.any(tape.gradient(loss, logits))


def test_missing_labels_get_no_gradient() -> None:
    labels = np.array([[0, -1, 2, -1, 1]])
    logits = tf.Variable(tf.random.stateless_normal((1, 5, 3), [0, 0]))
    with tf.GradientTape() as tape:
        loss = WeightedSeverityLoss(range(5))(labels, logits)
    moved = np.abs(tape.gradient(loss, logits).numpy()).sum(axis=-1)[0] > 0
    assert moved.tolist() == [True, False, True, False, True]
