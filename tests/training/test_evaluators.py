import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.evaluation.metrics import competition_score
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, Family, Plane
from lumbar_tf.models.losses import WeightedSeverityLoss
from lumbar_tf.training.evaluators import GradingEvaluator, confusion_picture, confusions

ROWS = range(25)
ALL = CropLayout(Plane.AXIAL_T2, tuple(Family))


@pytest.fixture
def answered() -> tuple[np.ndarray, np.ndarray]:
    """Labels [40, 25], some missing, and logits."""
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 3, (40, 25))
    return labels, rng.normal(size=(40, 25, 3)).astype(np.float32)


def _targets(labels: np.ndarray) -> np.ndarray:
    return np.where(labels[..., None] == np.arange(3), 1.0, 0.0).astype(np.float32)


class Echo(keras.Model):
    """Returns its input."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return inputs


def test_metric_is_computed_over_all_studies_for_any_batch_size(
    answered: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, logits = answered
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()
    expected = competition_score(labels, probabilities).score
    evaluator = GradingEvaluator(ALL, WeightedSeverityLoss(ROWS), draws_confusions=True)
    dataset = tf.data.Dataset.from_tensor_slices((logits, _targets(labels)))
    results = [evaluator(Echo(), dataset.batch(size)) for size in (40, 7)]
    for verdict in results:
        assert verdict.numbers["weighted_log_loss"] == pytest.approx(expected, rel=2e-3)
        assert verdict.numbers["loss"] == pytest.approx(results[0].numbers["loss"], rel=1e-6)
    picture = results[0].pictures["confusion"]
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert len(np.unique(picture)) > 10


def test_auxiliary_families_do_not_enter_the_metric(answered: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = answered
    foramina = [row for row in ROWS if FINDINGS[row].condition.family is Family.FORAMINAL]
    other = logits.copy()
    other[:, foramina] = -other[:, foramina]
    layout = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR), (Family.FORAMINAL,))
    evaluator = GradingEvaluator(layout, WeightedSeverityLoss(ROWS), draws_confusions=False)
    first, second = (
        evaluator(Echo(), tf.data.Dataset.from_tensor_slices((values, _targets(labels))).batch(40)).numbers
        for values in (logits, other)
    )
    assert first["weighted_log_loss"] == second["weighted_log_loss"]
    assert first["loss"] != second["loss"]


def test_confusions_count_every_label_once(answered: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = answered
    families = [finding.condition.family for finding in FINDINGS]
    counts = confusions(_targets(labels), logits, families)
    assert set(counts) == set(Family)
    assert sum(matrix.sum() for matrix in counts.values()) == (labels >= 0).sum()
    canal = [row for row in ROWS if families[row] is Family.CANAL]
    is_moderate = labels[:, canal] == 1
    assert counts[Family.CANAL][1, 2] == (logits[:, canal].argmax(-1)[is_moderate] == 2).sum()
    assert confusion_picture({Family.CANAL: counts[Family.CANAL]}).shape[1] < 300
