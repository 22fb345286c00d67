import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import TrainingConfig
from lumbar_tf.training.evaluators import ValidationResult, evaluate_loss
from lumbar_tf.training.fitter import EpochReport, Fitter, FoldData
from lumbar_tf.training.learning_rate import learning_rate_share
from lumbar_tf.training.metadata import read_fold_metadata


class _StoppedError(Exception):
    """Stands for a kill."""


def _build() -> keras.Model:
    """Has all that a run must carry over: batch statistics, dropout's seeds, weights."""
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )


def _training(**changes: object) -> TrainingConfig:
    values = {"epochs": 5, "batch_studies": 4, "learning_rate": 0.01, "validate_every": 2, **changes}
    return TrainingConfig.model_validate(values)


def _fitter(training: TrainingConfig) -> Fitter:
    return Fitter(
        _build, training=training, loss=keras.losses.MeanSquaredError(), strategy=tf.distribute.get_strategy()
    )


def _batches(start_epoch: int) -> tf.data.Dataset:
    """Three batches an epoch, other ones each epoch."""

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        x = tf.random.stateless_normal((12, 3), tf.stack([number, tf.constant(3, tf.int64)]))
        return tf.data.Dataset.from_tensor_slices((x, tf.reduce_sum(x, axis=1, keepdims=True)))

    return tf.data.Dataset.counter(start_epoch).flat_map(epoch).batch(4, drop_remainder=True)


