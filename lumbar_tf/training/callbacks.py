"""Per-epoch parts of a fit: averaged weights, evaluation, checkpoints and logs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import TrainingConfig
from lumbar_tf.files import write_json_atomically
from lumbar_tf.models.keras_compat import moving_averages
from lumbar_tf.training.checkpoints import BEST_NAME, TrainingProgress, save_weights
from lumbar_tf.training.evaluators import Evaluator
from lumbar_tf.training.learning_rate import LearningRateSchedule

#: Tiles of a contact sheet, and columns: small enough for one glance.
_MAX_TILES = 60
_COLUMNS = 10

#: Progress inside an epoch; absent between epochs.
STEPS_NAME = "steps.json"
#: Shortest time between two writes of it, seconds.
_STEPS_PERIOD_S = 5.0

#: Callback after each epoch: (finished epochs, epochs in total, the epoch's row of the history).
EpochReport = Callable[[int, int, dict[str, float]], None]


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Replaces the weights by their moving average in the block and restores them bit for bit afterwards.

    Without a moving average the weights stay. Only trainable weights are averaged; the statistics of batch
    normalisation are moving averages already.

    `keras.callbacks.SwapEMAWeights` is not used: it swaps by addition and subtraction, which rounds, so that
    training would depend on how often it is evaluated.

    Args:
        model: compiled model with a built optimizer.
    """
    averages = moving_averages(model)
    weights = [variable.numpy() for variable, _ in averages]
    for variable, average in averages:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(averages, weights, strict=True):
            variable.assign(value)


class EpochEnd(keras.callbacks.Callback):
    """Evaluates the network after each epoch, logs its numbers, saves a checkpoint and stops early.

    Numbers of the held-out fold have the prefix `val_`, those of the early-stopping studies `watched_`. Both
    are computed with the averaged weights. Only the latter decide which epoch is the best.
    """

    def __init__(
        self,
        directory: Path,
        training: TrainingConfig,
        *,
        evaluator: Evaluator,
        validation: tf.data.Dataset | None,
        early_stopping: tf.data.Dataset | None,
        progress: TrainingProgress,
        schedule: LearningRateSchedule,
        logger: "TensorBoardLogger",
        report: EpochReport | None,
    ) -> None:
        """Initializes the callback.

        Args:
            directory: folder of the fold; receives the best epoch's weights.
            training: validation interval and early stopping.
            evaluator: evaluates the network on either dataset.
            validation: batches of (inputs, targets) of the held-out fold, or None.
            early_stopping: batches of (inputs, targets) of the early-stopping studies, or None.
            progress: history and checkpoint.
            schedule: learning rate of the last step.
            logger: TensorBoard events.
            report: called after each epoch.
        """
        super().__init__()
        self._directory = directory
        self._training = training
        self._evaluator = evaluator
        self._validation = validation
        self._early_stopping = early_stopping
        self._progress = progress
        self._schedule = schedule
        self._logger = logger
        self._report = report
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Completes the epoch; `epoch` is counted from 0.

        Raises:
            ValueError: the loss is not finite, or there is no early-stopping metric of the configured name.
        """
        row = {"epoch": float(epoch + 1), "loss": float((logs or {})["loss"])}
        if not np.isfinite(row["loss"]):
            raise ValueError(
                f"The loss must be finite. Received: {row['loss']} ({self._directory}, epoch {epoch + 1})."
            )
        with averaged_weights(self.model):
            row |= self._validate(epoch + 1)
            row |= self._update_best()
        row["learning_rate"] = self._schedule.rate
        row["seconds"] = round(time.monotonic() - self._started, 2)
        self._logger.write_epoch(epoch + 1, row)
        self._progress.save(row)
        if self._report is not None:
            self._report(epoch + 1, self._training.epochs, row)
        if is_stopped(self._training, self._progress):
            self.model.stop_training = True

    def _validate(self, epoch: int) -> dict[str, float]:
        """Returns the numbers of the held-out fold, empty in epochs without validation."""
        every = self._training.validate_every
        if self._validation is None or not every or epoch % every:
            return {}
        result = self._evaluator(self.model, self._validation)
        for name, picture in result.pictures.items():
            self._logger.write_picture(name, picture, epoch=epoch)
        return {f"val_{name}": value for name, value in result.numbers.items()}

    def _update_best(self) -> dict[str, float]:
        """Returns the numbers of the early-stopping studies, and saves the weights of a better epoch."""
        stopping = self._training.early_stopping
        if self._early_stopping is None or stopping is None:
            return {}
        numbers = self._evaluator(self.model, self._early_stopping).numbers
        if stopping.metric not in numbers:
            raise ValueError(
                f"early_stopping.metric must be one of {', '.join(numbers)} for this network. "
                f"Received: {stopping.metric!r}."
            )
        if self._progress.update_best(numbers[stopping.metric]):
            save_weights(self.model, self._directory / BEST_NAME)
        return {f"watched_{name}": value for name, value in numbers.items()}


def is_stopped(training: TrainingConfig, progress: TrainingProgress) -> bool:
    """Returns whether early stopping ends the training after the finished epochs."""
    stopping = training.early_stopping
    return (
        stopping is not None
        and progress.best_epoch > 0
        and progress.epoch - progress.best_epoch >= stopping.patience
    )


class StepReport(keras.callbacks.Callback):
    """Writes how far an epoch is to a file, which the process that started the job displays."""

    def __init__(self, directory: Path, *, num_batches: int) -> None:
        """Initializes the callback.

        Args:
            directory: folder of the fold.
            num_batches: steps per epoch.
        """
        super().__init__()
        self._path = directory / STEPS_NAME
        self._num_batches = num_batches
        self._epoch = 0
        self._first_ended = self._written = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch, counted from 0."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the file if the last one is old enough."""
        now = time.monotonic()
        if batch == 0:
            # The first step of a run traces the network: its time says nothing about the others.
            self._first_ended = now
        if batch + 1 == self._num_batches or now - self._written < _STEPS_PERIOD_S:
            return
        self._written = now
        step = batch + 1
        row: dict[str, float] = {"epoch": self._epoch + 1, "step": step, "steps": self._num_batches}
        if batch:
            row["seconds_left"] = (now - self._first_ended) / batch * (self._num_batches - step)
        write_json_atomically(self._path, row)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Removes the file: the history has the epoch's row."""
        self._path.unlink(missing_ok=True)


