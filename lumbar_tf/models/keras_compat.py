"""Private names of Keras and TensorFlow.

No other module uses private names of the two. `tests/models/test_keras_compat.py` fails when a version
changes what is relied on here.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def flatten_layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the model and all of its layers, including those inside other layers.

    `model.layers` holds the outermost layers only: of keras-cv's CSPDarkNet, 7 of 27 batch normalisations.
    """
    return list(model._flatten_layers())


def producing_operation(tensor: Any) -> Any:
    """Returns the layer or operation that a symbolic tensor is an output of."""
    return tensor._keras_history.operation


def source_tensors(tensor: Any) -> list[Any]:
    """Returns the symbolic tensors that a symbolic tensor was computed from, empty for a model's input."""
    operation, node, _ = tensor._keras_history
    return list(operation._inbound_nodes[node].input_tensors)


def skip_symbolic_build(model: keras.Model) -> None:
    """Stops `fit` from building a model that is built already.

    Under a strategy with several replicas Keras averages a batch over the replicas to infer its shapes, which
    fails for boolean inputs.
    """
    model._maybe_symbolic_build = lambda **_: None


def moving_averages(model: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns pairs of a trainable weight and its moving average; empty where no averages are kept.

    Args:
        model: a compiled model whose optimizer is built.
    """
    # Under mixed_float16 the optimizer is wrapped in loss scaling.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema:
        return []
    pairs = zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return [(variable, average) for variable, average in pairs if average is not None]


class AveragedAdamW(keras.optimizers.AdamW):
    """AdamW whose moving average of the weights is corrected for its start.

    The average is that of the weights after all steps so far, with weights that fall by `ema_momentum` from
    each step to the one before it and sum to 1 (the bias correction of Adam: Kingma and Ba, arXiv:1412.6980,
    section 3). Keras' own average keeps the first step's weights for about 1 / (1 - ema_momentum) steps.
    """

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[Any]) -> None:
        if not self.use_ema:
            return
        step = keras.ops.cast(self.iterations, "float32")
        # Of the present weights: (1 - m) / (1 - m^t) at step t, counted from 1.
        share = (1.0 - self.ema_momentum) / (1.0 - keras.ops.power(self.ema_momentum, step + 1.0))
        pairs = zip(trainable_variables, self._model_variables_moving_average, strict=True)
        for variable, average in pairs:
            if average is not None:
                average.assign(average + keras.ops.cast(share, variable.dtype) * (variable - average))


class SummedClipAdamW(AveragedAdamW):
    """AdamW that clips the gradient of the whole batch instead of each replica's share.

    Keras clips the gradients of each replica and then sums them; here they are summed first.
    """

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        context = tf.distribute.get_replica_context()
        present = [gradient for gradient in grads if gradient is not None]
        if context is not None and present:
            present = context.all_reduce(tf.distribute.ReduceOp.SUM, present)
        summed = iter(present)
        return super()._clip_gradients([None if gradient is None else next(summed) for gradient in grads])

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # Already summed, before the norm was computed.
        return grads_and_vars


def forget_custom_gradients() -> int:
    """Removes the gradients that `tf.custom_gradient` has registered, and returns their number.

    TensorFlow registers one under a new name on every call in a graph (each SiLU of each network) and never
    removes it, so that the graph stays in memory even after `keras.backend.clear_session`. Existing graphs
    can no longer be differentiated afterwards.
    """
    from tensorflow.python.framework import ops

    registry = ops.gradient_registry._registry
    names = [name for name in registry if name.startswith("CustomGradient-")]
    for name in names:
        del registry[name]
    return len(names)
