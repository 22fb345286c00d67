"""The moving average of the weights: what is validated, kept and served where a run keeps one."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Lends the model its averaged weights, and gives it back its own, bit for bit.

    Without a moving average nothing is swapped. Only trainable weights are averaged; batch
    normalisation's statistics are moving averages already.

    Args:
        model: a compiled model whose optimizer is built.
    """
    averages = _averages(model)
    own = [variable.numpy() for variable, _ in averages]
    for variable, average in averages:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(averages, own, strict=True):
            variable.assign(value)


def _averages(model: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns pairs of a trainable weight and its average; none where no average is kept."""
    # Under mixed_float16 the optimizer is wrapped in loss scaling.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema:
        return []
    pairs = zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return [(variable, average) for variable, average in pairs if average is not None]
