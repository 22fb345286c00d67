"""Mixup and cutmix in a batch of whole studies.

A crop is mixed with the crop of the same level and side of another study of the batch. Right sides have been
mirrored to look left (`inputs.crops`), so left is mixed with left and right with right, and the target of a
row is mixed with the target of the same row.
"""

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.random_values import RandomStream, stream_seed, symmetric_beta, uniform
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.crops import mask_slices

Inputs = dict[str, tf.Tensor]


def mix_studies(
    inputs: Inputs,
    targets: tf.Tensor,
    seed: tf.Tensor,
    config: AugmentationConfig,
    *,
    layout: CropLayout,
) -> tuple[Inputs, tf.Tensor]:
    """Mixes some crops of a batch with those of another study, and their targets with the same weights.

    Mixup (Zhang et al., arXiv:1710.09412) is a weighted mean of two crops. Cutmix (Yun et al.,
    arXiv:1905.04899) replaces a rectangle of one crop by the other; the weight is the share of the area.
    Kind, weight and rectangle are random for each crop. All studies of a batch are paired by one cyclic
    shift, so that no study is paired with itself. A mixed crop has the slices that both crops have; where
    they have no slice in common the crop is unchanged.

    Args:
        inputs: image float32 [B, P, S, H, W], mask bool [B, P, S], offset_mm float32 [B, P, S]; of static
            shape.
        targets: float32 [B, rows, 3]; all zeros where there is no label, mixed like any other value.
        seed: int32 [2].
        config: probabilities and parameters of the Beta distributions.
        layout: maps rows to the crops that show them.

    Returns:
        Inputs and targets of the same shapes.
    """
    studies, crops = inputs["mask"].shape[:2]
    if studies == 1 or config.mixup + config.cutmix == 0:
        return inputs, targets
    shift = tf.random.stateless_uniform([], stream_seed(seed, RandomStream.MIX_PARTNER), 1, studies, tf.int32)
    other = {name: tf.roll(value, shift, axis=0) for name, value in inputs.items()}
    both = inputs["mask"] & other["mask"]
    kind = uniform(seed, RandomStream.MIX_KIND, 0.0, 1.0, (studies, crops))
    can_mix = tf.reduce_any(both, axis=-1)
    is_mixup = can_mix & (kind < config.mixup)
    is_cutmix = can_mix & (kind >= config.mixup) & (kind < config.mixup + config.cutmix)

    own = symmetric_beta(
        seed, (RandomStream.MIXUP_RADIUS, RandomStream.MIXUP_ANGLE), config.mixup_alpha, (studies, crops)
    )
    pasted = _rectangles(seed, config, (studies, crops), inputs["image"].shape[3:])
    own = tf.where(is_mixup, own, 1.0)
    weight = tf.where(is_cutmix[..., tf.newaxis, tf.newaxis], 1 - pasted, own[..., tf.newaxis, tf.newaxis])
    share = tf.where(is_cutmix, 1 - tf.reduce_mean(pasted, axis=(2, 3)), own)

    def blend(weight: tf.Tensor, name: str) -> tf.Tensor:
        return weight * inputs[name] + (1 - weight) * other[name]

    mask = tf.where((is_mixup | is_cutmix)[..., tf.newaxis], both, inputs["mask"])
    image = mask_slices(blend(weight[:, :, tf.newaxis], "image"), mask)
    mixed = {"image": image, "mask": mask, "offset_mm": blend(share[..., tf.newaxis], "offset_mm")}
    row_share = _row_shares(share, tf.reduce_any(mask, axis=-1), layout)[..., tf.newaxis]
    return mixed, row_share * targets + (1 - row_share) * tf.roll(targets, shift, axis=0)


def _row_shares(share: tf.Tensor, is_seen: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns a study's own weight in each row, [B, rows], from that in each crop, [B, P].

    A row's weight is the mean over the crops that show it and hold a slice, as in `models.grader`.
    """
    # [study, row, crop]
    counts = tf.cast(is_seen[:, tf.newaxis] & tf.constant(layout.row_views), tf.float32)
    total = tf.reduce_sum(counts, axis=-1)
    # A row without a crop is not mixed.
    return tf.where(total > 0, tf.math.divide_no_nan(tf.einsum("srp,sp->sr", counts, share), total), 1.0)


def _rectangles(
    seed: tf.Tensor, config: AugmentationConfig, shape: tuple[int, int], size: tuple[int, int]
) -> tf.Tensor:
    """Returns a random rectangle of Beta-distributed area for each crop, float32 [B, P, H, W], 1 inside."""
    area = symmetric_beta(
        seed, (RandomStream.CUTMIX_RADIUS, RandomStream.CUTMIX_ANGLE), config.cutmix_alpha, shape
    )
    edge = tf.sqrt(area)[..., tf.newaxis]

    def band(stream: RandomStream, pixels: int) -> tf.Tensor:
        position = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
        start = uniform(seed, stream, 0.0, 1.0, (*shape, 1)) * (1 - edge)
        return tf.cast((position >= start) & (position < start + edge), tf.float32)

    rows, columns = band(RandomStream.CUTMIX_TOP, size[0]), band(RandomStream.CUTMIX_LEFT, size[1])
    return rows[..., :, tf.newaxis] * columns[..., tf.newaxis, :]
