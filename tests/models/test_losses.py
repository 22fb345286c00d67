import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from lumbar_tf.config import GraderConfig
from lumbar_tf.evaluation.metrics import competition_score
from lumbar_tf.labels import FINDINGS, Family
from lumbar_tf.models.losses import LOSSES, MetricLoss, OrdinalSeverityLoss, WeightedSeverityLoss, build_loss

WEIGHTS = np.array([1.0, 2.0, 4.0])
ROWS = {"canal": range(5), "foraminal": range(5, 15), "axial": [*range(5), *range(15, 25)], "all": range(25)}
SEEDS = {"seed": st.integers(0, 10_000), "missing": st.sampled_from([0.0, 0.3, 0.9])}


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _targets(labels: np.ndarray) -> np.ndarray:
    """One-hot, all 0 where the label is -1."""
    return np.eye(3, dtype=np.float32)[np.maximum(labels, 0)] * (labels >= 0)[..., None]


def _table(rows: list[int], seed: int, missing: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels [4, rows] and logits [4, rows, 3]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (4, len(rows)))
    labels[rng.random(labels.shape) < missing] = -1
    return labels, rng.normal(0, 3, (*labels.shape, 3)).astype(np.float32)


def _by_family(
    rows: list[int], labels: np.ndarray, logits: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each family's known labels [n] and answers [n, 3], families without any left out."""
    found = []
    for family in Family:
        columns = [place for place, row in enumerate(rows) if FINDINGS[row].condition.family is family]
        grades = labels[:, columns].ravel()
        answers = _softmax(logits[:, columns].reshape(-1, 3).astype(np.float64))
        if (grades >= 0).any():
            found.append((grades[grades >= 0], answers[grades >= 0]))
    return found


def _weighted(grades: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> float:
    return float(log_loss(grades, answers, sample_weight=weights[grades], labels=[0, 1, 2]))


def _ordinal(grades: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> float:
    """Mean over both thresholds of scikit-learn's binary log loss."""
    return float(
        np.mean(
            [
                log_loss(
                    grades >= threshold,
                    answers[:, threshold:].sum(axis=1),
                    sample_weight=weights[grades],
                    labels=[False, True],
                )
                for threshold in (1, 2)
            ]
        )
    )


@pytest.mark.parametrize("is_weighted", [True, False])
@pytest.mark.parametrize(
    ("kind", "reference"), [(WeightedSeverityLoss, _weighted), (OrdinalSeverityLoss, _ordinal)]
)
@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=8)
@given(**SEEDS)
def test_is_the_mean_over_families_of_scikit_learns_log_loss(
    name: str, kind: type, reference: object, is_weighted: bool, seed: int, missing: float
) -> None:
    rows = list(ROWS[name])
    labels, logits = _table(rows, seed, missing)
    weights = WEIGHTS if is_weighted else np.ones(3)
    terms = [reference(*family, weights) for family in _by_family(rows, labels, logits)]  # type: ignore[operator]
    loss = kind(rows, is_weighted=is_weighted)(_targets(labels), logits)
    assert float(loss) == pytest.approx(np.mean(terms) if terms else 0.0, rel=1e-4, abs=1e-6)


def test_a_familys_term_counts_by_its_own_weight() -> None:
    rows = list(range(25))
    labels, logits = _table(rows, 3, 0.2)
    terms = [_weighted(*family, WEIGHTS) for family in _by_family(rows, labels, logits)]
    shares = {Family.CANAL: 1.0, Family.FORAMINAL: 0.25, Family.SUBARTICULAR: 0.5}
    loss = WeightedSeverityLoss(rows, family_weights=shares)(_targets(labels), logits)
    assert float(loss) == pytest.approx(np.average(terms, weights=list(shares.values())), rel=1e-4)
    whole, part = (
        MetricLoss(rows, family_weights=weights)(_targets(labels), logits)
        for weights in (None, {Family.FORAMINAL: 1e-6, Family.SUBARTICULAR: 1e-6})
    )
    any_severe = 4 * float(whole) - sum(terms)
    assert float(part) == pytest.approx((terms[0] + any_severe) / 2, rel=1e-3)


@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=15)
@given(**SEEDS)
def test_the_metric_loss_is_the_competition_score_in_the_limit(name: str, seed: int, missing: float) -> None:
    rows = list(ROWS[name])
    labels, logits = _table(rows, seed, missing)
    table, answers = np.full((4, 25), -1), np.full((4, 25, 3), 1 / 3)
    table[:, rows], answers[:, rows] = labels, _softmax(logits.astype(np.float64))
    score = competition_score(table, answers).score
    loss = MetricLoss(rows, sharpness=1e4)(_targets(labels), logits)
    assert float(loss) == pytest.approx(0.0 if np.isnan(score) else score, rel=1e-3, abs=1e-5)


def test_the_smooth_maximum_lies_below_the_maximum_and_pulls_on_every_level() -> None:
    severe = np.array([0.15, 0.3, 0.2, 0.29, 0.25])
    logits = tf.Variable(
        np.log(np.stack([1 - severe, 0 * severe + 1e-9, severe], -1))[None], dtype=tf.float32
    )
    targets = _targets(np.array([[0, 2, 0, 0, 0]]))
    with tf.GradientTape() as tape:
        smooth = MetricLoss(range(5))(targets, logits) * 2 - WeightedSeverityLoss(range(5))(targets, logits)
    # -log of the any-severe term's prediction.
    shares = severe**8 / (severe**8).sum()
    assert 0.3 * 5 ** (-1 / 8) <= np.exp(-float(smooth)) == pytest.approx((shares * severe).sum(), rel=1e-4)
    assert np.exp(-float(smooth)) < 0.3
    pull = tape.gradient(smooth, logits).numpy()[0, :, 2]
    assert (pull < 0).all()
    assert np.argsort(pull).tolist() == np.argsort(-severe).tolist()


@pytest.mark.parametrize("kind", LOSSES.values())
def test_a_mixture_costs_what_its_parts_cost(kind: type) -> None:
    # One row, so that the weights are seen: 0.75 Normal/Mild and 0.25 Severe, whose weights are 1 and 4.
    logits = np.array([[[0.3, -1.0, 0.8]]], np.float32)
    parts = [
        float(WeightedSeverityLoss.__call__(kind([5]), _targets(np.array([[k]])), logits)) for k in (0, 2)
    ]
    mixed = float(kind([5])(np.array([[[0.75, 0.0, 0.25]]], np.float32), logits))
    assert mixed == pytest.approx(
        (0.75 * 1 * parts[0] + 0.25 * 4 * parts[1]) / (0.75 * 1 + 0.25 * 4), rel=1e-5
    )


@pytest.mark.parametrize("kind", LOSSES.values())
def test_a_batch_without_labels_costs_nothing_and_pulls_nowhere(kind: type) -> None:
    logits = tf.Variable(tf.random.stateless_normal((2, 5, 3), [0, 0]))
    with tf.GradientTape() as tape:
        loss = kind(range(5))(tf.zeros((2, 5, 3)), logits)
    assert float(loss) == 0.0
    assert not np.any(tape.gradient(loss, logits))


@pytest.mark.parametrize("kind", LOSSES.values())
def test_missing_labels_get_no_gradient(kind: type) -> None:
    labels = np.array([[0, -1, 2, -1, 1], [-1, -1, -1, -1, -1], [-1, 0, 0, 0, 0]])
    logits = tf.Variable(tf.random.stateless_normal((3, 5, 3), [0, 0], stddev=20.0))
    with tf.GradientTape() as tape:
        loss = kind(range(5))(_targets(labels), logits)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[labels < 0] == 0.0).all()
    gentle = tf.Variable(logits / 20.0)
    with tf.GradientTape() as tape:
        loss = kind(range(5))(_targets(labels), gentle)
    assert (np.abs(tape.gradient(loss, gentle).numpy()).sum(axis=-1) > 0).tolist() == (labels >= 0).tolist()


