"""Evaluation of a network during training, on studies that it is not trained on."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, NUM_SEVERITIES, Family, Severity
from lumbar_tf.models.losses import MetricLoss

#: The power mean of five levels is then at least 0.998 (5 ** (-1 / 1000)) of the metric's maximum.
_SHARPNESS = 1000.0
_INCHES = 2.6
_DPI = 80


@dataclass(frozen=True)
class ValidationResult:
    """Numbers for the history and pictures for TensorBoard.

    Attributes:
        numbers: values by name; `loss` is always present, and lower is better for all of them.
        pictures: uint8 [height, width, 3] by name.
    """

    numbers: dict[str, float]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


#: Evaluates a network on batches of (inputs, targets).
Evaluator = Callable[[keras.Model, tf.data.Dataset], ValidationResult]


def evaluate_loss(model: keras.Model, dataset: tf.data.Dataset) -> ValidationResult:
    """Returns the mean loss of the batches."""
    with warnings.catch_warnings():
        # Keras expects the number of batches beforehand; it is known after reading the records.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        losses = model.evaluate(dataset, verbose=0, return_dict=True)
    return ValidationResult({"loss": float(losses["loss"])})


class GradingEvaluator:
    """Evaluator of a grader over all studies at once, as in the competition's metric.

    `loss` is the training loss, `weighted_log_loss` the competition's metric on the target families. Both
    take all studies as one batch: in a mean over batches, the weight of a rare grade would depend on its
    batch.
    """

    def __init__(self, layout: CropLayout, loss: keras.losses.Loss, *, draws_confusions: bool) -> None:
        """Initializes the evaluator.

        Args:
            layout: crops and rows of the grader.
            loss: training loss.
            draws_confusions: whether to draw confusion matrices.
        """
        rows = [layout.rows[place] for place in layout.target_places]
        self._target_places = layout.target_places
        self._families = [FINDINGS[row].condition.family for row in rows]
        self._loss = loss
        self._metric = MetricLoss(rows, sharpness=_SHARPNESS)
        self._draws_confusions = draws_confusions
        self._traced: tuple[keras.Model, tf.types.experimental.PolymorphicFunction] | None = None

    def __call__(self, model: keras.Model, dataset: tf.data.Dataset) -> ValidationResult:
        """Evaluates a network on batches of (inputs, targets)."""
        predict = self._trace(model, dataset.element_spec[0])
        batches = [(targets, predict(inputs)) for inputs, targets in dataset]
        targets, logits = (tf.concat(parts, axis=0) for parts in zip(*batches, strict=True))
        numbers = {"loss": float(self._loss.call(targets, logits))}
        targets, logits = (tf.gather(values, self._target_places, axis=1) for values in (targets, logits))
        numbers["weighted_log_loss"] = float(self._metric.call(targets, logits))
        if not self._draws_confusions:
            return ValidationResult(numbers)
        counts = confusions(targets.numpy(), logits.numpy(), self._families)
        return ValidationResult(numbers, {"confusion": confusion_picture(counts)})

    def _trace(
        self, model: keras.Model, inputs: tf.TensorSpec | Mapping[str, tf.TensorSpec]
    ) -> "tf.types.experimental.PolymorphicFunction":
        """Returns the traced network; it is traced once, not once per epoch and size of batch."""
        if self._traced is None or self._traced[0] is not model:
            signature = tf.nest.map_structure(
                lambda spec: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype), inputs
            )
            predict = tf.function(
                lambda inputs: model(inputs, training=False), input_signature=[signature], autograph=False
            )
            self._traced = (model, predict)
        return self._traced[1]


def confusions(
    targets: NDArray[np.float32], logits: NDArray[np.float32], families: Sequence[Family]
) -> dict[Family, NDArray[np.int64]]:
    """Returns counts of the most probable grade by label, int64 [3 label, 3 predicted] by family.

    Args:
        targets: float [study, rows, 3], one-hot, all zeros where there is no label.
        logits: float [study, rows, 3].
        families: family of each row.

    >>> target = np.float32([[[0, 0, 1], [0, 0, 0]]])
    >>> confusions(target, np.float32([[[0, 2, 1], [1, 0, 0]]]), [Family.CANAL] * 2)[Family.CANAL].tolist()
    [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    """
    counts = {}
    for family in dict.fromkeys(families):
        places = [place for place, other in enumerate(families) if other is family]
        is_known = targets[:, places].any(axis=-1)
        matrix = np.zeros((NUM_SEVERITIES, NUM_SEVERITIES), np.int64)
        pairs = (targets[:, places].argmax(-1)[is_known], logits[:, places].argmax(-1)[is_known])
        np.add.at(matrix, pairs, 1)
        counts[family] = matrix
    return counts


def confusion_picture(counts: dict[Family, NDArray[np.int64]]) -> NDArray[np.uint8]:
    """Returns a drawing of confusion matrices, shaded by the share of the row; uint8 [height, width, 3]."""
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
        axes.set_title(f"{family.value}: label (rows), prediction (columns)", fontsize=7)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
