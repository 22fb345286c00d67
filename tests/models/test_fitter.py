import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import TrainingConfig
from lumbar_tf.models.fitter import EpochReport, Fitter, FoldData, learning_rate_share


class _StoppedError(Exception):
    """Stands for a kill."""


def _build() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])


def _training(**changes: object) -> TrainingConfig:
    values = {"epochs": 5, "batch_studies": 4, "learning_rate": 0.01, "validate_every": 2, **changes}
    return TrainingConfig.model_validate(values)


def _fitter(training: TrainingConfig) -> Fitter:
    return Fitter(
        _build, training=training, loss=keras.losses.MeanSquaredError(), strategy=tf.distribute.get_strategy()
    )


def _data() -> FoldData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True))).batch(4)
    # One endless order: epochs are then the same however often training is started again.
    return FoldData(train=dataset.repeat(), num_batches=3, validation=dataset)


def _stop_after(epoch: int) -> EpochReport:
    def report(done: int, total: int, row: dict[str, float]) -> None:
        if done == epoch:
            raise _StoppedError

    return report


def _history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())


def _curves(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in _history(folder)]


@pytest.mark.parametrize("ema_momentum", [0.0, 0.9])
@pytest.mark.parametrize("epoch", [2, 5])
def test_an_interrupted_fold_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, epoch: int, ema_momentum: float
) -> None:
    training = _training(ema_momentum=ema_momentum)
    whole = _fitter(training)
    whole.fit(_data(), tmp_path / "whole", seed=1)
    stopped = _fitter(training)
    with pytest.raises(_StoppedError):
        stopped.fit(_data(), tmp_path / "stopped", seed=1, report=_stop_after(epoch))
    assert len(_history(tmp_path / "stopped")) == epoch
    assert not (tmp_path / "stopped" / "weights.weights.h5").exists()
    seen: list[int] = []
    # Another process would build anew; so does this.
    again = _fitter(training)
    again.fit(_data(), tmp_path / "stopped", seed=1, report=lambda done, total, row: seen.append(done))
    assert seen == list(range(epoch + 1, 6))
    assert [row["epoch"] for row in _history(tmp_path / "stopped")] == [1, 2, 3, 4, 5]
    for one, other in zip(_curves(tmp_path / "whole"), _curves(tmp_path / "stopped"), strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_finished_fold_is_loaded_not_trained_again(tmp_path: Path) -> None:
    fitter = _fitter(_training())
    fitter.fit(_data(), tmp_path, seed=1)
    before = fitter.model.get_weights()
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "checkpoint",
        "history.json",
        "tensorboard",
        "weights.weights.h5",
    ]
    again = _fitter(_training())
    again.fit(_data(), tmp_path, seed=1, report=_stop_after(1))
    for one, other in zip(before, again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_fold_starts_afresh_from_its_own_seed(tmp_path: Path) -> None:
    fitter = _fitter(_training())
    for name, seed in (("a", 1), ("b", 2), ("again", 1)):
        fitter.fit(_data(), tmp_path / name, seed=seed)
    assert _curves(tmp_path / "a") == _curves(tmp_path / "again")
    assert _curves(tmp_path / "a")[0]["loss"] != _curves(tmp_path / "b")[0]["loss"]


def test_the_history_has_validation_and_the_schedule(tmp_path: Path) -> None:
    _fitter(_training(warmup_fraction=0.2)).fit(_data(), tmp_path, seed=0)
    history = _history(tmp_path)
    assert [("val_loss" in row) for row in history] == [False, True, False, True, False]
    assert history[-1]["loss"] < history[0]["loss"]
    # The rate of an epoch's last step of three, of 15 in all.
    expected = [0.01 * learning_rate_share(step, 15, warmup_fraction=0.2) for step in (2, 5, 8, 11, 14)]
    np.testing.assert_allclose([row["learning_rate"] for row in history], expected, rtol=1e-5)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    data = _data()
    broken = FoldData(data.train.map(lambda x, y: (x, y * float("nan"))), data.num_batches, None)
    with pytest.raises(ValueError, match=r"finite.*epoch 1"):
        _fitter(_training()).fit(broken, tmp_path, seed=0)
    assert not (tmp_path / "weights.weights.h5").exists()


def test_the_learning_rate_warms_up_and_falls_to_nearly_nothing() -> None:
    shares = [learning_rate_share(step, 100, warmup_fraction=0.1) for step in range(100)]
    np.testing.assert_allclose(shares[:10], np.arange(1, 11) / 10)
    assert shares[10] == max(shares) == 1.0
    assert (np.diff(shares[10:]) < 0).all()
    assert shares[55] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.001


@pytest.mark.parametrize(("total", "fraction"), [(1, 0.0), (1, 1.0), (3, 1.0), (5, 0.01)])
def test_the_learning_rate_is_sound_for_short_trainings(total: int, fraction: float) -> None:
    shares = [learning_rate_share(step, total, warmup_fraction=fraction) for step in range(total)]
    assert all(0 < share <= 1 for share in shares)