@pytest.mark.parametrize("kind", LOSSES.values())
def test_certain_answers_stay_finite(kind: type) -> None:
    logits = tf.Variable(np.array([[[500.0, 0, -500], [-500, 0, 500]]], np.float32))
    with tf.GradientTape() as tape:
        loss = kind(range(2))(_targets(np.array([[2, 0]])), logits)
    assert np.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_an_ordinal_error_of_two_grades_costs_more_than_one_of_one() -> None:
    loss = OrdinalSeverityLoss([0])
    sure_of_normal = np.log([[[0.9, 0.09, 0.01]]]).astype(np.float32)
    sure_but_moderate = np.log([[[0.01, 0.9, 0.09]]]).astype(np.float32)
    severe = _targets(np.array([[2]]))
    ratio = float(loss(severe, sure_of_normal)) / float(loss(severe, sure_but_moderate))
    assert ratio > 2
    # The plain cross-entropy sees only p(severe).
    swapped = np.log([[[0.9, 0.01, 0.09]]]).astype(np.float32)
    plain = WeightedSeverityLoss([0])
    assert float(plain(severe, swapped)) == pytest.approx(float(plain(severe, sure_but_moderate)), rel=1e-5)
    assert float(loss(severe, swapped)) > float(loss(severe, sure_but_moderate))


def test_every_loss_that_a_configuration_can_name_is_built() -> None:
    names = GraderConfig.model_fields["loss"].annotation.__args__  # type: ignore[union-attr]
    assert set(names) == set(LOSSES)
    for name in names:
        assert type(build_loss(name, range(5))) is LOSSES[name]


_TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
from lumbar_tf.models.losses import LOSSES
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x = rng.normal(size=(4, 6)).astype("float32")
# Labels dealt unevenly: the replicas' own averages would differ from the whole batch's.
labels = np.array([[2, 2, 1, 0, 0], [2, 0, 0, 0, 0], [0, -1, -1, -1, -1], [-1, -1, -1, -1, 0]])
y = np.eye(3, dtype="float32")[np.maximum(labels, 0)] * (labels >= 0)[..., None]
data = tf.data.Dataset.from_tensors((x, y)).unbatch().batch(4).repeat()
# One for all: TensorFlow counts collective operations by strategy, and two of them mix theirs up.
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, kind in LOSSES.items():
    histories = []
    for strategy in (tf.distribute.get_strategy(), mirrored):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            layers = [keras.Input((6,)), keras.layers.Dense(15), keras.layers.Reshape((5, 3))]
            model = keras.Sequential(layers)
            model.compile(keras.optimizers.SGD(0.5), loss=kind(range(5)), jit_compile=False)
        histories.append(model.fit(data, steps_per_epoch=1, epochs=4, verbose=0).history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-5, err_msg=name)
    assert histories[0][3] < histories[0][0]
"""


@pytest.mark.slow
def test_two_replicas_follow_the_whole_batchs_loss() -> None:
    # In a process of its own: logical devices are chosen before TensorFlow starts.
    command = [sys.executable, "-c", _TWO_DEVICES]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
