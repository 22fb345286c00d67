"""What is said of a network that was shown studies it does not train on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


@dataclass(frozen=True)
class Verdict:
    """Numbers for the history and pictures for TensorBoard.

    Attributes:
        numbers: by name; `loss` is always there, and less is better in all of them.
        pictures: uint8 [height, width, 3] by name.
    """

    numbers: dict[str, float]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


#: Judges a network by batches of (inputs, targets).
Judge = Callable[[keras.Model, tf.data.Dataset], Verdict]


def judge_by_loss(model: keras.Model, dataset: tf.data.Dataset) -> Verdict:
    """Returns the mean of the batches' losses."""
    losses = model.evaluate(dataset, verbose=0, return_dict=True)
    return Verdict({"loss": float(losses["loss"])})
