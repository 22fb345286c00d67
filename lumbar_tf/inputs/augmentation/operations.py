"""Augmentation of one study: geometric warp, intensity changes, occlusion and their order.

The random functions on images take `image`, float32 [P, S, H, W] of P crops with S slices, a seed, int32 [2],
and the limits, and return the same shape. An occluded region is the same in all slices of a crop and is set
to mid-grey.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.intensity import (
    random_bias_field,
    random_blur,
    random_brightness,
    random_contrast,
    random_gamma,
    random_motion_ghost,
    random_noise,
    random_spike,
)
from lumbar_tf.inputs.augmentation.random_values import RandomStream, bernoulli, stream_seed, uniform
from lumbar_tf.inputs.crops import Crops, Warp
from lumbar_tf.inputs.slice_decoding import JITTER_LIMIT

_GREY = 0.5
#: Edge of a cutout as a share of the crop's edge.
_CUTOUT_SHARE = (0.15, 0.4)
#: Period of a grid mask as a share of the crop's edge: two to four squares per row.
_GRID_PERIOD = (0.25, 0.5)
#: Share of a period that stays visible along each axis; r of the GridMask paper for ImageNet.
_GRID_KEPT = 0.6
#: Upper bound of intensities, as in `inputs.crops.resample`.
_HIGHEST = 1.5


def random_warp(seed: tf.Tensor, config: AugmentationConfig) -> Warp:
    """Returns one random rotation, zoom and shift for a whole study, part of the crops' one interpolation."""
    limit = config.rotation_deg * math.pi / 180
    angle = uniform(seed, RandomStream.ROTATION, -limit, limit)
    stretch = math.log1p(config.zoom)
    zoom = tf.exp(uniform(seed, RandomStream.ZOOM, -stretch, stretch))
    rotation = tf.stack([tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)])
    return Warp(
        matrix=tf.reshape(rotation, [2, 2]) * zoom,
        shift_mm=uniform(seed, RandomStream.SHIFT, -config.shift_mm, config.shift_mm, (2,)),
    )


def jitter_points(points: tf.Tensor, seed: tf.Tensor, sigma_mm: tf.Tensor) -> tf.Tensor:
    """Moves points at random, with the same distribution as a localizer's error.

    Args:
        points: float32 [P, 3], LPS mm; NaN stays NaN.
        seed: int32 [2].
        sigma_mm: float32 [3], standard deviation along x, y, z.

    Returns:
        The same shape; each coordinate within `JITTER_LIMIT` standard deviations of its input.
    """
    noise = tf.random.stateless_normal(tf.shape(points), stream_seed(seed, RandomStream.JITTER))
    return points + sigma_mm * tf.clip_by_value(noise, -JITTER_LIMIT, JITTER_LIMIT)


