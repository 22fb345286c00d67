"""Pooling of slice features into one vector per crop, and context from neighbouring levels."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

#: Unit of the networks' slice offsets: 10 mm, about two slices.
_OFFSET_UNIT_MM = 10.0
_ATTENTION_UNITS = 64
_RECURRENT_UNITS = 64
_CONTEXT_UNITS = 64
#: A level, the one above and the one below.
_CONTEXT_KERNEL = 3
#: Score of a missing slice; its exponential is exactly 0 in float32.
_MASKED_SCORE = -1.0e4


def pool_slices(features: Any, mask: Any, offset_mm: Any, *, pooling: str, is_sided: bool) -> Any:
    """Pools the features of a crop's slices; the features of a single slice are returned unchanged.

    Args:
        features: [study, crop, slice, d].
        mask: bool [study, crop, slice], False where there is no slice.
        offset_mm: float32 [study, crop, slice]; see `inputs.crops.Crops`.
        pooling: a key of `POOLINGS`.
        is_sided: whether crops belong to a side. If not, the result is invariant to reversing the stack, and
            slices at equal distances to the left and right of the point are equivalent.

    Returns:
        float32 [study, crop, n]; n is d except for `recurrent`.
    """
    if mask.shape[-1] == 1:
        return ops.cast(features[:, :, 0], "float32")
    offset = ops.expand_dims(offset_mm, -1) / _OFFSET_UNIT_MM
    return POOLINGS[pooling](features, mask, offset if is_sided else ops.abs(offset), is_sided)


def _attend(features: Any, mask: Any, offset: Any, is_sided: bool) -> Any:
    """Attention pooling by the features and offsets of the slices."""
    score = keras.layers.Concatenate()([features, offset, ops.square(offset)])
    score = keras.layers.Dense(_ATTENTION_UNITS, activation="tanh", name="attention_hidden")(score)
    score = keras.layers.Dense(1, name="attention_score", dtype="float32")(score)[..., 0]
    score = ops.where(mask, score, _MASKED_SCORE)
    weight = ops.expand_dims(ops.softmax(score, axis=-1), -1)
    return ops.sum(ops.cast(features, "float32") * weight, axis=2)


def _average(features: Any, mask: Any, offset: Any, is_sided: bool) -> Any:
    """Mean over the present slices; 0 if there is none."""
    weight = ops.expand_dims(ops.cast(mask, "float32"), -1)
    count = ops.maximum(ops.sum(weight, axis=2), 1.0)
    return ops.sum(ops.cast(features, "float32") * weight, axis=2) / count


def _recur(features: Any, mask: Any, offset: Any, is_sided: bool) -> Any:
    """Bidirectional GRU over the slices; missing slices do not change the state."""
    _, crops, slices, _ = features.shape
    sequence = keras.layers.Concatenate()([features, offset, ops.square(offset)])
    sequence = ops.reshape(sequence, (-1, slices, sequence.shape[-1]))
    is_present = ops.reshape(mask, (-1, slices))
    forwards = _recurrent("recurrent_forwards")
    # With a side the two directions differ (towards the midline, away from it); without, they share weights.
    backwards = _recurrent("recurrent_backwards") if is_sided else forwards
    views = [
        forwards(sequence, mask=is_present),
        backwards(ops.flip(sequence, axis=1), mask=ops.flip(is_present, axis=1)),
    ]
    state = ops.concatenate(views, axis=-1) if is_sided else (views[0] + views[1]) / 2
    return ops.cast(ops.reshape(state, (-1, crops, state.shape[-1])), "float32")


def _recurrent(name: str) -> keras.Layer:
    # Unrolled, because slices are few and their number is static, and without cuDNN, which requires masked
    # steps to be last: the same graph runs on CPU, GPU, XLA and in the export.
    return keras.layers.GRU(_RECURRENT_UNITS, unroll=True, use_cudnn=False, name=name)


#: Functions of features, mask, offset [study, crop, slice, 1] in units of 10 mm, and `is_sided`.
POOLINGS: dict[str, Callable[[Any, Any, Any, bool], Any]] = {
    "attention": _attend,
    "mean": _average,
    "recurrent": _recur,
}


def add_level_context(pooled: Any, is_seen: Any) -> Any:
    """Adds a residual convolution along the spine to the features of each level.

    The input of each side is its own features and the mean of both sides, with shared weights, so that a
    mirrored patient gets mirrored predictions. The last layer is initialised with zeros: untrained, the
    function is the identity.

    Args:
        pooled: float32 [study, level, side, d].
        is_seen: bool [study, level, side], False where there is no slice; such a level contributes nothing.

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
    hidden = keras.layers.Dense(_CONTEXT_UNITS, activation="relu", name="context_in")(views)
    # The mask as a feature distinguishes missing levels from the zero padding beyond the ends.
    hidden = ops.concatenate(
        [hidden * ops.cast(weight, hidden.dtype), ops.cast(weight, hidden.dtype)], axis=-1
    )
    spines = ops.reshape(ops.transpose(hidden, (0, 2, 1, 3)), (-1, levels, hidden.shape[-1]))
    spines = keras.layers.Conv1D(
        _CONTEXT_UNITS, _CONTEXT_KERNEL, padding="same", activation="relu", name="context"
    )(spines)
    added = keras.layers.Dense(width, kernel_initializer="zeros", name="context_out", dtype="float32")(spines)
    added = ops.reshape(added, (-1, sides, levels, width))
    return pooled + ops.transpose(added, (0, 2, 1, 3))
