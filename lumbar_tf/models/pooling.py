"""From the features of a crop's slices to one vector a crop."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

#: Offsets of slices are given to the networks in units of 10 mm, about two slices.
_OFFSET_UNIT_MM = 10.0
_ATTENTION_UNITS = 64
_RECURRENT_UNITS = 64
#: Added to the score of a missing slice; exp of it is exactly 0 in float32.
_MASKED_SCORE = -1.0e4


def pool_slices(features: Any, mask: Any, offset_mm: Any, *, pooling: str, is_sided: bool) -> Any:
    """Makes one vector of a crop's slices; a single slice is taken as it is.

    Args:
        features: [study, crop, slice, d].
        mask: bool [study, crop, slice], False where there is no slice.
        offset_mm: float32 [study, crop, slice]; see `inputs.crops.Crops`.
        pooling: a key of `POOLINGS`.
        is_sided: whether crops are of a side. Without one, a slice to the left of the point and one to the
            right count alike, and a stack read from its other end gives the same answer.

    Returns:
        float32 [study, crop, n]; n is d except for `recurrent`.
    """
    if mask.shape[-1] == 1:
        return ops.cast(features[:, :, 0], "float32")
    offset = ops.expand_dims(offset_mm, -1) / _OFFSET_UNIT_MM
    return POOLINGS[pooling](features, mask, offset if is_sided else ops.abs(offset), is_sided)


def _attend(features: Any, mask: Any, offset: Any, is_sided: bool) -> Any:
    """Weighs slices by what they show and where they lie."""
    score = keras.layers.Concatenate()([features, offset, ops.square(offset)])
    score = keras.layers.Dense(_ATTENTION_UNITS, activation="tanh", name="attention_hidden")(score)
    score = keras.layers.Dense(1, name="attention_score", dtype="float32")(score)[..., 0]
    score = ops.where(mask, score, _MASKED_SCORE)
    weight = ops.expand_dims(ops.softmax(score, axis=-1), -1)
    return ops.sum(ops.cast(features, "float32") * weight, axis=2)


def _average(features: Any, mask: Any, offset: Any, is_sided: bool) -> Any:
    """Mean over the slices that are there; 0 where there is none."""
    weight = ops.expand_dims(ops.cast(mask, "float32"), -1)
    count = ops.maximum(ops.sum(weight, axis=2), 1.0)
    return ops.sum(ops.cast(features, "float32") * weight, axis=2) / count


def _recur(features: Any, mask: Any, offset: Any, is_sided: bool) -> Any:
    """Reads the slices in both directions; a missing slice leaves the state as it was."""
    _, crops, slices, _ = features.shape
    sequence = keras.layers.Concatenate()([features, offset, ops.square(offset)])
    sequence = ops.reshape(sequence, (-1, slices, sequence.shape[-1]))
    there = ops.reshape(mask, (-1, slices))
    forwards = _recurrent("recurrent_forwards")
    # With a side, towards the middle and away from it are two things; without, one network reads both ways.
    backwards = _recurrent("recurrent_backwards") if is_sided else forwards
    views = [
        forwards(sequence, mask=there),
        backwards(ops.flip(sequence, axis=1), mask=ops.flip(there, axis=1)),
    ]
    state = ops.concatenate(views, axis=-1) if is_sided else (views[0] + views[1]) / 2
    return ops.cast(ops.reshape(state, (-1, crops, state.shape[-1])), "float32")


def _recurrent(name: str) -> keras.Layer:
    # Unrolled (slices are few and their number static) and without cuDNN, whose masks must be at the end:
    # one graph for CPU, GPU, XLA and the export.
    return keras.layers.GRU(_RECURRENT_UNITS, unroll=True, use_cudnn=False, name=name)


#: Each takes features, mask, offset [study, crop, slice, 1] in units of 10 mm, and `is_sided`.
POOLINGS: dict[str, Callable[[Any, Any, Any, bool], Any]] = {
    "attention": _attend,
    "mean": _average,
    "recurrent": _recur,
}