class TensorBoardLogger:
    """TensorBoard events of one fold: the history as curves, crops and confusion matrices as pictures."""

    def __init__(self, directory: Path) -> None:
        """Opens a new event file in a folder; a resumed run has several."""
        self._writer = tf.summary.create_file_writer(str(directory))

    def write_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Adds an epoch's row of the history."""
        with self._writer.as_default(step=epoch):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self._writer.flush()

    def write_picture(self, name: str, picture: NDArray[np.uint8], *, epoch: int) -> None:
        """Adds a picture, uint8 [height, width, channels]."""
        with self._writer.as_default(step=epoch):
            tf.summary.image(name, picture[np.newaxis])
        self._writer.flush()

    def close(self) -> None:
        """Writes buffered events and closes the file."""
        self._writer.close()


def contact_sheet(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Returns the first images of a batch side by side.

    Args:
        images: float [..., height, width], 0 black, 1 white; the last leading axis is slices.

    Returns:
        uint8 [rows * height, columns * width, 1]; tiles without an image are black.

    >>> contact_sheet(np.ones((1, 2, 4, 4), np.float32)).shape
    (4, 8, 1)
    """
    height, width = images.shape[-2:]
    tiles = images.reshape(-1, height, width)[:_MAX_TILES]
    columns = min(len(tiles), _COLUMNS)
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * columns, height, width), np.float32)
    sheet[: len(tiles)] = tiles
    grid = sheet.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
    grey = np.clip(grid.reshape(rows * height, columns * width), 0.0, 1.0)
    return np.rint(grey * 255).astype(np.uint8)[..., np.newaxis]
