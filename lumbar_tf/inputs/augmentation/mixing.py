"""Mixup and cutmix of a batch of whole studies: the same place of two patients in one crop.

A crop is mixed with the crop of the same level and side of another study of the batch. Right sides are
mirrored to look left before this (`data.crops`), so left stays with left and right with right, and a row's
target mixes with the same row's target.
"""

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.draws import Draw, stream, symmetric_beta, uniform
from lumbar_tf.inputs.crop_layout import CropLayout

Inputs = dict[str, tf.Tensor]


def mix_studies(
    inputs: Inputs,
    targets: tf.Tensor,
    seed: tf.Tensor,
    config: AugmentationConfig,
    *,
    layout: CropLayout,
) -> tuple[Inputs, tf.Tensor]:
    """Mixes some crops of a batch with those of another study, and their targets by the same share.

    Mixup (Zhang et al., arXiv:1710.09412) adds two crops with weights; cutmix (Yun et al., arXiv:1905.04899)
    puts a rectangle of the one into the other, and its area is the share. Kind, share and rectangle are drawn
    for each crop; a batch has one shift of studies, so that nobody is mixed with himself. A mixed crop
    keeps the slices that both have; a crop of which one of the two has nothing stays as it is.

    Args:
        inputs: image float32 [B, P, S, H, W], mask bool [B, P, S], offset_mm float32 [B, P, S]; of static
            shape.
        targets: float32 [B, rows, 3]; all zeros where nobody graded, which mixes as zeros do.
        seed: int32 [2].
        config: probabilities and the shapes of the Beta distributions.
        layout: says which crops show a row.

    Returns:
        Inputs and targets of the same shapes.
    """
    studies, crops = inputs["mask"].shape[:2]
    if studies == 1 or config.mixup + config.cutmix == 0:
        return inputs, targets
    shift = tf.random.stateless_uniform([], stream(seed, Draw.MIX_PARTNER), 1, studies, tf.int32)
    other = {name: tf.roll(value, shift, axis=0) for name, value in inputs.items()}
    both = inputs["mask"] & other["mask"]
    kind = uniform(seed, Draw.MIX_KIND, 0.0, 1.0, (studies, crops))
    can_mix = tf.reduce_any(both, axis=-1)
    is_mixup = can_mix & (kind < config.mixup)
    is_cutmix = can_mix & (kind >= config.mixup) & (kind < config.mixup + config.cutmix)

    own = symmetric_beta(seed, (Draw.MIXUP_RADIUS, Draw.MIXUP_ANGLE), config.mixup_alpha, (studies, crops))
    pasted = _rectangles(seed, config, (studies, crops), inputs["image"].shape[3:])
    own = tf.where(is_mixup, own, 1.0)
    weight = tf.where(is_cutmix[..., tf.newaxis, tf.newaxis], 1 - pasted, own[..., tf.newaxis, tf.newaxis])
    share = tf.where(is_cutmix, 1 - tf.reduce_mean(pasted, axis=(2, 3)), own)

    def blend(weight: tf.Tensor, name: str) -> tf.Tensor:
        return weight * inputs[name] + (1 - weight) * other[name]

    mask = tf.where((is_mixup | is_cutmix)[..., tf.newaxis], both, inputs["mask"])
    image = tf.where(mask[..., tf.newaxis, tf.newaxis], blend(weight[:, :, tf.newaxis], "image"), 0.0)
    mixed = {"image": image, "mask": mask, "offset_mm": blend(share[..., tf.newaxis], "offset_mm")}
    row_share = _row_shares(share, tf.reduce_any(mask, axis=-1), layout)[..., tf.newaxis]
    return mixed, row_share * targets + (1 - row_share) * tf.roll(targets, shift, axis=0)


def _row_shares(share: tf.Tensor, is_seen: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns a study's own share in each row, [B, rows], from that in each crop, [B, P].

    A row is answered from the mean of the crops that show it and hold a slice, as `models.grader` does.
    """
    # [study, row, crop]
    counts = tf.cast(is_seen[:, tf.newaxis] & tf.constant(layout.row_views), tf.float32)
    total = tf.reduce_sum(counts, axis=-1)
    # Without any crop nothing was mixed.
    return tf.where(total > 0, tf.math.divide_no_nan(tf.einsum("srp,sp->sr", counts, share), total), 1.0)


def _rectangles(
    seed: tf.Tensor, config: AugmentationConfig, shape: tuple[int, int], size: tuple[int, int]
) -> tf.Tensor:
    """Draws a rectangle inside each crop: float32 [B, P, H, W], 1 inside; its share of the area is Beta."""
    area = symmetric_beta(seed, (Draw.CUTMIX_RADIUS, Draw.CUTMIX_ANGLE), config.cutmix_alpha, shape)
    edge = tf.sqrt(area)[..., tf.newaxis]

    def band(draw: Draw, pixels: int) -> tf.Tensor:
        position = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
        start = uniform(seed, draw, 0.0, 1.0, (*shape, 1)) * (1 - edge)
        return tf.cast((position >= start) & (position < start + edge), tf.float32)

    rows, columns = band(Draw.CUTMIX_TOP, size[0]), band(Draw.CUTMIX_LEFT, size[1])
    return rows[..., :, tf.newaxis] * columns[..., tf.newaxis, :]
