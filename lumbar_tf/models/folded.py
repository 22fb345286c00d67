"""One architecture with the weights of several folds: built once, traced once, asked for all folds."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class FoldedNetwork:
    """One architecture, and the weights of every fold that was trained of it.

    Building and tracing a Keras model takes seconds, and an ensemble holds folds x backbones x planes of
    them. Here the folds share one function, which takes a fold's weights as its argument.

    Attributes:
        parameters: float32 [weights] a fold: all weights of the architecture, one after the other in Keras's
            order. TensorFlow's time to load and to plan an export grows with the number of its variables,
            not with their size.
    """

    def __init__(self, model: keras.Model, weights: Sequence[Path]) -> None:
        """Reads the weights of every fold.

        Args:
            model: the architecture; its own weights are overwritten.
            weights: a `.weights.h5` file a fold, at least one.

        Raises:
            ValueError: a weight is not float32.
        """
        self._model = model
        self.parameters: list[tf.Variable] = []
        for path in weights:
            model.load_weights(path)
            self.parameters.append(tf.Variable(_in_a_row(model), trainable=False))
        self._ask = tf.function(
            self._ask_fold,
            input_signature=[tf.TensorSpec(self.parameters[0].shape, tf.float32), _input_specs(model)],
            autograph=False,
            # Stays a call where it is exported, too: TensorFlow then plans a network once, not once a fold,
            # and not within one large graph, which takes longer than its parts do.
            experimental_attributes={"_noinline": True},
        )

    @property
    def num_folds(self) -> int:
        """Folds that were trained."""
        return len(self.parameters)

    @property
    def size_bytes(self) -> int:
        """Bytes of all folds' weights."""
        return sum(each.shape.num_elements() * each.dtype.size for each in self.parameters)

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns what each fold says, float32 [fold, study, ...]."""
        said: list[tf.Tensor] = []
        for fold in self.parameters:
            # One after the other: in one fold's memory, and the second finds the plan that the first made.
            with tf.control_dependencies(said[-1:]):
                # Read inside the traced function, so that the export keeps it as a variable.
                said.append(self._ask(fold.read_value(), inputs))
        return tf.stack(said)

    def _ask_fold(self, row: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        weights = self._model.weights
        parts = tf.split(row, [each.shape.num_elements() for each in weights])
        values = [tf.reshape(part, each.shape) for part, each in zip(parts, weights, strict=True)]
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return self._model(inputs, training=False)


def _in_a_row(model: keras.Model) -> NDArray[np.float32]:
    """Returns all weights of a model, float32 [weights]."""
    others = sorted({each.dtype for each in model.weights} - {"float32"})
    if others:
        raise ValueError(f"Weights of {model.name} must be float32. Received: {', '.join(others)}, too.")
    return np.concatenate([np.ravel(each) for each in model.get_weights()])


def _input_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Returns the inputs that a model takes, of any number of studies."""
    return {name: tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in model.input.items()}
