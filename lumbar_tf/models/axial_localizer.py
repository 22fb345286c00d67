"""The axial localizer: one level's subarticular point as a heatmap over the slices around it.

It sees a level from one side at a time, the right side mirrored to look left, and knows neither level nor
side: so a mirrored patient gets mirrored points by construction. An encoder and decoder look at each slice
with its neighbours and say where in the slice the point would be; which slice it is comes from that, from
what the slice shows beside the others, and from its distance to the sagittal planes' level point.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.inputs.axial_localizer_dataset import AXIAL_SIDES
from lumbar_tf.models.localizer import (
    MASKED_LOGIT,
    STRIDE,
    Localizer,
    LocatedLevels,
    cell_positions,
    encode_decode,
    flatten_cells,
)

#: Slice offsets are given to the network in units of 5 mm: axial slices are 3 to 5 mm apart.
_OFFSET_UNIT_MM = 5.0
#: The answer is the mean of the heatmap within this distance of its peak: the other side's recess, which
#: looks alike in the mirror, is 4 to 30 mm away (2 to 15 mm on either side of the canal point).
_WINDOW_MM = 8.0
#: Over the last of it the window fades: cells lie on a lattice, and many at exactly one distance of the peak,
#: where rounding would take some in and leave others out.
_FADE_MM = 2.0
#: What the encoder sees in its 3 channels: the slice below, the slice itself, the slice above.
_NEIGHBOURS = (-1, 0, 1)


class AxialLocalizer(Localizer):
    """Functional model from axial fields to logits [study, crop, slice, h, w]."""

    def stack_by_stack(
        self, field: dict[str, tf.Tensor], points: tf.Tensor, logits: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns what `heatmap_loss` takes: each crop is a stack with one of the points [study, crop, 3]."""
        crops, logits = _crop_by_crop(field, logits)
        return crops, tf.reshape(points, [-1, 1, 3]), logits


def _crop_by_crop(field: dict[str, tf.Tensor], logits: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Returns geometry [study * crop, slice, ...] and logits [study * crop, slice, h, w, 1]."""
    flat = {
        name: tf.reshape(field[name], [-1, *field[name].shape[2:]])
        for name in ("mask", "origin", "right", "down")
    }
    return flat, tf.reshape(logits, [-1, *logits.shape[2:], 1])


def locate_subarticular(
    field: dict[str, tf.Tensor], logits: tf.Tensor, level_uncertainty: tf.Tensor
) -> LocatedLevels:
    """Reads a point off each crop's heatmap: the centre of mass around its peak, in patient space.

    Args:
        field: the localizer's inputs.
        logits: float [study, crop, slice, h, w].
        level_uncertainty: float32 [study, crop], of the level points that the crops were cut around: the
            network does not know levels, so its point is on another level's disc where that one is.

    Returns:
        The points; NaN, with a spread of NaN and a doubt of 1, where no slice holds the level point.
    """
    crops, logits = _crop_by_crop(field, tf.cast(logits, tf.float32))
    position = tf.reshape(cell_positions(crops, logits.shape[2]), [tf.shape(logits)[0], -1, 3])
    cells = flatten_cells(logits)[..., 0]
    peak = tf.gather(position, tf.argmax(cells, axis=-1), batch_dims=1)
    probability = tf.nn.softmax(cells, axis=-1)
    distance = tf.sqrt(_squared(position, peak))
    # Of the peak itself at least there is something: no sum is 0.
    share = probability * tf.clip_by_value((_WINDOW_MM - distance) / _FADE_MM, 0.0, 1.0)
    share /= tf.reduce_sum(share, axis=-1, keepdims=True)
    points = tf.einsum("nc,ncx->nx", share, position)
    spread = tf.sqrt(tf.reduce_sum(probability * _squared(position, points), axis=-1))
    is_found = tf.reduce_any(crops["mask"], axis=-1)
    points = tf.where(is_found[:, tf.newaxis], points, float("nan"))
    shape = tf.shape(level_uncertainty)
    return LocatedLevels(
        points=tf.reshape(points, [-1, len(AXIAL_SIDES), 3]),
        spread_mm=tf.reshape(tf.where(is_found, spread, float("nan")), shape),
        uncertainty=tf.where(tf.reshape(is_found, shape), level_uncertainty, 1.0),
    )


def _squared(position: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
    """Squared distance, mm2, float32 [n, cells], of positions [n, cells, 3] to a point [n, 3]."""
    return tf.reduce_sum(tf.square(position - point[:, tf.newaxis]), axis=-1)


def build_axial_localizer(config: LocalizerConfig, *, weights: str = "none") -> AxialLocalizer:
    """Builds the localizer of the axial plane.

    Args:
        config: field, backbone and decoder.
        weights: of the encoder; see `build_backbone`.

    Returns:
        Model from the fields of `AxialLocalizerInputs` (with a leading study axis) to logits
        [study, crop, slice, side_px/2, side_px/2].
    """
    crops, slices, size = len(AXIAL_SIDES), config.num_slices, config.side_px
    inputs = {
        "image": keras.Input((crops, slices, size, size), name="image"),
        "mask": keras.Input((crops, slices), name="mask", dtype="bool"),
        "offset_mm": keras.Input((crops, slices), name="offset_mm"),
        "origin": keras.Input((crops, slices, 3), name="origin"),
        "right": keras.Input((crops, slices, 3), name="right"),
        "down": keras.Input((crops, slices, 3), name="down"),
    }
    images = _with_neighbours(ops.reshape(inputs["image"], (-1, slices, size, size)))
    evidence, context = encode_decode(images, config, weights, num_heatmaps=1)
    evidence = ops.reshape(evidence, (-1, crops, slices, size // STRIDE, size // STRIDE))
    context = ops.reshape(context, (-1, crops, slices, context.shape[-1]))
    bias = _slice_bias(context, inputs["offset_mm"], inputs["mask"])
    logits = evidence + bias[:, :, :, None, None]
    logits = ops.where(inputs["mask"][:, :, :, None, None], logits, MASKED_LOGIT)
    model = AxialLocalizer(inputs, logits, name="axial_t2_localizer")
    model.sigma_mm = config.sigma_mm
    return model


def _with_neighbours(stack: Any) -> Any:
    """Returns each slice between its neighbours, [n * slice, h, w, 3]; black where there is none."""
    slices, size = stack.shape[1], stack.shape[2]
    padded = ops.pad(stack, [[0, 0], [1, 1], [0, 0], [0, 0]])
    channels = [padded[:, 1 + step : 1 + step + slices] for step in _NEIGHBOURS]
    return ops.reshape(ops.stack(channels, axis=-1), (-1, size, size, len(_NEIGHBOURS)))


def _slice_bias(context: Any, offset_mm: Any, mask: Any) -> Any:
    """Returns how likely each slice holds the point, beside the crop's others: [study, crop, slice]."""
    weight = ops.expand_dims(ops.cast(mask, context.dtype), -1)
    mean = ops.sum(context * weight, axis=2, keepdims=True) / ops.maximum(
        ops.sum(weight, axis=2, keepdims=True), 1.0
    )
    offset = ops.expand_dims(offset_mm, -1) / _OFFSET_UNIT_MM
    seen = keras.layers.Concatenate()([context, context - mean, offset, ops.square(offset)])
    hidden = keras.layers.Dense(64, activation="relu", name="slice_hidden")(seen)
    return keras.layers.Dense(1, dtype="float32", name="slice_bias")(hidden)[..., 0]
