"""Networks of several folds: one architecture, built and traced once, with the weights of each fold."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.models.saliency import SplitGrader


class FoldEnsemble:
    """An architecture with the weights of all of its trained folds.

    Building and tracing a Keras model takes seconds, and an ensemble has folds x backbones x planes of them.
    Here the folds share one function, which takes the weights of a fold as an argument.

    Attributes:
        parameters: one float32 [weights] variable per fold: all weights of the architecture, concatenated in
            Keras' order. The time that TensorFlow needs to load and optimize an export grows with the number
            of its variables, not with their size.
    """

    def __init__(self, model: keras.Model, weights: Sequence[Path]) -> None:
        """Reads the weights of all folds.

        Args:
            model: the architecture; its own weights are overwritten.
            weights: one `.weights.h5` file per fold, at least one.

        Raises:
            ValueError: a weight is not float32.
        """
        self.model = model
        self.parameters: list[tf.Variable] = []
        for path in weights:
            model.load_weights(path)
            self.parameters.append(tf.Variable(_concatenate_weights(model), trainable=False))
        self._predict = self._trace(self._logits_of_fold)

    def _trace(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the TensorFlow function of a fold's weights and the model's inputs."""
        return tf.function(
            function,
            input_signature=[tf.TensorSpec(self.parameters[0].shape, tf.float32), _input_specs(self.model)],
            autograph=False,
            # Remains a function call in the export: TensorFlow then optimizes a network once instead of once
            # per fold, and separately from the rest, which is faster than one large graph.
            experimental_attributes={"_noinline": True},
        )

    @property
    def num_folds(self) -> int:
        """Number of trained folds."""
        return len(self.parameters)

    @property
    def size_bytes(self) -> int:
        """Size of the weights of all folds."""
        return sum(fold.shape.num_elements() * fold.dtype.size for fold in self.parameters)

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the output of each fold, float32 [fold, study, ...]."""
        return tf.stack(self._map_folds(self._predict, inputs))

    def _map_folds(self, function: Callable[..., Any], inputs: dict[str, tf.Tensor]) -> list[Any]:
        """Returns the results of a function of a fold's weights and the inputs, for all folds."""
        results: list[Any] = []
        for fold in self.parameters:
            # Sequential: needs the memory of one fold, and later folds reuse the plan of the first.
            with tf.control_dependencies(tf.nest.flatten(results[-1:])):
                # Read inside the traced function, so that the export stores a variable.
                results.append(function(fold.read_value(), inputs))
        return results

    def _logits_of_fold(self, row: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        with self._fold_weights(row):
            return self.model(inputs, training=False)

    def _fold_weights(self, row: tf.Tensor) -> keras.StatelessScope:
        """Returns a scope in which the model, and every model with its layers, has a fold's weights."""
        weights = self.model.weights
        parts = tf.split(row, [weight.shape.num_elements() for weight in weights])
        values = [tf.reshape(part, weight.shape) for part, weight in zip(parts, weights, strict=True)]
        return keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True)))


class GraderFoldEnsemble(FoldEnsemble):
    """A grader with the weights of all folds, which can also compute saliency."""

    def __init__(self, model: keras.Model, weights: Sequence[Path], layout: CropLayout) -> None:
        """Reads the weights; see `FoldEnsemble`.

        Args:
            model: from `grader.build_grader`.
            weights: one `.weights.h5` file per fold.
            layout: the model's crops and rows.
        """
        super().__init__(model, weights)
        self._layout = layout

    @cached_property
    def split_grader(self) -> SplitGrader:
        """The grader split for saliency, built on first use."""
        return SplitGrader(self.model, self._layout)

    @cached_property
    def _predict_with_saliency(self) -> Callable[..., Any]:
        # A separate function, so that predictions without saliency are not slower.
        return self._trace(self._saliency_of_fold)

    def logits_and_saliency(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the logits of each fold, and the mean contributions over the folds.

        See `SplitGrader.logits_and_saliency`.
        """
        logits, contributions = zip(*self._map_folds(self._predict_with_saliency, inputs), strict=True)
        return tf.stack(logits), tf.reduce_mean(tf.stack(contributions), axis=0)

    def _saliency_of_fold(self, row: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        with self._fold_weights(row):
            return self.split_grader.logits_and_saliency(inputs["image"], inputs["mask"], inputs["offset_mm"])


def assign_weights(model: keras.Model, weights: NDArray[np.float32]) -> None:
    """Assigns all weights of a model from a vector of `FoldEnsemble.parameters`.

    Args:
        model: gets the weights.
        weights: float32 [weights], in Keras' order.

    Raises:
        ValueError: the model has another number of weights.
    """
    shapes = [tuple(weight.shape) for weight in model.weights]
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) != len(weights):
        raise ValueError(f"{model.name} must have {len(weights)} weights. Received: {sum(sizes)}.")
    parts = np.split(weights, np.cumsum(sizes)[:-1])
    model.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


def _concatenate_weights(model: keras.Model) -> NDArray[np.float32]:
    """Returns all weights of a model, float32 [weights]."""
    others = sorted({weight.dtype for weight in model.weights} - {"float32"})
    if others:
        raise ValueError(f"Weights of {model.name} must be float32. Received: {', '.join(others)}, too.")
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()])


def _input_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Returns the specs of a model's inputs for any number of studies."""
    return {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in model.input.items()
    }
