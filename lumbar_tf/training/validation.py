"""What is said of a network that was shown studies it does not train on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


@dataclass(frozen=True)
class ValidationResult:
    """Numbers for the history and pictures for TensorBoard.

    Attributes:
        numbers: by name; `loss` is always there, and less is better in all of them.
        pictures: uint8 [height, width, 3] by name.
    """

    numbers: dict[str, float]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


#: Judges a network by batches of (inputs, targets).
Judge = Callable[[keras.Model, tf.data.Dataset], ValidationResult]


def evaluate_loss(model: keras.Model, dataset: tf.data.Dataset) -> ValidationResult:
    """Returns the mean of the batches' losses."""
    losses = model.evaluate(dataset, verbose=0, return_dict=True)
    return ValidationResult({"loss": float(losses["loss"])})
