"""Changes of intensity: coil, point spread, display and noise.

Each function takes `image`, float32 [P, S, H, W] of P crops of one study with S slices, 0 to about 1, a
seed and the limits, and returns the same shape, unclipped. A limit of 0 returns the image itself.
"""

import math

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.draws import Draw, bell, uniform

#: Cosines along each axis that a bias field is made of: half a wave and a whole one, as coils are smooth.
_BIAS_ORDERS = 3


def random_gamma(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Raises a study's intensities to one power."""
    if config.gamma == 0:
        return image
    limit = config.gamma * math.log(2)
    gamma = tf.exp(uniform(seed, Draw.GAMMA, -limit, limit))
    # image ** gamma as exp and log, which are vectorised where `tf.pow` is not: a fifth of its time on a CPU,
    # within 2e-7 of it. The bound keeps log finite.
    return tf.exp(gamma * tf.math.log(tf.maximum(image, 1e-6)))


def random_contrast(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Stretches a study's intensities about mid-grey."""
    if config.contrast == 0:
        return image
    return (image - 0.5) * (1 + uniform(seed, Draw.CONTRAST, -config.contrast, config.contrast)) + 0.5


def random_brightness(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Shifts a study's intensities."""
    if config.brightness == 0:
        return image
    return image + uniform(seed, Draw.BRIGHTNESS, -config.brightness, config.brightness)


def random_noise(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Adds noise of one level to a study: nearly Gaussian, see `draws.bell`."""
    if config.noise == 0:
        return image
    level = uniform(seed, Draw.NOISE_LEVEL, 0.0, config.noise)
    return image + level * bell(seed, Draw.NOISE, tuple(image.shape))


def random_bias_field(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Multiplies each crop by a smooth field, the same in all its slices: exp of a few cosines.

    The logarithm stays within `bias_field` on either side of 0.
    """
    if config.bias_field == 0:
        return image
    crops, height, width = image.shape[0], image.shape[2], image.shape[3]
    shape = uniform(seed, Draw.BIAS_SHAPE, -1.0, 1.0, (crops, _BIAS_ORDERS, _BIAS_ORDERS))
    # Without the constant term, which would be a change of brightness.
    varies = np.ones((_BIAS_ORDERS, _BIAS_ORDERS), np.float32)
    varies[0, 0] = 0
    shape = shape * varies
    shape = shape / tf.reduce_sum(tf.abs(shape), axis=(1, 2), keepdims=True)
    strength = uniform(seed, Draw.BIAS_STRENGTH, 0.0, config.bias_field, (crops, 1, 1))
    field = tf.einsum("pij,ih,jw->phw", shape * strength, _cosines(height), _cosines(width))
    return image * tf.exp(field)[:, tf.newaxis]


def _cosines(size: int) -> np.ndarray:
    """Returns cos(pi i x) for the orders i, x from 0 to 1 at pixel centres: float32 [orders, size]."""
    place = (np.arange(size) + 0.5) / size
    return np.cos(np.pi * np.arange(_BIAS_ORDERS)[:, np.newaxis] * place).astype(np.float32)


def random_blur(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Blurs each crop with a Gaussian of its own width, the same in all its slices."""
    if config.blur_px == 0:
        return image
    sigma_px = uniform(seed, Draw.BLUR, 0.0, config.blur_px, (image.shape[0],))
    return gaussian_blur(image, sigma_px)


def gaussian_blur(image: tf.Tensor, sigma_px: tf.Tensor) -> tf.Tensor:
    """Blurs crops along rows and columns; beyond the edge nothing counts.

    The width differs from crop to crop, so the kernel is a matrix a crop, not a convolution: at these
    sizes two products of matrices, whatever the width.

    Args:
        image: float32 [P, S, H, W].
        sigma_px: float32 [P]; 0 keeps a crop as it is.

    Returns:
        The same shape.
    """
    rows = _blur_matrix(sigma_px, image.shape[2])
    columns = _blur_matrix(sigma_px, image.shape[3])
    blurred = tf.matmul(rows[:, tf.newaxis], image)
    return tf.matmul(blurred, columns[:, tf.newaxis], transpose_b=True)


def _blur_matrix(sigma_px: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the weight of each pixel (last axis) in each blurred one, float32 [P, size, size]."""
    place = np.arange(size, dtype=np.float32)
    square = np.square(place[:, np.newaxis] - place)
    # Below a twentieth of a pixel the nearest neighbour weighs exp(-200), which is 0 in float32.
    sigma = tf.maximum(sigma_px, 0.05)[:, tf.newaxis, tf.newaxis]
    weight = tf.exp(-square / (2 * tf.square(sigma)))
    return weight / tf.reduce_sum(weight, axis=-1, keepdims=True)
