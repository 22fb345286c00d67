"""Grader: a backbone for each slice, pooling over slices, one head per family.

The grader knows neither level nor side: the same weights see every crop, and right-side crops are mirrored to
look like left-side ones. The canal has no side: in a plane with crops of both sides, the sides that have a
slice are averaged. Therefore any plane can grade any family.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lumbar_tf.config import GraderConfig
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Condition, Side
from lumbar_tf.models.backbones import build_backbone, prepare_batch_norm, scale_layer
from lumbar_tf.models.pooling import add_level_context, pool_slices

_HEAD_PREFIX = "head_"


def build_grader(
    backbone: str, config: GraderConfig, layout: CropLayout, *, weights: str = "none"
) -> keras.Model:
    """Builds a grader.

    Args:
        backbone: a key of `BACKBONES`.
        config: crop size, pooling and heads.
        layout: crops and output rows.
        weights: of the backbone; see `build_backbone`.

    Returns:
        Model from the fields of `inputs.crops.Crops` (with a leading study axis) to logits
        float32 [study, rows, 3] in the order of `layout.rows`.
    """
    crops, slices, size = len(layout.sides), config.crop.num_slices, config.crop.side_px
    inputs = {
        "image": keras.Input((crops, slices, size, size), name="image"),
        "mask": keras.Input((crops, slices), name="mask", dtype="bool"),
        "offset_mm": keras.Input((crops, slices), name="offset_mm"),
    }
    base = build_backbone(backbone, size_px=size, weights=weights, channels=config.channels)
    training = config.training
    prepare_batch_norm(
        base,
        momentum=training.batch_norm_momentum,
        is_frozen=training.freeze_batch_norm and weights != "none",
    )
    images = ops.reshape(inputs["image"], (-1, size, size, 1))
    images = scale_layer(backbone, config.channels)(ops.repeat(images, config.channels, axis=-1))
    features = keras.layers.GlobalAveragePooling2D()(base(images))
    features = ops.reshape(features, (-1, crops, slices, features.shape[-1]))
    pooled = pool_slices(
        features, inputs["mask"], inputs["offset_mm"], pooling=config.pooling, is_sided=layout.is_sided
    )
    pooled = ops.reshape(pooled, (-1, NUM_LEVELS, crops // NUM_LEVELS, pooled.shape[-1]))
    is_seen = ops.reshape(ops.any(inputs["mask"], axis=-1), (-1, NUM_LEVELS, crops // NUM_LEVELS))
    if config.level_context:
        pooled = add_level_context(pooled, is_seen)
    pooled = keras.layers.Dropout(config.dropout)(pooled)
    return keras.Model(inputs, _heads(pooled, is_seen, layout), name=f"{layout.plane.value}_{backbone}")


def _heads(pooled: Any, is_seen: Any, layout: CropLayout) -> Any:
    """Returns logits [study, rows, 3] of features [study, level, side, d]."""
    heads = {
        family: keras.layers.Dense(NUM_SEVERITIES, name=f"{_HEAD_PREFIX}{family.value}", dtype="float32")
        for family in layout.families
    }
    logits = []
    for condition in Condition:
        if condition.family not in heads:
            continue
        if condition.side is None:
            view = _mean_view(pooled, is_seen)
        else:
            view = pooled[:, :, 0 if condition.side is Side.LEFT else 1]
        logits.append(heads[condition.family](view))
    return logits[0] if len(logits) == 1 else ops.concatenate(logits, axis=1)


def _mean_view(pooled: Any, is_seen: Any) -> Any:
    """Averages the sides that have a slice, [study, level, side, d] to [study, level, d]; 0 if none has."""
    weight = ops.expand_dims(ops.cast(is_seen, "float32"), -1)
    return ops.sum(pooled * weight, axis=2) / ops.maximum(ops.sum(weight, axis=2), 1.0)


def freeze_features(model: keras.Model) -> keras.Model:
    """Freezes all layers of a grader except its heads, for the second step of a two-step training.

    Must be called before `compile`. Frozen batch normalisation also keeps its statistics, so that the
    features of the first step do not change.

    Returns:
        The same model.
    """
    for layer in model.layers:
        layer.trainable = layer.name.startswith(_HEAD_PREFIX)
    return model


def log_probabilities(logits: tf.Tensor, mask: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns the log-probabilities of all 25 findings.

    Args:
        logits: float32 [study, rows, 3].
        mask: bool [study, crops, slices], the grader's input.
        layout: crops and output rows.

    Returns:
        Log-probabilities float32 [study, 25, 3]; NaN for findings that the plane does not grade and for those
        whose crops have no slice.
    """
    values = tf.nn.log_softmax(logits, axis=-1)
    holds_slice = tf.reduce_any(mask, axis=-1)[:, tf.newaxis]
    is_seen = tf.reduce_any(holds_slice & tf.constant(layout.row_views), axis=-1)
    values = tf.where(is_seen[..., tf.newaxis], values, float("nan"))
    # The last row, of NaN, is that of findings without a prediction.
    values = tf.pad(values, [[0, 0], [0, 1], [0, 0]], constant_values=float("nan"))
    places = [len(layout.rows)] * NUM_FINDINGS
    for place in layout.target_places:
        places[layout.rows[place]] = place
    return tf.gather(values, places, axis=1)
