"""What is said of a grader while it trains: losses over whole studies, and which grades it confuses."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, NUM_SEVERITIES, Family, Severity
from lumbar_tf.models.losses import MetricLoss
from lumbar_tf.training.validation import ValidationResult

#: The power mean of five levels is then at least 0.998 (5 ** (-1 / 1000)) of the metric's maximum.
_SHARPNESS = 1000.0
_INCHES = 2.6
_DPI = 80


class GradingEvaluator:
    """Asks a grader about all studies at once, as the metric does.

    `loss` is the loss that it trains with, `weighted_log_loss` the competition's metric on the families
    that it is asked for. Both take all studies as one batch: a mean over batches would weigh a rare grade by
    the batch that it happens to be in.
    """

    def __init__(self, layout: CropLayout, loss: keras.losses.Loss, *, draws: bool) -> None:
        """Takes what the grader answers.

        Args:
            layout: crops, and rows that the network says something of.
            loss: that it trains with.
            draws: whether to draw the confusions.
        """
        rows = [layout.rows[place] for place in layout.answered]
        self._answered = layout.answered
        self._families = [FINDINGS[row].condition.family for row in rows]
        self._loss = loss
        self._metric = MetricLoss(rows, sharpness=_SHARPNESS)
        self._draws = draws
        self._asked: tuple[keras.Model, tf.types.experimental.PolymorphicFunction] | None = None

    def __call__(self, model: keras.Model, dataset: tf.data.Dataset) -> ValidationResult:
        """Judges by batches of (inputs, targets)."""
        answer = self._answer(model)
        said = [(targets, answer(inputs)) for inputs, targets in dataset]
        targets = tf.concat([each for each, _ in said], axis=0)
        logits = tf.concat([each for _, each in said], axis=0)
        numbers = {
            "loss": float(self._loss.call(targets, logits)),
        }
        targets, logits = (tf.gather(each, self._answered, axis=1) for each in (targets, logits))
        numbers["weighted_log_loss"] = float(self._metric.call(targets, logits))
        if not self._draws:
            return ValidationResult(numbers)
        counts = confusions(targets.numpy(), logits.numpy(), self._families)
        return ValidationResult(numbers, {"confusion": confusion_picture(counts)})

    def _answer(self, model: keras.Model) -> "tf.types.experimental.PolymorphicFunction":
        """Returns the traced network; it is traced once, not once an epoch."""
        if self._asked is None or self._asked[0] is not model:
            self._asked = (model, tf.function(lambda inputs: model(inputs, training=False)))
        return self._asked[1]


def confusions(
    targets: NDArray[np.float32], logits: NDArray[np.float32], families: Sequence[Family]
) -> dict[Family, NDArray[np.int64]]:
    """Counts largest answers against labels, int [3 true, 3 answered] by family.

    Args:
        targets: float [study, rows, 3], one-hot, all zeros where nobody graded.
        logits: float [study, rows, 3].
        families: of each row.

    >>> target = np.float32([[[0, 0, 1], [0, 0, 0]]])
    >>> confusions(target, np.float32([[[0, 2, 1], [1, 0, 0]]]), [Family.CANAL] * 2)[Family.CANAL].tolist()
    [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    """
    counts = {}
    for family in dict.fromkeys(families):
        mine = [place for place, each in enumerate(families) if each is family]
        is_known = targets[:, mine].any(axis=-1)
        matrix = np.zeros((NUM_SEVERITIES, NUM_SEVERITIES), np.int64)
        pairs = (targets[:, mine].argmax(-1)[is_known], logits[:, mine].argmax(-1)[is_known])
        np.add.at(matrix, pairs, 1)
        counts[family] = matrix
    return counts


def confusion_picture(counts: dict[Family, NDArray[np.int64]]) -> NDArray[np.uint8]:
    """Draws the counts, each row shaded by its share; uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES * len(counts), _INCHES + 0.4), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    titles = [severity.title for severity in Severity]
    for (family, matrix), axes in zip(
        counts.items(), figure.subplots(1, len(counts), squeeze=False)[0], strict=True
    ):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(matrix.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
        axes.set_xticks(range(NUM_SEVERITIES), titles, fontsize=6)
        axes.set_yticks(range(NUM_SEVERITIES), titles, fontsize=6, rotation=90, va="center")
        axes.set_title(f"{family.value}: label down, answer across", fontsize=7)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
