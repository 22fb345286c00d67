"""What a level's neighbours say about it."""

from typing import Any

import keras
from keras import ops

_UNITS = 64
#: A level and the one above and below it.
_KERNEL = 3


def add_level_context(pooled: Any, is_seen: Any) -> Any:
    """Adds to each level what a convolution along the spine makes of it and its neighbours.

    Each side sees itself and the mean of both sides, with the same weights, so that a mirrored
    patient gets mirrored answers. The last layer starts from zero: an untrained context changes nothing.

    Args:
        pooled: float32 [study, level, side, d].
        is_seen: bool [study, level, side], False where no slice was seen; such a level tells nothing.

    Returns:
        float32 [study, level, side, d].
    """
    _, levels, sides, width = pooled.shape
    weight = ops.expand_dims(ops.cast(is_seen, "float32"), -1)
    views = pooled * weight
    if sides > 1:
        count = ops.maximum(ops.sum(weight, axis=2, keepdims=True), 1.0)
        both = ops.sum(views, axis=2, keepdims=True) / count
        views = ops.concatenate([views, ops.repeat(both, sides, axis=2)], axis=-1)
    hidden = keras.layers.Dense(_UNITS, activation="relu", name="context_in")(views)
    # A seen level is told from a missing one, whose features are 0 like those beyond the ends.
    hidden = ops.concatenate(
        [hidden * ops.cast(weight, hidden.dtype), ops.cast(weight, hidden.dtype)], axis=-1
    )
    spines = ops.reshape(ops.transpose(hidden, (0, 2, 1, 3)), (-1, levels, hidden.shape[-1]))
    spines = keras.layers.Conv1D(_UNITS, _KERNEL, padding="same", activation="relu", name="context")(spines)
    added = keras.layers.Dense(width, kernel_initializer="zeros", name="context_out", dtype="float32")(spines)
    added = ops.reshape(added, (-1, sides, levels, width))
    return pooled + ops.transpose(added, (0, 2, 1, 3))
