"""Localizer of a sagittal plane: heatmaps of the level points over a whole stack.

An encoder-decoder predicts the position of each level's point in each slice independently; the position in
the stack follows from the features of the slices and their distances from the middle of the stack. The right
side is the left side of the mirrored patient by construction: it is predicted by the same weights with the
sign of the slice offsets reversed.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.labels import NUM_LEVELS, Plane
from lumbar_tf.models.backbones import build_backbone, feature_pyramid, prepare_batch_norm, scale_layer
from lumbar_tf.models.level_decoding import SAME_DISC_MM, decode_levels
from lumbar_tf.models.losses import total_over_replicas

#: Unit of the network's slice offsets: 20 mm, as foramina lie 13 to 23 mm from the middle.
_LATERAL_UNIT_MM = 20.0
MASKED_LOGIT = -1.0e4
#: A point is the mean of the heatmap within this distance of its peak, so that two candidate levels (30 to 40
#: mm apart) are never averaged to a point between them.
_WINDOW_MM = 12.0
#: Stride of the heatmap, in pixels of the field.
STRIDE = 2


class Localizer(keras.Model):
    """Functional model from a field to logits [study, slice, h, w, points] with its own loss."""

    sigma_mm: float = 5.0

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Returns `heatmap_loss`.

        Args:
            x: the field.
            y: points, float32, LPS mm; NaN is ignored.
            y_pred: logits.
            sample_weight: unused.
            training: unused.
        """
        return heatmap_loss(*self.stack_by_stack(x, y, y_pred), sigma_mm=self.sigma_mm)

    def stack_by_stack(
        self, field: dict[str, tf.Tensor], points: tf.Tensor, logits: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the arguments of `heatmap_loss`: each study is a stack with points [study, points, 3]."""
        return field, points, logits


def heatmap_loss(
    field: dict[str, tf.Tensor], points: tf.Tensor, logits: tf.Tensor, *, sigma_mm: float
) -> tf.Tensor:
    """Cross-entropy against a Gaussian of `sigma_mm` around each true point.

    Args:
        field: the localizer's inputs: `mask` bool [n, slice], `origin`, `right` and `down` [n, slice, 3].
        points: float32 [n, points, 3], LPS mm; NaN is ignored.
        logits: float [n, slice, h, w, points].
        sigma_mm: standard deviation of the Gaussian.

    Returns:
        float32 scalar, mean over the labelled points.
    """
    is_labelled = tf.reduce_all(tf.math.is_finite(points), axis=-1)
    target = tf.where(is_labelled[..., tf.newaxis], points, 0.0)
    squared = _squared_distance(field, target, logits.shape[2])
    masked = tf.where(field["mask"][:, :, tf.newaxis, tf.newaxis, tf.newaxis], 0.0, MASKED_LOGIT)
    wanted = tf.nn.softmax(flatten_cells(-squared / (2 * sigma_mm**2) + masked), axis=1)
    log_probability = tf.nn.log_softmax(flatten_cells(tf.cast(logits, tf.float32)), axis=1)
    entropy = -tf.reduce_sum(wanted * log_probability, axis=1)
    weight = tf.cast(is_labelled, tf.float32)
    # The gradients of replicas are added: each contributes its part of the mean over the whole batch.
    num_labelled = total_over_replicas(tf.reduce_sum(weight))
    return tf.reduce_sum(entropy * weight) / tf.maximum(num_labelled, 1.0)


def flatten_cells(heatmap: tf.Tensor) -> tf.Tensor:
    """Reshapes a heatmap [study, slice, h, w, points] to [study, cells, points]."""
    return tf.reshape(heatmap, [tf.shape(heatmap)[0], -1, heatmap.shape[-1]])


def _cell_offsets(cells: int) -> tf.Tensor:
    """Returns the offsets of cell centres from the centre of the field, in field pixels, float32 [cells].

    Cell c covers the field pixels c*stride to c*stride + stride - 1.
    """
    size = cells * STRIDE
    return (tf.range(cells, dtype=tf.float32) + 0.5) * STRIDE - 0.5 - (size - 1) / 2


def cell_positions(field: dict[str, tf.Tensor], cells: int) -> tf.Tensor:
    """Returns the patient positions of heatmap cells, LPS mm, float32 [study, slice, h, w, 3]."""
    offset = _cell_offsets(cells)
    down = field["down"][:, :, tf.newaxis] * offset[:, tf.newaxis]
    right = field["right"][:, :, tf.newaxis] * offset[:, tf.newaxis]
    origin = field["origin"][:, :, tf.newaxis, tf.newaxis]
    return origin + down[:, :, :, tf.newaxis] + right[:, :, tf.newaxis]


def _squared_distance(field: dict[str, tf.Tensor], points: tf.Tensor, cells: int) -> tf.Tensor:
    """Returns squared distances of cells from points, mm2, float32 [study, slice, h, w, points]."""
    position = cell_positions(field, cells)[..., tf.newaxis, :]
    return tf.reduce_sum(tf.square(position - points[:, tf.newaxis, tf.newaxis, tf.newaxis]), axis=-1)


class LocatedLevels(NamedTuple):
    """Points decoded from the heatmaps.

    Attributes:
        points: float32 [study, points, 3], LPS mm; NaN where no sequence of five levels was found.
        spread_mm: float32 [study, points], root mean square distance of the whole heatmap from the point.
            Values far above the sigma of the training target mean that the heatmap has more than one
            candidate.
        uncertainty: float32 [study, points], 0 to 1, the share of level sequences that have the level on
            another disc.
    """

    points: tf.Tensor
    spread_mm: tf.Tensor
    uncertainty: tf.Tensor


def locate_levels(field: dict[str, tf.Tensor], logits: tf.Tensor) -> LocatedLevels:
    """Decodes the points of all levels jointly; each is the centre of mass of its heatmap at the chosen disc.

    Args:
        field: the localizer's inputs.
        logits: float [study, slice, h, w, points], ordered by level, then by side.
    """
    shape, cells = tf.shape(logits), logits.shape[2]
    sides = logits.shape[-1] // NUM_LEVELS
    logits = tf.cast(logits, tf.float32)
    position = cell_positions(field, cells)
    probability = tf.nn.softmax(flatten_cells(logits), axis=1)
    by_side = tf.reshape(probability, tf.concat([shape[:4], [NUM_LEVELS, sides]], axis=0))
    decoded = [decode_levels(by_side[..., side], position) for side in range(sides)]
    discs = tf.reshape(tf.stack([side.points for side in decoded], axis=2), [-1, NUM_LEVELS * sides, 3])
    uncertainty = tf.reshape(
        tf.stack([side.uncertainty for side in decoded], axis=2), [-1, NUM_LEVELS * sides]
    )
    flat = tf.reshape(position, [shape[0], -1, 3])

    def squared_to(points: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(flat[:, :, tf.newaxis] - points[:, tf.newaxis]), axis=-1)

    # From logits, because probabilities underflow where a level was outvoted by the others.
    is_near = squared_to(discs) <= _WINDOW_MM**2
    share = tf.nn.softmax(tf.where(is_near, flatten_cells(logits), 2 * MASKED_LOGIT), axis=1)
    refined = tf.einsum("bcp,bcx->bpx", share, flat)
    points = tf.where(tf.reduce_any(is_near, axis=1)[..., tf.newaxis], refined, discs)
    spread = tf.sqrt(tf.reduce_sum(probability * squared_to(points), axis=1))
    return LocatedLevels(points, spread, uncertainty)


def combine_folds(located: LocatedLevels) -> LocatedLevels:
    """Combines the points of several folds.

    Args:
        located: with a leading fold axis on every tensor.

    Returns:
        The median of the points that were found (robust against a fold on a wrong level), the mean spread,
        and the mean uncertainty, with 1 for a fold on another disc than the median. NaN and 1 where no
        fold found a point.
    """
    is_found = tf.reduce_all(tf.math.is_finite(located.points), axis=-1, keepdims=True)
    count = tf.reduce_sum(tf.cast(is_found, tf.int32), axis=0)
    # Missing points sort last.
    ordered = tf.sort(tf.where(is_found, located.points, np.inf), axis=0)
    ordered = tf.transpose(ordered, [1, 2, 3, 0])

    def pick(rank: tf.Tensor) -> tf.Tensor:
        return tf.gather(ordered, tf.broadcast_to(rank, tf.shape(ordered)[:3]), batch_dims=3)

    last = tf.maximum(count - 1, 0)
    median = (pick(last // 2) + pick(tf.minimum(count // 2, last))) / 2
    median = tf.where(count > 0, median, float("nan"))
    is_near = tf.norm(located.points - median, axis=-1) <= SAME_DISC_MM
    uncertainty = tf.reduce_mean(tf.where(is_near, located.uncertainty, 1.0), axis=0)
    return LocatedLevels(median, tf.reduce_mean(located.spread_mm, axis=0), uncertainty)


def build_localizer(config: LocalizerConfig, plane: Plane, *, weights: str = "none") -> Localizer:
    """Builds a localizer: 5 canal points for sagittal T2, 10 foramina for sagittal T1.

    Args:
        config: field, backbone and decoder.
        plane: a sagittal plane; see `axial_localizer` for the axial one.
        weights: pretrained weights of the encoder; see `build_backbone`.

    Returns:
        Model from the fields of `LocalizerInputs` (with a leading study axis) to
        logits [study, slice, side_px/2, side_px/2, points].
    """
    slices, size = config.num_slices, config.side_px
    inputs = {
        "image": keras.Input((slices, size, size), name="image"),
        "mask": keras.Input((slices,), name="mask", dtype="bool"),
        "lateral_mm": keras.Input((slices,), name="lateral_mm"),
        "origin": keras.Input((slices, 3), name="origin"),
        "right": keras.Input((slices, 3), name="right"),
        "down": keras.Input((slices, 3), name="down"),
    }
    images = ops.repeat(ops.reshape(inputs["image"], (-1, size, size, 1)), 3, axis=-1)
    evidence, context = encode_decode(images, config, weights, num_heatmaps=NUM_LEVELS)
    evidence = ops.reshape(evidence, (-1, slices, size // STRIDE, size // STRIDE, NUM_LEVELS))
    context = ops.reshape(context, (-1, slices, context.shape[-1]))
    bias = _slice_bias(context, inputs["lateral_mm"], is_sided=plane is Plane.SAGITTAL_T1)
    logits = ops.expand_dims(evidence, -1) + bias[:, :, None, None]
    logits = ops.reshape(logits, (-1, *logits.shape[1:4], logits.shape[4] * logits.shape[5]))
    logits = ops.where(inputs["mask"][:, :, None, None, None], logits, MASKED_LOGIT)
    model = Localizer(inputs, logits, name=f"{plane.value}_localizer")
    model.sigma_mm = config.sigma_mm
    return model


def encode_decode(
    images: Any, config: LocalizerConfig, weights: str, *, num_heatmaps: int
) -> tuple[Any, Any]:
    """Returns heatmap evidence [n, h, w, num_heatmaps] and a context vector [n, d] for each image."""
    base = build_backbone(config.backbone, size_px=config.side_px, weights=weights)
    training = config.training
    prepare_batch_norm(
        base,
        momentum=training.batch_norm_momentum,
        is_frozen=training.freeze_batch_norm and weights != "none",
    )
    pyramid = feature_pyramid(base, config.side_px)
    if min(pyramid) != STRIDE:
        raise ValueError(
            f"A localizer's backbone must have features at stride {STRIDE}. "
            f"Received: {config.backbone}, with strides {', '.join(map(str, pyramid))}."
        )
    encoder = keras.Model(base.inputs, [pyramid[stride] for stride in pyramid])
    levels = encoder(scale_layer(config.backbone)(images))
    width = config.decoder_channels
    x = _convolve(levels[-1], width * 2)
    context = keras.layers.GlobalAveragePooling2D()(x)
    for skip in reversed(levels[:-1]):
        x = keras.layers.UpSampling2D(interpolation="bilinear")(x)
        x = keras.layers.Concatenate()([x, _convolve(skip, width, kernel=1)])
        x = _convolve(x, width)
    return keras.layers.Conv2D(num_heatmaps, 1, dtype="float32", name="evidence")(x), context


def _convolve(x: Any, filters: int, kernel: int = 3) -> Any:
    x = keras.layers.Conv2D(filters, kernel, padding="same", use_bias=False)(x)
    # Group normalisation, because batches consist of few studies with similar slices.
    x = keras.layers.GroupNormalization(groups=8)(x)
    return keras.layers.Activation("relu")(x)


def _slice_bias(context: Any, lateral_mm: Any, *, is_sided: bool) -> Any:
    """Returns the logits of each slice for each level's point, [study, slice, level, side].

    The left side uses the offsets of the slices, the right side the offsets with reversed sign. Without sides
    the two are averaged, so that the mirrored patient gets the same result.
    """
    hidden = keras.layers.Dense(64, activation="relu", name="slice_hidden")
    out = keras.layers.Dense(NUM_LEVELS, dtype="float32", name="slice_bias")
    lateral = ops.expand_dims(lateral_mm, -1) / _LATERAL_UNIT_MM

    def view(sign: float) -> Any:
        offset = lateral * sign
        features = [
            offset,
            ops.square(offset),
            ops.exp(-ops.square(offset - 1.0) * 4),
            ops.exp(-ops.square(offset) * 4),
        ]
        return out(hidden(keras.layers.Concatenate()([context, *features])))

    left, right = view(1.0), view(-1.0)
    if is_sided:
        return ops.stack([left, right], axis=-1)
    return ops.expand_dims((left + right) / 2, -1)
