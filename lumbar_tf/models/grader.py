"""The grader: a backbone for each slice, attention over slices, one head a family.

A finding has no level and no side: the same weights see every crop, the right side's mirrored to look
left. The canal has no side either: where a plane is looked at from both, the two views are averaged.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lumbar_tf.config import GraderConfig
from lumbar_tf.data.anchors import CropLayout
from lumbar_tf.labels import NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Condition, Family, Side
from lumbar_tf.models.backbones import build_backbone, prepare_batch_norm, scale_layer

#: Offsets of slices are given to the attention in units of 10 mm, about two slices.
_OFFSET_UNIT_MM = 10.0
_ATTENTION_UNITS = 64
#: Added to the score of a missing slice; exp of it is exactly 0 in float32.
_MASKED_SCORE = -1.0e4


def build_grader(
    backbone: str, config: GraderConfig, layout: CropLayout, *, weights: str = "none"
) -> keras.Model:
    """Builds a grader.

    Args:
        backbone: a key of `BACKBONES`.
        config: crop size and head.
        layout: crops and answered rows.
        weights: of the backbone; see `build_backbone`.

    Returns:
        Model from the inputs of `data.pipeline.grader_inputs` (with a leading study axis) to logits
        float32 [study, rows, 3] in the order of `layout.rows`.
    """
    crops, slices, size = len(layout.sides), config.crop.num_slices, config.crop.side_px
    inputs = {
        "image": keras.Input((crops, slices, size, size), name="image"),
        "mask": keras.Input((crops, slices), name="mask", dtype="bool"),
        "offset_mm": keras.Input((crops, slices), name="offset_mm"),
    }
    base = build_backbone(backbone, size_px=size, weights=weights)
    training = config.training
    prepare_batch_norm(
        base,
        momentum=training.batch_norm_momentum,
        is_frozen=training.freeze_batch_norm and weights != "none",
    )
    images = ops.reshape(inputs["image"], (-1, size, size, 1))
    images = scale_layer(backbone)(ops.repeat(images, 3, axis=-1))
    features = keras.layers.GlobalAveragePooling2D()(base(images))
    features = ops.reshape(features, (-1, crops, slices, features.shape[-1]))
    pooled = _attend(features, inputs["mask"], inputs["offset_mm"], is_sided=layout.is_sided)
    pooled = keras.layers.Dropout(config.dropout)(pooled)
    pooled = ops.reshape(pooled, (-1, NUM_LEVELS, crops // NUM_LEVELS, pooled.shape[-1]))
    return keras.Model(inputs, _heads(pooled, layout), name=f"{layout.plane.value}_{backbone}")


def _attend(features: Any, mask: Any, offset_mm: Any, *, is_sided: bool) -> Any:
    """Weighs slices by what they show and where they lie: [study, crop, slice, d] to [study, crop, d]."""
    if mask.shape[-1] == 1:
        return ops.cast(features[:, :, 0], "float32")
    offset = ops.expand_dims(offset_mm, -1) / _OFFSET_UNIT_MM
    # Without a side, a slice to the left and one to the right of the point must count alike.
    offset = offset if is_sided else ops.abs(offset)
    score = keras.layers.Concatenate()([features, offset, ops.square(offset)])
    score = keras.layers.Dense(_ATTENTION_UNITS, activation="tanh", name="attention_hidden")(score)
    score = keras.layers.Dense(1, name="attention_score", dtype="float32")(score)[..., 0]
    score = ops.where(mask, score, _MASKED_SCORE)
    weight = ops.expand_dims(ops.softmax(score, axis=-1), -1)
    return ops.sum(ops.cast(features, "float32") * weight, axis=2)


def _heads(pooled: Any, layout: CropLayout) -> Any:
    """Turns [study, level, side, d] into logits [study, rows, 3]."""
    heads = {
        family: keras.layers.Dense(NUM_SEVERITIES, name=f"head_{family.value}", dtype="float32")
        for family in layout.targets
    }
    answers = []
    for condition in Condition:
        if condition.family not in heads:
            continue
        if condition.family is Family.CANAL:
            view = ops.mean(pooled, axis=2)
        else:
            view = pooled[:, :, 0 if condition.side is Side.LEFT else 1]
        answers.append(heads[condition.family](view))
    return answers[0] if len(answers) == 1 else ops.concatenate(answers, axis=1)


def log_probabilities(logits: tf.Tensor, mask: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Lays a grader's answers into the 25 rows.

    Args:
        logits: float32 [study, rows, 3].
        mask: bool [study, crops, slices], the grader's input.
        layout: crops and answered rows.

    Returns:
        Log-probabilities float32 [study, 25, 3]; NaN for findings that the plane does not answer or
        whose crop holds no slice at all.
    """
    values = tf.nn.log_softmax(logits, axis=-1)
    is_seen = tf.gather(tf.reduce_any(mask, axis=-1), layout.row_crops, axis=1)
    values = tf.where(is_seen[..., tf.newaxis], values, float("nan"))
    columns = [float("nan") * tf.ones_like(values[:, 0])] * NUM_FINDINGS
    for place, row in enumerate(layout.rows):
        columns[row] = values[:, place]
    return tf.stack(columns, axis=1)
