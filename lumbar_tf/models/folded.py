"""One architecture with the weights of several folds: built once, traced once, asked for all folds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class FoldedNetwork:
    """A network whose weights carry a leading fold axis.

    Building and tracing a Keras model takes seconds, and an ensemble holds folds x backbones x planes of
    them. Here the folds share one graph, which a loop runs with each fold's weights.

    Attributes:
        parameters: float variables [fold, ...], one for each weight of the architecture.
    """

    def __init__(self, model: keras.Model, weights: Sequence[Path]) -> None:
        """Reads the weights of every fold.

        Args:
            model: the architecture; its own weights are overwritten.
            weights: a `.weights.h5` file a fold, at least one.
        """
        by_fold = []
        for path in weights:
            model.load_weights(path)
            by_fold.append([np.asarray(each) for each in model.get_weights()])
        self._model = model
        self.num_folds = len(by_fold)
        self.parameters = [
            tf.Variable(np.stack(values), trainable=False) for values in zip(*by_fold, strict=True)
        ]

    @property
    def size_bytes(self) -> int:
        """Bytes of all folds' weights."""
        return sum(each.shape.num_elements() * each.dtype.size for each in self.parameters)

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns what each fold says, float32 [fold, study, ...]."""

        def ask(values: tuple[tf.Tensor, ...]) -> Any:
            pairs = list(zip(self._model.weights, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return self._model(inputs, training=False)

        # Read here, inside the traced function, so that the export keeps them as variables.
        return tf.map_fn(
            ask,
            tuple(variable.read_value() for variable in self.parameters),
            fn_output_signature=tf.TensorSpec(self._model.output.shape, tf.float32),
        )
