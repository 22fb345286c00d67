"""Fitting one network on one fold after another, resumable at every epoch.

A network is built and its step compiled once; each fold starts from fresh weights in the same
graph, which saves a trace of 5 to 20 seconds a fold. What is on disk after an epoch, and why a run that
was killed ends as if it had not been, is told in `checkpoints`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import EarlyStoppingConfig, TrainingConfig
from lumbar_tf.models.backbones import load_weights, synchronise_batch_norm
from lumbar_tf.models.keras_compat import skip_symbolic_build
from lumbar_tf.training.checkpoints import Progress, save_weights
from lumbar_tf.training.devices import make_optimizer
from lumbar_tf.training.fold_metadata import write_fold_metadata
from lumbar_tf.training.learning_rate import Schedule
from lumbar_tf.training.tensorboard_logger import TensorBoardLogger, contact_sheet
from lumbar_tf.training.validation import Judge, evaluate_loss
from lumbar_tf.training.weight_averaging import averaged_weights

#: What is used: the last epoch's weights, or the best epoch's where training stops early.
WEIGHTS_NAME = "weights.weights.h5"
#: The last epoch's weights where those above are another's.
LAST_NAME = "last.weights.h5"
_BEST_NAME = "best.weights.h5"
_BOARD_NAME = "tensorboard"

#: Reports one finished epoch: (epochs done, epochs in all, the epoch's row of the history).
EpochReport = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class FoldData:
    """What one fold trains on.

    Attributes:
        train: returns batches of (inputs, targets), without end, from an epoch (counted from 0) on; the
            same for an epoch however often and from where on it is asked.
        num_batches: full batches in an epoch of `train`.
        validation: batches of (inputs, targets) of the held-out fold, or None. They are looked at, and
            decide nothing.
        watched: batches of training studies that are kept out of `train` for early stopping.
        judge: what is said of the network on either of them.
        initial: weights of the whole network to start from; None starts from fresh ones.
    """

    train: Callable[[int], tf.data.Dataset]
    num_batches: int
    validation: tf.data.Dataset | None
    watched: tf.data.Dataset | None = None
    judge: Judge = evaluate_loss
    initial: Path | None = None


class Fitter:
    """A compiled network that can be fitted again and again from fresh weights."""

    def __init__(
        self,
        build: Callable[[], keras.Model],
        *,
        training: TrainingConfig,
        loss: keras.losses.Loss | None,
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Builds and compiles.

        Args:
            build: makes the network with fresh weights; called once here and once a fold.
            training: schedule and optimizer.
            loss: None where the network computes its own.
            strategy: the devices.

        Raises:
            ValueError: the strategy has several replicas, and they cannot share a batch evenly or are
                to be compiled by XLA.
        """
        self._build = build
        self._training = training
        self._num_replicas = strategy.num_replicas_in_sync
        _check_replicas(training, self._num_replicas)
        with strategy.scope():
            self.model = build()
            if self._num_replicas > 1:
                synchronise_batch_norm(self.model)
                skip_symbolic_build(self.model)
            optimizer = make_optimizer(
                learning_rate=training.learning_rate,
                weight_decay=training.weight_decay,
                clip_norm=training.clip_norm,
                ema_momentum=training.ema_momentum,
            )
            self.model.compile(optimizer, loss=loss, jit_compile=training.jit_compile)
            # Under mixed_float16 `compile` wraps the optimizer in loss scaling: the model's own is meant from
            # here on. Built now, or the first step would be traced twice: once to make its variables.
            self.model.optimizer.build(self.model.trainable_variables)
            self._fresh_state = [variable.numpy() for variable in self.model.optimizer.variables]

    def fit(self, data: FoldData, directory: Path, *, seed: int, report: EpochReport | None = None) -> None:
        """Trains one fold, or what is left of it, and leaves the weights in `model`.

        Args:
            data: the fold.
            directory: takes `weights.weights.h5` (and `last.weights.h5`), `fold.json`, `history.json`,
                `checkpoint/` and `tensorboard/`.
            seed: of the fresh weights and of dropout.
            report: called after each epoch.
        """
        weights = directory / WEIGHTS_NAME
        if weights.is_file():
            self.model.load_weights(weights)
            return
        self._start_fresh(seed)
        if data.initial is not None:
            load_weights(self.model, data.initial)
        progress = Progress(self.model, directory)
        progress.restore()
        if progress.epoch < self._training.epochs and not _is_stopped(self._training, progress):
            self._run(data, directory, progress, report)
        else:
            # Killed after its last epoch: what `fit` does at its end, the averaged weights, is still to do.
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        files = self._keep_weights(directory, progress)
        write_fold_metadata(
            directory,
            files,
            seed=seed,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch or progress.epoch,
            num_replicas=self._num_replicas,
        )

    def _start_fresh(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        fresh = self._build()
        # Not only the weights: dropout's seeds too, or a fold would depend on those before it.
        for variable, other in zip(self.model.variables, fresh.variables, strict=True):
            variable.assign(other)
        for variable, value in zip(self.model.optimizer.variables, self._fresh_state, strict=True):
            variable.assign(value)

    def _run(self, data: FoldData, directory: Path, progress: Progress, report: EpochReport | None) -> None:
        train = data.train(progress.epoch)
        board = TensorBoardLogger(directory / _BOARD_NAME)
        if progress.epoch == 0 and self._training.board_pictures:
            _show_first_batch(board, train)
        schedule = Schedule(self._training, num_batches=data.num_batches, start_epoch=progress.epoch)
        try:
            self.model.fit(
                train,
                steps_per_epoch=data.num_batches,
                shuffle=False,
                initial_epoch=progress.epoch,
                epochs=self._training.epochs,
                callbacks=[
                    schedule,
                    _EpochEnd(directory, self._training, data, progress, schedule, board, report),
                ],
                verbose=0,
            )
        finally:
            board.close()

    def _keep_weights(self, directory: Path, progress: Progress) -> list[Path]:
        """Writes the weights that are used, and the last where they are others, and loads the former."""
        weights, last, best = (directory / name for name in (WEIGHTS_NAME, LAST_NAME, _BEST_NAME))
        if not progress.best_epoch:
            save_weights(self.model, weights)
            return [weights]
        save_weights(self.model, last)
        self.model.load_weights(best)
        save_weights(self.model, weights)
        best.unlink()
        return [weights, last]


def _check_replicas(training: TrainingConfig, num_replicas: int) -> None:
    if num_replicas > 1 and training.jit_compile:
        raise ValueError(
            "`jit_compile` must be off where several devices share a batch: Keras cannot compile their "
            f"exchange. Received: jit_compile with {num_replicas} devices."
        )
    if training.batch_studies % num_replicas:
        raise ValueError(
            "`batch_studies` must be a multiple of the devices that share a batch. "
            f"Received: {training.batch_studies} studies, {num_replicas} devices."
        )


def _is_stopped(training: TrainingConfig, progress: Progress) -> bool:
    """Whether early stopping has had enough."""
    stopping = training.early_stopping
    return (
        stopping is not None
        and progress.best_epoch > 0
        and progress.epoch - progress.best_epoch >= stopping.patience
    )


def _show_first_batch(board: TensorBoardLogger, train: tf.data.Dataset) -> None:
    for inputs, _ in train.take(1):
        # A network that is fed something else than pictures has none to show.
        with suppress(TypeError, KeyError):
            board.write_picture("first_batch", contact_sheet(inputs["image"].numpy()), epoch=0)


class _EpochEnd(keras.callbacks.Callback):
    """Judges the network after each epoch and writes down how far it is."""

    def __init__(
        self,
        directory: Path,
        training: TrainingConfig,
        data: FoldData,
        progress: Progress,
        schedule: Schedule,
        board: TensorBoardLogger,
        report: EpochReport | None,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._training = training
        self._data = data
        self._progress = progress
        self._schedule = schedule
        self._board = board
        self._report = report
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": float(epoch + 1), "loss": float((logs or {})["loss"])}
        if not np.isfinite(row["loss"]):
            raise ValueError(
                f"The loss must stay finite. Received: {row['loss']} ({self._directory}, epoch {epoch + 1})."
            )
        row |= self._judge(epoch + 1)
        row["learning_rate"] = self._schedule.rate
        row["seconds"] = round(time.monotonic() - self._started, 2)
        self._board.write_epoch(epoch + 1, row)
        self._progress.save(row)
        if self._report is not None:
            self._report(epoch + 1, self._training.epochs, row)
        if _is_stopped(self._training, self._progress):
            self.model.stop_training = True

    def _judge(self, epoch: int) -> dict[str, float]:
        """Returns the epoch's numbers on studies that do not train; the averaged weights answer."""
        every, stopping = self._training.validate_every, self._training.early_stopping
        numbers: dict[str, float] = {}
        with averaged_weights(self.model):
            if self._data.validation is not None and every and epoch % every == 0:
                verdict = self._data.judge(self.model, self._data.validation)
                numbers |= {f"val_{name}": value for name, value in verdict.numbers.items()}
                for name, picture in verdict.pictures.items():
                    self._board.write_picture(name, picture, epoch=epoch)
            if self._data.watched is not None and stopping is not None:
                watched = self._data.judge(self.model, self._data.watched).numbers
                numbers |= {f"watched_{name}": value for name, value in watched.items()}
                if self._progress.note_best(_watched_number(watched, stopping)):
                    save_weights(self.model, self._directory / _BEST_NAME)
        return numbers


def _watched_number(numbers: dict[str, float], stopping: EarlyStoppingConfig) -> float:
    if stopping.metric not in numbers:
        raise ValueError(
            f"early_stopping.metric must be one of {', '.join(numbers)} here. Received: {stopping.metric!r}."
        )
    return numbers[stopping.metric]
