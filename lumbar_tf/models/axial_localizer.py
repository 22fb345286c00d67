"""Axial localizer: heatmap of one subarticular point over the slices around its level.

The network sees one level and side at a time, with the right side mirrored to look like the left, and knows
neither level nor side. Therefore a mirrored patient gets mirrored points by construction. An encoder-decoder
predicts the position of the point in each slice from the slice and its neighbours; the slice follows from
these heatmaps, from the features of the slice relative to the others, and from its distance from the level
point of the sagittal planes.
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

#: Unit of the network's slice offsets: 5 mm, as axial slices are 3 to 5 mm apart.
_OFFSET_UNIT_MM = 5.0
#: A point is the mean of the heatmap within this distance of its peak; the recess of the other side, its
#: mirror image, is 4 to 30 mm away (2 to 15 mm on either side of the canal point).
_WINDOW_MM = 8.0
#: Width of the window's fading edge: cells lie on a lattice, many at exactly the same distance from the peak,
#: and at a sharp edge rounding would include some of them and exclude others.
_FADE_MM = 2.0
#: Channels of the encoder: the slice below, the slice itself, the slice above.
_NEIGHBOURS = (-1, 0, 1)


class AxialLocalizer(Localizer):
    """Functional model from axial fields to logits [study, crop, slice, h, w]."""

    def stack_by_stack(
        self, field: dict[str, tf.Tensor], points: tf.Tensor, logits: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the arguments of `heatmap_loss`: each crop is a stack with one point."""
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
    """Decodes the point of each crop: the centre of mass of the heatmap around its peak, in patient space.

    Args:
        field: the localizer's inputs.
        logits: float [study, crop, slice, h, w].
        level_uncertainty: float32 [study, crop], of the level points at the crops' centres. The network does
            not know levels, so where a level point is on another disc, so is the subarticular point.

    Returns:
        The points; NaN, with a spread of NaN and an uncertainty of 1, where no slice shows the level point.
    """
    crops, logits = _crop_by_crop(field, tf.cast(logits, tf.float32))
    position = tf.reshape(cell_positions(crops, logits.shape[2]), [tf.shape(logits)[0], -1, 3])
    cells = flatten_cells(logits)[..., 0]
    peak = tf.gather(position, tf.argmax(cells, axis=-1), batch_dims=1)
    probability = tf.nn.softmax(cells, axis=-1)
    distance = tf.sqrt(_squared(position, peak))
    # The weight of the peak itself is positive, so no sum is 0.
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
    """Returns squared distances, mm2, [n, cells], of positions [n, cells, 3] from a point [n, 3]."""
    return tf.reduce_sum(tf.square(position - point[:, tf.newaxis]), axis=-1)


def build_axial_localizer(config: LocalizerConfig, *, weights: str = "none") -> AxialLocalizer:
    """Builds the localizer of the axial plane.

    Args:
        config: field, backbone and decoder.
        weights: pretrained weights of the encoder; see `build_backbone`.

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
    """Returns each slice with its neighbours as channels, [n * slice, h, w, 3]; black beyond the ends."""
    slices, size = stack.shape[1], stack.shape[2]
    padded = ops.pad(stack, [[0, 0], [1, 1], [0, 0], [0, 0]])
    channels = [padded[:, 1 + step : 1 + step + slices] for step in _NEIGHBOURS]
    return ops.reshape(ops.stack(channels, axis=-1), (-1, size, size, len(_NEIGHBOURS)))


def _slice_bias(context: Any, offset_mm: Any, mask: Any) -> Any:
    """Returns the logits of each slice of a crop for the point, [study, crop, slice]."""
    weight = ops.expand_dims(ops.cast(mask, context.dtype), -1)
    mean = ops.sum(context * weight, axis=2, keepdims=True) / ops.maximum(
        ops.sum(weight, axis=2, keepdims=True), 1.0
    )
    offset = ops.expand_dims(offset_mm, -1) / _OFFSET_UNIT_MM
    features = keras.layers.Concatenate()([context, context - mean, offset, ops.square(offset)])
    hidden = keras.layers.Dense(64, activation="relu", name="slice_hidden")(features)
    return keras.layers.Dense(1, dtype="float32", name="slice_bias")(hidden)[..., 0]