def _data(**changes: Any) -> FoldData:
    held_out = _batches(1000).take(3)
    return FoldData(**{"train": _batches, "num_batches": 3, "validation": held_out, **changes})


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
def test_interrupted_fold_resumes_with_the_same_result(
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
    assert _curves(tmp_path / "whole") == _curves(tmp_path / "stopped")
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(other, one)


def test_finished_fold_is_loaded(tmp_path: Path) -> None:
    fitter = _fitter(_training())
    fitter.fit(_data(), tmp_path, seed=1)
    before = fitter.model.get_weights()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint",
        "fold.json",
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


def test_validation_on_an_unknown_number_of_batches_warns_of_nothing() -> None:
    fitter = _fitter(_training())
    held_out = _batches(1000).take(3)
    unknown = held_out.filter(lambda *_: True)
    assert unknown.cardinality() == tf.data.UNKNOWN_CARDINALITY
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = evaluate_loss(fitter.model, unknown).numbers
    assert numbers == evaluate_loss(fitter.model, held_out).numbers


def test_infinite_loss_is_an_error(tmp_path: Path) -> None:
    broken = _data(train=lambda epoch: _batches(epoch).map(lambda x, y: (x, y * float("nan"))))
    with pytest.raises(ValueError, match=r"finite.*epoch 1"):
        _fitter(_training()).fit(broken, tmp_path, seed=0)
    assert not (tmp_path / "weights.weights.h5").exists()


def test_folds_do_not_depend_on_earlier_folds(tmp_path: Path) -> None:
    after_another = _fitter(_training())
    after_another.fit(_data(), tmp_path / "first", seed=1)
    after_another.fit(_data(), tmp_path / "second", seed=2)
    alone = _fitter(_training())
    alone.fit(_data(), tmp_path / "alone", seed=2)
    assert _curves(tmp_path / "second") == _curves(tmp_path / "alone")
    for one, other in zip(after_another.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_validation_uses_averaged_weights_without_changing_training(tmp_path: Path) -> None:
    """With validation after every epoch or after none, a run is the same, bit for bit."""
    seen: list[list[np.ndarray]] = []

    def evaluator(model: keras.Model, dataset: tf.data.Dataset) -> ValidationResult:
        seen.append(model.get_weights())
        return ValidationResult({"loss": 0.0})

    weights = {}
    for every in (0, 1):
        fitter = _fitter(_training(ema_momentum=0.9, validate_every=every))
        fitter.fit(_data(evaluator=evaluator), tmp_path / str(every), seed=1)
        weights[every] = fitter.model.get_weights()
        losses = [row["loss"] for row in _history(tmp_path / str(every))]
        assert len(set(losses)) == 5
    for one, other in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(seen) == 5
    # What was validated last is what is kept.
    for one, other in zip(seen[-1], weights[1], strict=True):
        np.testing.assert_array_equal(one, other)
    raw = _fitter(_training(validate_every=0))
    raw.fit(_data(), tmp_path / "raw", seed=1)
    assert not np.array_equal(raw.model.get_weights()[0], weights[0][0])


class TestEarlyStopping:
    """Early stopping with scripted losses."""

    def _fit(self, folder: Path, losses: list[float], *, stop_after: int | None = None) -> Fitter:
        seen = len(_history(folder)) if (folder / "history.json").is_file() else 0
        script = iter(losses[seen:])

        def evaluator(model: keras.Model, dataset: tf.data.Dataset) -> ValidationResult:
            return ValidationResult({"loss": next(script), "other": 0.0})

        training = _training(validate_every=0, epochs=9, early_stopping={"patience": 2})
        fitter = _fitter(training)
        report = _stop_after(stop_after) if stop_after else None
        fitter.fit(
            _data(early_stopping=_batches(2000).take(1), evaluator=evaluator), folder, seed=4, report=report
        )
        return fitter

    def test_the_best_epochs_weights_are_used_and_the_last_are_kept(self, tmp_path: Path) -> None:
        fitter = self._fit(tmp_path / "all", [3.0, 2.0, 2.0, 2.5, 0.0])
        assert [row["watched_loss"] for row in _history(tmp_path / "all")] == [3.0, 2.0, 2.0, 2.5]
        record = read_fold_metadata(tmp_path / "all")
        assert record is not None and (record.epochs, record.best_epoch) == (4, 2)
        assert sorted(record.weights_sha256) == ["last.weights.h5", "weights.weights.h5"]
        used = fitter.model.get_weights()
        fitter.model.load_weights(tmp_path / "all" / "last.weights.h5")
        assert not np.array_equal(used[0], fitter.model.get_weights()[0])
        assert not list((tmp_path / "all").glob("best*"))

    @pytest.mark.parametrize("epoch", [1, 2, 3, 4])
    def test_interrupted_early_stopping_resumes_with_the_same_result(
        self, tmp_path: Path, epoch: int
    ) -> None:
        losses = [3.0, 2.0, 2.0, 2.5, 0.0]
        whole = self._fit(tmp_path / "whole", losses)
        with pytest.raises(_StoppedError):
            self._fit(tmp_path / "stopped", losses, stop_after=epoch)
        again = self._fit(tmp_path / "stopped", losses)
        assert _curves(tmp_path / "stopped") == _curves(tmp_path / "whole")
        for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_unknown_early_stopping_metric_is_refused(self, tmp_path: Path) -> None:
        training = _training(early_stopping={"patience": 2, "metric": "weighted_log_loss"})
        with pytest.raises(ValueError, match="weighted_log_loss"):
            _fitter(training).fit(_data(early_stopping=_batches(0).take(1)), tmp_path, seed=0)


def test_held_out_fold_does_not_stop_training(tmp_path: Path) -> None:
    """Without early-stopping studies all epochs are trained."""
    fitter = _fitter(_training(validate_every=1, early_stopping={"patience": 1}))
    fitter.fit(_data(), tmp_path, seed=0)
    assert len(_history(tmp_path)) == 5
    assert not (tmp_path / "last.weights.h5").exists()


def test_a_fold_can_start_from_another_runs_weights(tmp_path: Path) -> None:
    _fitter(_training()).fit(_data(), tmp_path / "first", seed=1)
    weights = tmp_path / "first" / "weights.weights.h5"
    _fitter(_training()).fit(_data(initial=weights), tmp_path / "second", seed=2)
    assert _curves(tmp_path / "second")[0]["loss"] < _curves(tmp_path / "first")[0]["loss"]


def test_fold_metadata_describes_the_weights(tmp_path: Path) -> None:
    _fitter(_training()).fit(_data(), tmp_path, seed=7)
    record = read_fold_metadata(tmp_path)
    assert record is not None
    assert (record.seed, record.epochs, record.best_epoch, record.num_replicas) == (7, 5, 5, 1)
    assert record.packages["tensorflow"] == tf.__version__
    digest = hashlib.sha256((tmp_path / "weights.weights.h5").read_bytes()).hexdigest()
    assert record.weights_sha256 == {"weights.weights.h5": digest}
    assert read_fold_metadata(tmp_path / "elsewhere") is None