def random_cutout(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Occludes one rectangle in some crops."""
    if config.cutout == 0:
        return image
    crops = image.shape[0]

    def band(size_stream: RandomStream, start_stream: RandomStream, pixels: int) -> tf.Tensor:
        position = np.arange(pixels, dtype=np.float32) / pixels
        size = uniform(seed, size_stream, *_CUTOUT_SHARE, (crops, 1))
        start = uniform(seed, start_stream, 0.0, 1.0, (crops, 1)) * (1 - size)
        return (position >= start) & (position < start + size)

    rows = band(RandomStream.CUTOUT_HEIGHT, RandomStream.CUTOUT_TOP, image.shape[2])
    columns = band(RandomStream.CUTOUT_WIDTH, RandomStream.CUTOUT_LEFT, image.shape[3])
    return _hide(image, rows, columns, bernoulli(seed, RandomStream.CUTOUT_APPLIED, config.cutout, (crops,)))


def random_grid_mask(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Occludes a grid of squares in some crops (GridMask: Chen et al., arXiv:2001.04086, section 3.2)."""
    if config.grid_mask == 0:
        return image
    crops = image.shape[0]
    period = uniform(seed, RandomStream.GRID_PERIOD, *_GRID_PERIOD, (crops, 1))

    def bands(start_stream: RandomStream, pixels: int) -> tf.Tensor:
        position = np.arange(pixels, dtype=np.float32) / pixels
        place = tf.math.floormod(position / period + uniform(seed, start_stream, 0.0, 1.0, (crops, 1)), 1.0)
        return place < 1 - _GRID_KEPT

    rows, columns = (
        bands(RandomStream.GRID_TOP, image.shape[2]),
        bands(RandomStream.GRID_LEFT, image.shape[3]),
    )
    return _hide(image, rows, columns, bernoulli(seed, RandomStream.GRID_APPLIED, config.grid_mask, (crops,)))


def _hide(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Sets the pixels at rows [P, H] and columns [P, W] of the selected crops, [P], to mid-grey."""
    hidden = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :] & chosen[:, tf.newaxis, tf.newaxis]
    return tf.where(hidden[:, tf.newaxis], _GREY, image)


def random_slice_drop(mask: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Masks slices at random, but never the central one; `mask` is bool [P, S]."""
    if config.drop_slice == 0:
        return mask
    is_dropped = bernoulli(seed, RandomStream.SLICE_DROP, config.drop_slice, tuple(mask.shape))
    is_central = np.arange(mask.shape[1]) == mask.shape[1] // 2
    return mask & (~is_dropped | is_central)


#: Function of an image, float32 [P, S, H, W], a seed and the limits that returns the same shape.
Operation = Callable[[tf.Tensor, tf.Tensor, AugmentationConfig], tf.Tensor]

#: Operations by the configuration field that enables them, in the order of application: changes during
#: acquisition, which need magnitudes, come before changes of the reconstructed image.
INTENSITY: dict[str, Operation] = {
    "bias_field": random_bias_field,
    "blur_px": random_blur,
    "motion_ghost": random_motion_ghost,
    "spike": random_spike,
    "gamma": random_gamma,
    "contrast": random_contrast,
    "brightness": random_brightness,
    "noise": random_noise,
}
OCCLUSION: dict[str, Operation] = {"cutout": random_cutout, "grid_mask": random_grid_mask}


def random_intensity(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Applies the enabled intensity changes to one study.

    Args:
        image: float32 [..., S, H, W] of static shape, 0 to 1.5: crops, or a localizer's image.
        seed: int32 [2].
        config: limits.

    Returns:
        The same shape, within [0, 1.5].
    """
    crops = tf.reshape(image, [-1, *image.shape[-3:]])
    return tf.reshape(_apply(INTENSITY, crops, seed, config), image.shape)


def augment_crops(crops: Crops, seed: tf.Tensor, config: AugmentationConfig) -> Crops:
    """Applies all enabled changes to the crops of one study after they are cut.

    Returns:
        The crops; the image of a masked slice has any value.
    """
    return Crops(
        image=_apply({**INTENSITY, **OCCLUSION}, crops.image, seed, config),
        mask=random_slice_drop(crops.mask, seed, config),
        offset_mm=crops.offset_mm,
    )


def _apply(
    operations: dict[str, Operation], image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig
) -> tf.Tensor:
    """Applies the enabled operations; returns the image itself if there is none."""
    active = [operation for name, operation in operations.items() if getattr(config, name) > 0]
    if not active:
        return image
    chosen = _choose(active, image.shape[0], seed, config)
    for place, operation in enumerate(active):
        changed = operation(image, seed, config)
        image = changed if chosen is None else tf.where(chosen[:, place], changed, image)
    return tf.clip_by_value(image, 0.0, _HIGHEST)


def _choose(
    active: Sequence[Operation], crops: int, seed: tf.Tensor, config: AugmentationConfig
) -> tf.Tensor | None:
    """Selects each crop's operations, bool [P, operations, 1, 1, 1]; None selects all."""
    if config.num_operations == 0 or config.num_operations >= len(active):
        return None
    score = uniform(seed, RandomStream.OPERATION_CHOICE, 0.0, 1.0, (crops, len(active)))
    rank = tf.argsort(tf.argsort(score, axis=-1), axis=-1)
    return (rank < config.num_operations)[..., tf.newaxis, tf.newaxis, tf.newaxis]
