"""Progress of a fold's training on disk: checkpoint, history and weights.

A checkpoint holds everything that the next epoch depends on except for the data, whose order is a function of
the epoch: weights, batch statistics, dropout seeds, optimizer state, moving average, loss scale, epoch and
the state of early stopping. A run that is killed at any moment and resumed repeats the interrupted epoch and
ends with the history and the weights of an uninterrupted run.
"""

import json
from pathlib import Path

import keras
import tensorflow as tf

from lumbar_tf.files import remove_unfinished, replace_atomically, write_json_atomically

#: Final weights: those of the best epoch with early stopping, else those of the last epoch.
WEIGHTS_NAME = "weights.weights.h5"
#: Weights of the last epoch where they differ from the final weights.
LAST_NAME = "last.weights.h5"
#: Weights of the best epoch during training with early stopping.
BEST_NAME = "best.weights.h5"
HISTORY_NAME = "history.json"
_CHECKPOINT_NAME = "checkpoint"

Row = dict[str, float]


class TrainingProgress:
    """Finished epochs of a fold, on disk.

    Attributes:
        history: one row per epoch.
        best: lowest value of the early-stopping metric; infinite without one.
        best_epoch: epoch of that value, counted from 1; 0 without one.
    """

    def __init__(self, model: keras.Model, directory: Path) -> None:
        """Initializes the progress of a compiled model with a built optimizer."""
        self.history: list[Row] = []
        self._directory = directory
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._best = tf.Variable(float("inf"), dtype=tf.float64)
        self._best_epoch = tf.Variable(0, dtype=tf.int64)
        state = [variable.value for variable in [*model.variables, *model.optimizer.variables]]
        checkpoint = tf.train.Checkpoint(
            epoch=self._epoch, best=self._best, best_epoch=self._best_epoch, state=state
        )
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(directory / _CHECKPOINT_NAME), max_to_keep=1
        )

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return int(self._epoch)

    @property
    def best(self) -> float:
        """See the class."""
        return float(self._best)

    @property
    def best_epoch(self) -> int:
        """See the class."""
        return int(self._best_epoch)

    def restore(self) -> None:
        """Restores the last finished epoch; without a checkpoint training starts from the beginning."""
        self._directory.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self._directory)
        if not self._manager.latest_checkpoint:
            return
        self._manager.checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
        rows = json.loads((self._directory / HISTORY_NAME).read_text(encoding="utf-8"))
        # The history is written before the checkpoint, so it may be one epoch ahead.
        self.history = rows[: self.epoch]

    def update_best(self, value: float) -> bool:
        """Records the running epoch's early-stopping value if it is the best; returns whether it is."""
        if not value < self.best:
            return False
        self._best.assign(value)
        self._best_epoch.assign(self.epoch + 1)
        return True

    def save(self, row: Row) -> None:
        """Adds an epoch's row and writes the history and the checkpoint."""
        self.history.append(row)
        write_json_atomically(self._directory / HISTORY_NAME, self.history)
        self._epoch.assign_add(1)
        self._manager.save(checkpoint_number=self.epoch)


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes a `.weights.h5` file atomically."""
    with replace_atomically(path) as temporary:
        # Keras requires this suffix.
        written = temporary.with_name(f"{temporary.name}.weights.h5")
        model.save_weights(written)
        written.replace(temporary)
