"""One architecture with the weights of several folds: built once, traced once, asked for all folds."""

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
        return tf.stack(self._ask_each(self._ask, inputs))

    def _ask_each(self, ask: Callable[..., Any], inputs: dict[str, tf.Tensor]) -> list[Any]:
        """Returns what a function of a fold's weights and the inputs gives for each fold."""
        said: list[Any] = []
        for fold in self.parameters:
            # One after the other: in one fold's memory, and the second finds the plan that the first made.
            with tf.control_dependencies(tf.nest.flatten(said[-1:])):
                # Read inside the traced function, so that the export keeps it as a variable.
                said.append(ask(fold.read_value(), inputs))
        return said

    def _ask_fold(self, row: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        with self._holding(row):
            return self._model(inputs, training=False)

    def _holding(self, row: tf.Tensor) -> keras.StatelessScope:
        """Returns a scope in which the model, and all that shares its layers, has a fold's weights."""
        weights = self._model.weights
        parts = tf.split(row, [each.shape.num_elements() for each in weights])
        values = [tf.reshape(part, each.shape) for part, each in zip(parts, weights, strict=True)]
        return keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True)))


class GraderFoldEnsemble(FoldEnsemble):
    """A grader with the weights of every fold, which can also say what in its crops moved it."""

    def __init__(self, model: keras.Model, weights: Sequence[Path], layout: CropLayout) -> None:
        """Reads the weights; see `FoldEnsemble`.

        Args:
            model: of `grader.build_grader`.
            weights: a `.weights.h5` file a fold.
            layout: the model's crops and rows.
        """
        super().__init__(model, weights)
        self._layout = layout

    @cached_property
    def parts(self) -> SplitGrader:
        """The grader taken apart; only who asks for saliency waits for it."""
        return SplitGrader(self._model, self._layout)

    @cached_property
    def _explain(self) -> Callable[..., Any]:
        # A function beside the one that only answers: who does not ask why plans no more than before.
        return tf.function(
            self._explain_fold,
            input_signature=[tf.TensorSpec(self.parameters[0].shape, tf.float32), _input_specs(self._model)],
            autograph=False,
            experimental_attributes={"_noinline": True},
        )

    def explain(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Answers, and says what in the crops spoke for stenosis.

        Returns:
            What each fold says, as when it is only asked, and the mean over the folds of the parts of all
            cells; see `SplitGrader.explain`.
        """
        said, parts = zip(*self._ask_each(self._explain, inputs), strict=True)
        return tf.stack(said), tf.reduce_mean(tf.stack(parts), axis=0)

    def _explain_fold(self, row: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        with self._holding(row):
            return self.parts.explain(inputs["image"], inputs["mask"], inputs["offset_mm"])


def _in_a_row(model: keras.Model) -> NDArray[np.float32]:
    """Returns all weights of a model, float32 [weights]."""
    others = sorted({each.dtype for each in model.weights} - {"float32"})
    if others:
        raise ValueError(f"Weights of {model.name} must be float32. Received: {', '.join(others)}, too.")
    return np.concatenate([np.ravel(each) for each in model.get_weights()])


def _input_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Returns the inputs that a model takes, of any number of studies."""
    return {name: tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in model.input.items()}
