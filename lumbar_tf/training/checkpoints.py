"""How far a fold's training is: the checkpoint and the history, written after each epoch.

What a checkpoint holds (weights, batch statistics, dropout's seeds, optimizer, moving average, loss scale,
epoch, and what early stopping knows) is all that the next epoch depends on beside the data, whose order is
a function of the epoch. So a run that is killed at any moment and taken up again repeats the epoch that was
under way and ends with the history and the weights of an undisturbed one.
"""

import json
from pathlib import Path

import keras
import tensorflow as tf

from lumbar_tf.files import remove_unfinished, replace_atomically, write_json_atomically

HISTORY_NAME = "history.json"
_CHECKPOINT_NAME = "checkpoint"

Row = dict[str, float]


class Progress:
    """What is done of a fold, on disk.

    Attributes:
        history: a row an epoch.
        best: the least value of the watched number; infinite where none was watched.
        best_epoch: its epoch, counted from 1; 0 where none was watched.
    """

    def __init__(self, model: keras.Model, directory: Path) -> None:
        """Takes a compiled model whose optimizer is built."""
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
        """Epochs that are done."""
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
        """Goes back to the last finished epoch; without a checkpoint to the start."""
        self._directory.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self._directory)
        if not self._manager.latest_checkpoint:
            return
        self._manager.checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
        rows = json.loads((self._directory / HISTORY_NAME).read_text(encoding="utf-8"))
        # The history is written before the checkpoint, so it can only be ahead of it.
        self.history = rows[: self.epoch]

    def note_best(self, value: float) -> bool:
        """Compares the coming epoch's watched number with the best, and says whether it is better."""
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
    """Writes a `.weights.h5` file, whole or not at all."""
    with replace_atomically(path) as temporary:
        # Keras insists on its ending.
        written = temporary.with_name(f"{temporary.name}.weights.h5")
        model.save_weights(written)
        written.replace(temporary)
