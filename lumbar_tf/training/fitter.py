"""Fitting of one network on one fold after another, resumable after every epoch.

A network is built and its train step traced once; each fold starts from fresh weights in the same graph,
which saves 5 to 20 seconds of tracing per fold. `checkpoints` describes the files of a fold and why a killed
run ends like an uninterrupted one.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import TrainingConfig
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.models.backbones import load_weights, synchronise_batch_norm
from lumbar_tf.models.fold_ensemble import assign_weights
from lumbar_tf.models.keras_compat import skip_symbolic_build
from lumbar_tf.training.callbacks import (
    EpochEnd,
    EpochReport,
    StepReport,
    TensorBoardLogger,
    contact_sheet,
    is_stopped,
)
from lumbar_tf.training.checkpoints import (
    BEST_NAME,
    LAST_NAME,
    WEIGHTS_NAME,
    TrainingProgress,
    save_weights,
)
from lumbar_tf.training.devices import make_optimizer
from lumbar_tf.training.evaluators import Evaluator, evaluate_loss
from lumbar_tf.training.learning_rate import LearningRateSchedule
from lumbar_tf.training.metadata import write_fold_metadata

_TENSORBOARD_NAME = "tensorboard"


class TrainDatasetFactory(Protocol):
    """Function that returns endless batches of (inputs, targets) of some studies."""

    def __call__(self, source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        """See `inputs.study_batches.training_batches`; `fold` is the held-out fold."""


class EvalDatasetFactory(Protocol):
    """Function that returns batches of (inputs, targets, study_id) of some studies, each study once."""

    def __call__(self, source: RecordSource, *, fold: int) -> tf.data.Dataset:
        """See `inputs.study_batches.evaluation_batches`; `fold` is the held-out fold."""


@dataclass(frozen=True)
class PretrainingStep:
    """First of two training steps of a grader; the second step keeps its features.

    Attributes:
        build: builds the network with fresh weights, all of them trainable.
        training: schedule and optimizer.
        loss: loss without class weights.
    """

    build: Callable[[], keras.Model]
    training: TrainingConfig
    loss: keras.losses.Loss


@dataclass(frozen=True)
class TrainingTask:
    """Everything that cross-validation needs to train a localizer or a grader of one plane.

    Attributes:
        build: builds the network with fresh weights.
        training: schedule and optimizer.
        loss: loss, or None for a network with its own `compute_loss`.
        train_dataset: returns training batches.
        eval_dataset: returns batches of (inputs, targets, study_id) in the order of the files.
        evaluator: evaluates the network during training.
        check_source: raises ValueError if the network cannot be trained on the studies.
        write_predictions: writes a held-out fold's table, from the network, the fold's evaluation batches and
            its number.
        pretraining: first training step, or None.
    """

    build: Callable[[], keras.Model]
    training: TrainingConfig
    loss: keras.losses.Loss | None
    train_dataset: TrainDatasetFactory
    eval_dataset: EvalDatasetFactory
    evaluator: Evaluator
    check_source: Callable[[RecordSource], None]
    write_predictions: Callable[[keras.Model, tf.data.Dataset, int], None]
    pretraining: PretrainingStep | None = None


@dataclass(frozen=True)
class FoldData:
    """Data and initial weights of one fold.

    Attributes:
        train: returns endless batches of (inputs, targets) from an epoch on, counted from 0; the batches of
            an epoch do not depend on the first epoch.
        num_batches: full batches in an epoch of `train`.
        validation: batches of (inputs, targets) of the held-out fold, or None. They are evaluated only, and
            do not influence training.
        early_stopping: batches of training studies that are excluded from `train` for early stopping, or
            None.
        evaluator: evaluates the network on either of them.
        initial: weights of the whole network to start from, a file or a vector (see `initial_weights`); None
            starts from fresh weights.
    """

    train: Callable[[int], tf.data.Dataset]
    num_batches: int
    validation: tf.data.Dataset | None
    early_stopping: tf.data.Dataset | None = None
    evaluator: Evaluator = evaluate_loss
    initial: Path | NDArray[np.float32] | None = None


class Fitter:
    """A compiled network that is fitted repeatedly from fresh weights."""

    def __init__(
        self,
        build: Callable[[], keras.Model],
        *,
        training: TrainingConfig,
        loss: keras.losses.Loss | None,
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Builds and compiles the network.

        Args:
            build: builds the network with fresh weights; called once here and once per fold.
            training: schedule and optimizer.
            loss: loss, or None for a network with its own `compute_loss`.
            strategy: devices.

        Raises:
            ValueError: the strategy has several replicas, and `batch_studies` is not a multiple of them or
                `jit_compile` is set.
        """
        self._build = build
        self._training = training
        self._num_replicas = strategy.num_replicas_in_sync
        check_replicas(training, self._num_replicas)
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
            # `compile` wraps the optimizer in loss scaling under mixed_float16, so the model's own optimizer
            # is used from here on. Without this call the first step would be traced twice.
            self.model.optimizer.build(self.model.trainable_variables)
            self._fresh_state = [variable.numpy() for variable in self.model.optimizer.variables]

    def fit(self, data: FoldData, directory: Path, *, seed: int, report: EpochReport | None = None) -> None:
        """Trains the remaining epochs of one fold and leaves the final weights in `model`.

        Args:
            data: the fold.
            directory: receives `weights.weights.h5` (and `last.weights.h5`), `fold.json`, `history.json`,
                `checkpoint/` and `tensorboard/`.
            seed: seed of fresh weights and dropout.
            report: called after each epoch.
        """
        weights = directory / WEIGHTS_NAME
        if weights.is_file():
            self.model.load_weights(weights)
            return
        self._start_fresh(seed)
        if isinstance(data.initial, Path):
            load_weights(self.model, data.initial)
        elif data.initial is not None:
            assign_weights(self.model, data.initial)
        progress = TrainingProgress(self.model, directory)
        progress.restore()
        if progress.epoch < self._training.epochs and not is_stopped(self._training, progress):
            self._fit_epochs(data, directory, progress, report)
        else:
            # Killed after the last epoch: Keras' `fit` would have assigned the averaged weights.
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        files = self._save_final_weights(directory, progress)
        write_fold_metadata(
            directory,
            files,
            seed=seed,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch or progress.epoch,
            num_replicas=self._num_replicas,
        )

    def _start_fresh(self, seed: int) -> None:
        """Resets weights and optimizer; afterwards nothing depends on earlier folds."""
        keras.utils.set_random_seed(seed)
        fresh = self._build()
        # All variables, not only weights: seeds of dropout are variables, too.
        for variable, other in zip(self.model.variables, fresh.variables, strict=True):
            variable.assign(other)
        for variable, value in zip(self.model.optimizer.variables, self._fresh_state, strict=True):
            variable.assign(value)

    def _fit_epochs(
        self, data: FoldData, directory: Path, progress: TrainingProgress, report: EpochReport | None
    ) -> None:
        train = data.train(progress.epoch)
        logger = TensorBoardLogger(directory / _TENSORBOARD_NAME)
        if progress.epoch == 0 and self._training.board_pictures:
            _log_first_batch(logger, train)
        schedule = LearningRateSchedule(
            self._training, num_batches=data.num_batches, start_epoch=progress.epoch
        )
        epoch_end = EpochEnd(
            directory,
            self._training,
            evaluator=data.evaluator,
            validation=data.validation,
            early_stopping=data.early_stopping,
            progress=progress,
            schedule=schedule,
            logger=logger,
            report=report,
        )
        try:
            self.model.fit(
                train,
                steps_per_epoch=data.num_batches,
                shuffle=False,
                initial_epoch=progress.epoch,
                epochs=self._training.epochs,
                callbacks=[schedule, StepReport(directory, num_batches=data.num_batches), epoch_end],
                verbose=0,
            )
        finally:
            logger.close()

    def _save_final_weights(self, directory: Path, progress: TrainingProgress) -> list[Path]:
        """Writes and loads the final weights, and writes the last epoch's weights if they differ."""
        weights, last, best = (directory / name for name in (WEIGHTS_NAME, LAST_NAME, BEST_NAME))
        if not progress.best_epoch:
            save_weights(self.model, weights)
            return [weights]
        save_weights(self.model, last)
        self.model.load_weights(best)
        save_weights(self.model, weights)
        best.unlink()
        return [weights, last]


def check_replicas(training: TrainingConfig, num_replicas: int) -> None:
    """Raises ValueError where a batch cannot be shared by that many devices."""
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


def _log_first_batch(logger: TensorBoardLogger, train: tf.data.Dataset) -> None:
    for inputs, _ in train.take(1):
        # Inputs without images have no pictures.
        with suppress(TypeError, KeyError):
            logger.write_picture("first_batch", contact_sheet(inputs["image"].numpy()), epoch=0)
