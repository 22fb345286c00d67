"""Random changes of a study's crops, as stateless graph operations.

Every function takes a seed, int32 [2], and gives the same change for the same seed. The geometric
part is a `Warp`, composed into the crop's one interpolation; the rest acts on the crop.
"""

import math

import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.data.crops import Crops, Warp

#: Edge of a blanked rectangle as a share of the crop's edge.
_CUTOUT_SHARE = (0.15, 0.4)


def _uniform(seed: tf.Tensor, salt: int, limit: float, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Draws from [-limit, limit]; `salt` separates draws of one seed."""
    return tf.random.stateless_uniform(shape, seed + [0, salt], -limit, limit)


def random_warp(seed: tf.Tensor, config: AugmentationConfig) -> Warp:
    """Draws one rotation, zoom and shift for a whole study."""
    angle = _uniform(seed, 1, config.rotation_deg * math.pi / 180)
    zoom = tf.exp(_uniform(seed, 2, math.log1p(config.zoom)))
    rotation = tf.stack([tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)])
    return Warp(
        matrix=tf.reshape(rotation, [2, 2]) * zoom,
        shift_mm=_uniform(seed, 3, config.shift_mm, (2,)),
    )


def random_intensity(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Changes brightness, contrast and gamma of a study and adds noise.

    Args:
        image: float32 of any shape, 0 to about 1.
        seed: int32 [2].
        config: limits.

    Returns:
        The same shape, within [0, 1.5].
    """
    gamma = tf.exp(_uniform(seed, 11, config.gamma * math.log(2)))
    contrast = 1 + _uniform(seed, 12, config.contrast)
    brightness = _uniform(seed, 13, config.brightness)
    # The bound keeps the gradient-free power away from 0**gamma rounding on some kernels.
    image = tf.pow(tf.maximum(image, 1e-6), gamma)
    image = (image - 0.5) * contrast + 0.5 + brightness
    if config.noise > 0:
        level = tf.abs(_uniform(seed, 14, config.noise))
        image += level * tf.random.stateless_normal(tf.shape(image), seed + [0, 15])
    return tf.clip_by_value(image, 0.0, 1.5)


def random_cutout(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Blanks one rectangle in some crops, the same in all slices of a crop.

    Args:
        image: float32 [P, S, H, W].
        seed: int32 [2].
        config: gives the probability.

    Returns:
        The same shape.
    """
    if config.cutout == 0:
        return image
    crops, height = tf.shape(image)[0], tf.cast(tf.shape(image)[2], tf.float32)
    position = tf.cast(tf.range(tf.shape(image)[2]), tf.float32) / height

    def band(salt: int) -> tf.Tensor:
        size = tf.random.stateless_uniform([crops, 1], seed + [0, salt], *_CUTOUT_SHARE)
        start = tf.random.stateless_uniform([crops, 1], seed + [0, salt + 1]) * (1 - size)
        return (position >= start) & (position < start + size)

    blank = band(21)[:, :, tf.newaxis] & band(23)[:, tf.newaxis, :]
    chosen = tf.random.stateless_uniform([crops, 1, 1], seed + [0, 25]) < config.cutout
    return tf.where((blank & chosen)[:, tf.newaxis], 0.5, image)


def random_slice_drop(mask: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Masks slices at random but never the central one. `mask` is bool [P, S]."""
    if config.drop_slice == 0:
        return mask
    keep = tf.random.stateless_uniform(tf.shape(mask), seed + [0, 31]) >= config.drop_slice
    is_central = tf.equal(tf.range(tf.shape(mask)[1]), tf.shape(mask)[1] // 2)
    return mask & (keep | is_central)


def augment_crops(crops: Crops, seed: tf.Tensor, config: AugmentationConfig) -> Crops:
    """Applies all changes that act on crops after they are cut."""
    image = random_intensity(crops.image, seed, config)
    image = random_cutout(image, seed, config)
    mask = random_slice_drop(crops.mask, seed, config)
    return Crops(
        image=tf.where(mask[..., tf.newaxis, tf.newaxis], image, 0.0),
        mask=mask,
        offset_mm=crops.offset_mm,
    )
