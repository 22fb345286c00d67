"""Learning-rate schedule."""

import math
from typing import Any

import keras

from lumbar_tf.config import TrainingConfig


def learning_rate_share(step: int, total: int, *, warmup_fraction: float) -> float:
    """Returns the share of the peak learning rate at a step: linear warm-up, then half a cosine.

    >>> [round(learning_rate_share(step, 10, warmup_fraction=0.2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    warmup = round(total * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


class LearningRateSchedule(keras.callbacks.Callback):
    """Sets the learning rate before each step, counted from the start of the run.

    `keras.optimizers.schedules.CosineDecay` is not used: its number of steps would be a constant of the train
    step, which is traced once for all folds although their numbers of batches differ, and it computes in
    float32, which would change the weights of a given seed.

    Attributes:
        rate: learning rate of the last step; 0 before the first.
    """

    def __init__(self, training: TrainingConfig, *, num_batches: int, start_epoch: int) -> None:
        """Initializes the schedule.

        Args:
            training: peak, warm-up and epochs.
            num_batches: steps per epoch.
            start_epoch: finished epochs.
        """
        super().__init__()
        self.rate = 0.0
        self._training = training
        self._total = training.epochs * num_batches
        self._step = start_epoch * num_batches

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the learning rate of the step."""
        share = learning_rate_share(self._step, self._total, warmup_fraction=self._training.warmup_fraction)
        self.rate = self._training.learning_rate * share
        self.model.optimizer.learning_rate = self.rate
        self._step += 1
