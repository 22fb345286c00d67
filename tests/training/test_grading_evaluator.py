import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.evaluation.metrics import competition_score
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, Family, Plane
from lumbar_tf.models.losses import WeightedSeverityLoss
from lumbar_tf.training.grading_evaluator import GradingEvaluator, confusion_picture, confusions

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
    """Answers with its input."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return inputs


def test_the_metric_is_the_competitions_over_all_studies_whatever_the_batches(
    answered: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, logits = answered
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()
    expected = competition_score(labels, probabilities).score
    judge = GradingEvaluator(ALL, WeightedSeverityLoss(ROWS), draws=True)
    dataset = tf.data.Dataset.from_tensor_slices((logits, _targets(labels)))
    said = [judge(Echo(), dataset.batch(size)) for size in (40, 7)]
    for verdict in said:
        assert verdict.numbers["weighted_log_loss"] == pytest.approx(expected, rel=2e-3)
        assert verdict.numbers["loss"] == pytest.approx(said[0].numbers["loss"], rel=1e-6)
    picture = said[0].pictures["confusion"]
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert len(np.unique(picture)) > 10


def test_auxiliary_families_are_not_judged(answered: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = answered
    foramina = [row for row in ROWS if FINDINGS[row].condition.family is Family.FORAMINAL]
    other = logits.copy()
    other[:, foramina] = -other[:, foramina]
    layout = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR), (Family.FORAMINAL,))
    judge = GradingEvaluator(layout, WeightedSeverityLoss(ROWS), draws=False)
    first, second = (
        judge(Echo(), tf.data.Dataset.from_tensor_slices((each, _targets(labels))).batch(40)).numbers
        for each in (logits, other)
    )
    assert first["weighted_log_loss"] == second["weighted_log_loss"]
    assert first["loss"] != second["loss"]


def test_confusions_count_every_label_once(answered: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = answered
    families = [finding.condition.family for finding in FINDINGS]
    counts = confusions(_targets(labels), logits, families)
    assert set(counts) == set(Family)
    assert sum(each.sum() for each in counts.values()) == (labels >= 0).sum()
    canal = [row for row in ROWS if families[row] is Family.CANAL]
    is_moderate = labels[:, canal] == 1
    assert counts[Family.CANAL][1, 2] == (logits[:, canal].argmax(-1)[is_moderate] == 2).sum()
    assert confusion_picture({Family.CANAL: counts[Family.CANAL]}).shape[1] < 300
