"""The moving average of the weights: what is validated, kept and served where a run keeps one."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from lumbar_tf.models.keras_compat import moving_averages


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Lends the model its averaged weights, and gives it back its own, bit for bit.

    Without a moving average nothing is swapped. Only trainable weights are averaged; batch
    normalisation's statistics are moving averages already.

    Args:
        model: a compiled model whose optimizer is built.
    """
    averages = moving_averages(model)
    own = [variable.numpy() for variable, _ in averages]
    for variable, average in averages:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(averages, own, strict=True):
            variable.assign(value)
