"""Fitting one network on one fold after another, resumable at every epoch.

A network is built and its step compiled once; each fold starts from fresh weights in the same
graph, which saves a trace of 5 to 20 seconds a fold. After each epoch a checkpoint (weights,
optimizer, epoch) and the history are written, so that a killed run goes on where it was. The data
stream starts anew then: order and augmentation are not those of an undisturbed run.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import TrainingConfig
from lumbar_tf.files import replace_atomically

#: Reports one finished epoch: (epochs done, epochs in all, the epoch's row of the history).
EpochReport = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class FoldData:
    """What one fold trains on.

    Attributes:
        train: batches of (inputs, targets), without end.
        num_batches: full batches in an epoch of `train`.
        validation: batches of (inputs, targets), or None.
    """

    train: tf.data.Dataset
    num_batches: int
    validation: tf.data.Dataset | None


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
        """
        self._build = build
        self._training = training
        with strategy.scope():
            self.model = build()
            optimizer = keras.optimizers.AdamW(
                training.learning_rate,
                weight_decay=training.weight_decay,
                global_clipnorm=training.clip_norm,
                use_ema=training.ema_momentum > 0,
                ema_momentum=training.ema_momentum or 0.99,
            )
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            # jit_compile under MirroredStrategy fails with Keras 3, so XLA is not asked for here.
            self.model.compile(optimizer, loss=loss, jit_compile=False)
            # Under mixed_float16 `compile` wraps the optimizer in loss scaling: the model's own is meant from
            # here on. Built now, or the first step would be traced twice: once to make its variables.
            self.model.optimizer.build(self.model.trainable_variables)
            self._fresh_state = [variable.numpy() for variable in self.model.optimizer.variables]

    def fit(self, data: FoldData, directory: Path, *, seed: int, report: EpochReport | None = None) -> None:
        """Trains one fold, or what is left of it, and leaves the weights in `model`.

        Args:
            data: the fold.
            directory: takes `weights.weights.h5`, `history.json`, `checkpoint/` and `tensorboard/`.
            seed: of the fresh weights.
            report: called after each epoch.
        """
        weights = directory / "weights.weights.h5"
        if weights.is_file():
            self.model.load_weights(weights)
            return
        self._start_fresh(seed)
        progress = _Resumable(self.model, directory, self._training, data, report)
        done = progress.restore()
        if done < self._training.epochs:
            self.model.fit(
                data.train,
                steps_per_epoch=data.num_batches,
                shuffle=False,
                initial_epoch=done,
                epochs=self._training.epochs,
                callbacks=[
                    progress,
                    keras.callbacks.TensorBoard(directory / "tensorboard", write_graph=False),
                ],
                verbose=0,
            )
        else:
            # Killed after its last epoch: what `fit` does at its end, the averaged weights, is still to do.
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        with replace_atomically(weights) as temporary:
            # Keras insists on its ending.
            self.model.save_weights(temporary.with_suffix(".weights.h5"))
            temporary.with_suffix(".weights.h5").replace(temporary)

    def _start_fresh(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        fresh = self._build()
        self.model.set_weights(fresh.get_weights())
        for variable, value in zip(self.model.optimizer.variables, self._fresh_state, strict=True):
            variable.assign(value)


class _Resumable(keras.callbacks.Callback):
    """Sets the learning rate, validates, and writes checkpoint and history after each epoch."""

    def __init__(
        self,
        model: keras.Model,
        directory: Path,
        training: TrainingConfig,
        data: FoldData,
        report: EpochReport | None,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._training = training
        self._data = data
        self._report = report
        self._history: list[dict[str, float]] = []
        self._step = 0
        self._started = 0.0
        self._epoch = tf.Variable(0, dtype=tf.int64)
        state = [variable.value for variable in [*model.variables, *model.optimizer.variables]]
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(epoch=self._epoch, state=state), str(directory / "checkpoint"), max_to_keep=1
        )

    def restore(self) -> int:
        """Goes back to the last finished epoch and returns how many are done."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._manager.latest_checkpoint:
            self._manager.checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
            rows = json.loads((self._directory / "history.json").read_text(encoding="utf-8"))
            # The history is written before the checkpoint, so it can only be ahead of it.
            self._history = rows[: int(self._epoch)]
        self._step = int(self._epoch) * self._data.num_batches
        return int(self._epoch)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        total = self._training.epochs * self._data.num_batches
        share = learning_rate_share(self._step, total, warmup_fraction=self._training.warmup_fraction)
        self.model.optimizer.learning_rate = self._training.learning_rate * share
        self._step += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": float(epoch + 1), "loss": float((logs or {})["loss"])}
        every = self._training.validate_every
        if self._data.validation is not None and every and (epoch + 1) % every == 0:
            losses = self.model.evaluate(self._data.validation, verbose=0, return_dict=True)
            row["val_loss"] = float(losses["loss"])
            # TensorBoard's callback comes after this one and logs what it finds here.
            (logs if logs is not None else {})["val_loss"] = row["val_loss"]
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["seconds"] = round(time.monotonic() - self._started, 2)
        if not np.isfinite(row["loss"]):
            raise ValueError(
                f"The loss must stay finite. Received: {row['loss']} ({self._directory}, epoch {epoch + 1})."
            )
        self._history.append(row)
        with replace_atomically(self._directory / "history.json") as temporary:
            temporary.write_text(json.dumps(self._history, indent=1), encoding="utf-8")
        self._epoch.assign(epoch + 1)
        self._manager.save(checkpoint_number=epoch + 1)
        if self._report is not None:
            self._report(epoch + 1, self._training.epochs, row)


def learning_rate_share(step: int, total: int, *, warmup_fraction: float) -> float:
    """Returns the share of the peak learning rate at a step: linear warm-up, then half a cosine.

    >>> [round(learning_rate_share(step, 10, warmup_fraction=0.2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    warmup = round(total * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
