"""Random intensity changes: acquisition artefacts, coil sensitivity, blur, display and noise.

Each `random_*` function takes `image`, float32 [P, S, H, W] of P crops of one study with S slices, 0 to about
1, a seed, int32 [2], and the limits, and returns the same shape, unclipped. A limit of 0 returns the image
itself. K-space spikes and motion ghosts are drawn slice by slice, take images without negative values and
return none; slices that are not selected come back unchanged.
"""

import math

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.random_values import RandomStream, bernoulli, pixel_noise, uniform

#: Cosine orders along each axis of a bias field: constant, half a wave and one wave, since coils vary
#: smoothly.
_BIAS_ORDERS = 3
#: Distance of a spike from the centre of k-space, cycles per pixel. Below the range the stripes would look
#: like a brightness gradient; 0.5 is the Nyquist frequency.
_SPIKE_RADIUS = (0.05, 0.35)
#: Duration of one cycle of the motion, in k-space lines. The ghost of a shorter cycle lies outside the crop;
#: a longer cycle is a slow drift.
_GHOST_PERIOD = (3.0, 12.0)


def random_gamma(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Raises a study's intensities to a random power."""
    if config.gamma == 0:
        return image
    limit = config.gamma * math.log(2)
    gamma = tf.exp(uniform(seed, RandomStream.GAMMA, -limit, limit))
    # image ** gamma as exp and log: these are vectorised on a CPU and take a fifth of the time of `tf.pow`,
    # with a difference below 2e-7. A pixel of 0 stays 0, as the exponential of minus infinity.
    return tf.exp(gamma * tf.math.log(image))


def random_contrast(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Scales a study's intensities about mid-grey."""
    if config.contrast == 0:
        return image
    scale = 1 + uniform(seed, RandomStream.CONTRAST, -config.contrast, config.contrast)
    # (image - 0.5) * scale + 0.5 in two passes over the pixels.
    return image * scale + 0.5 * (1 - scale)


def random_brightness(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Adds a random constant to a study's intensities."""
    if config.brightness == 0:
        return image
    return image + uniform(seed, RandomStream.BRIGHTNESS, -config.brightness, config.brightness)


def random_noise(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Adds approximately Gaussian noise of one level to a study; see `pixel_noise`."""
    if config.noise == 0:
        return image
    level = uniform(seed, RandomStream.NOISE_LEVEL, 0.0, config.noise)
    return image + level * pixel_noise(seed, RandomStream.NOISE, tuple(image.shape))


def random_bias_field(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Multiplies each crop by a smooth field, the same in all its slices.

    The field is exp of a sum of cosines; its logarithm lies within [-`bias_field`, `bias_field`].
    """
    if config.bias_field == 0:
        return image
    crops, height, width = image.shape[0], image.shape[2], image.shape[3]
    shape = uniform(seed, RandomStream.BIAS_SHAPE, -1.0, 1.0, (crops, _BIAS_ORDERS, _BIAS_ORDERS))
    # The constant term would change the brightness of the whole crop.
    varies = np.ones((_BIAS_ORDERS, _BIAS_ORDERS), np.float32)
    varies[0, 0] = 0
    shape = shape * varies
    shape = shape / tf.reduce_sum(tf.abs(shape), axis=(1, 2), keepdims=True)
    strength = uniform(seed, RandomStream.BIAS_STRENGTH, 0.0, config.bias_field, (crops, 1, 1))
    field = tf.einsum("pij,ih,jw->phw", shape * strength, _cosines(height), _cosines(width))
    return image * tf.exp(field)[:, tf.newaxis]


def _cosines(size: int) -> np.ndarray:
    """Returns cos(pi i x) for the orders i, x from 0 to 1 at pixel centres: float32 [orders, size]."""
    place = (np.arange(size) + 0.5) / size
    return np.cos(np.pi * np.arange(_BIAS_ORDERS)[:, np.newaxis] * place).astype(np.float32)


def random_blur(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Blurs each crop with a Gaussian of random width, the same in all its slices."""
    if config.blur_px == 0:
        return image
    sigma_px = uniform(seed, RandomStream.BLUR, 0.0, config.blur_px, (image.shape[0],))
    return gaussian_blur(image, sigma_px)


def gaussian_blur(image: tf.Tensor, sigma_px: tf.Tensor) -> tf.Tensor:
    """Blurs crops along rows and columns; the kernel is normalised over the pixels inside the crop.

    Each crop has its own width, so the blur is two matrix products per crop instead of a convolution. At
    the size of a crop their cost does not depend on the width.

    Args:
        image: float32 [P, S, H, W].
        sigma_px: float32 [P], standard deviation; 0 leaves a crop unchanged.

    Returns:
        The same shape.
    """
    rows = _blur_matrix(sigma_px, image.shape[2])
    columns = _blur_matrix(sigma_px, image.shape[3])
    blurred = tf.matmul(rows[:, tf.newaxis], image)
    return tf.matmul(blurred, columns[:, tf.newaxis], transpose_b=True)


def _blur_matrix(sigma_px: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the weight of each pixel (last axis) in each blurred pixel, float32 [P, size, size]."""
    place = np.arange(size, dtype=np.float32)
    square = np.square(place[:, np.newaxis] - place)
    # At 0.05 pixels the weight of the nearest neighbour is exp(-200), which is 0 in float32.
    sigma = tf.maximum(sigma_px, 0.05)[:, tf.newaxis, tf.newaxis]
    weight = tf.exp(-square / (2 * tf.square(sigma)))
    return weight / tf.reduce_sum(weight, axis=-1, keepdims=True)


def random_spike(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Adds stripes to some slices, the artefact of an electric discharge during one k-space sample."""
    if config.spike == 0 or config.spike_strength == 0:
        return image
    slices = (image.shape[0], image.shape[1])
    radius = uniform(seed, RandomStream.SPIKE_RADIUS, *_SPIKE_RADIUS, slices)
    angle = uniform(seed, RandomStream.SPIKE_ANGLE, 0.0, math.pi, slices)
    changed = add_spike(
        image,
        amplitude=uniform(seed, RandomStream.SPIKE_AMPLITUDE, 0.0, config.spike_strength, slices),
        frequency=tf.stack([radius * tf.sin(angle), radius * tf.cos(angle)], axis=-1),
        phase=uniform(seed, RandomStream.SPIKE_PHASE, 0.0, 2 * math.pi, slices),
    )
    chosen = bernoulli(seed, RandomStream.SPIKE_APPLIED, config.spike, slices)
    return tf.where(chosen[..., tf.newaxis, tf.newaxis], changed, image)


def add_spike(image: tf.Tensor, *, amplitude: tf.Tensor, frequency: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """Adds one sample to each slice's k-space and returns the magnitude.

    The inverse Fourier transform of one sample is a plane wave, so no transform is needed:
    |image + amplitude exp(2 pi i (f_row row + f_column column) + i phase)|.

    Args:
        image: float32 [P, S, H, W].
        amplitude: float32 [P, S], in the image's unit.
        frequency: float32 [P, S, 2], cycles per pixel along the row index and the column index.
        phase: float32 [P, S], radians.

    Returns:
        The same shape.
    """

    def turns(frequency: tf.Tensor, size: int) -> tf.Tensor:
        return 2 * math.pi * frequency[..., tf.newaxis] * np.arange(size, dtype=np.float32)

    along_rows = turns(frequency[..., 0], image.shape[2]) + phase[..., tf.newaxis]
    along_columns = turns(frequency[..., 1], image.shape[3])
    # exp(i (a + b)) = exp(i a) exp(i b): sines are computed per row and per column, not per pixel.
    sin_row, cos_row = (wave[..., :, tf.newaxis] for wave in (tf.sin(along_rows), tf.cos(along_rows)))
    sin_column, cos_column = (
        wave[..., tf.newaxis, :] for wave in (tf.sin(along_columns), tf.cos(along_columns))
    )
    amplitude = amplitude[..., tf.newaxis, tf.newaxis]
    real = image + amplitude * (cos_row * cos_column - sin_row * sin_column)
    imaginary = amplitude * (sin_row * cos_column + cos_row * sin_column)
    return tf.sqrt(tf.square(real) + tf.square(imaginary))


def random_motion_ghost(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Adds ghosts along the rows or columns of some slices, the artefact of breathing during a scan.

    Slices must be square. Ghosts wrap around at the edge of the crop, which takes the place of the field of
    view.
    """
    if config.motion_ghost == 0 or config.motion_shift == 0:
        return image
    slices = (image.shape[0], image.shape[1])
    largest_px = config.motion_shift * image.shape[3]
    is_vertical = bernoulli(seed, RandomStream.GHOST_AXIS, 0.5, slices)[..., tf.newaxis, tf.newaxis]
    changed = tf.where(is_vertical, tf.linalg.matrix_transpose(image), image)
    changed = ghost_rows(
        changed,
        shift_px=uniform(seed, RandomStream.GHOST_SHIFT, 0.0, largest_px, slices),
        period=uniform(seed, RandomStream.GHOST_PERIOD, *_GHOST_PERIOD, slices),
        phase=uniform(seed, RandomStream.GHOST_PHASE, 0.0, 2 * math.pi, slices),
    )
    changed = tf.where(is_vertical, tf.linalg.matrix_transpose(changed), changed)
    chosen = bernoulli(seed, RandomStream.GHOST_APPLIED, config.motion_ghost, slices)
    return tf.where(chosen[..., tf.newaxis, tf.newaxis], changed, image)


def ghost_rows(image: tf.Tensor, *, shift_px: tf.Tensor, period: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """Simulates an object that oscillates along its rows while k-space is acquired line by line.

    Line k is acquired with the object at d(k) = shift sin(2 pi k / period + phase). By the Fourier shift
    theorem its sample is multiplied by exp(-2 pi i k d(k) / W).

    Args:
        image: float32 [P, S, H, W].
        shift_px: float32 [P, S], amplitude of the motion.
        period: float32 [P, S], k-space lines per cycle.
        phase: float32 [P, S], radians.

    Returns:
        The magnitude, the same shape.
    """
    width = image.shape[3]
    line = np.fft.fftfreq(width, 1 / width).astype(np.float32)
    cycle = 2 * math.pi * line / period[..., tf.newaxis] + phase[..., tf.newaxis]
    turn = -2 * math.pi / width * line * (shift_px[..., tf.newaxis] * tf.sin(cycle))
    space = tf.signal.fft(tf.cast(image, tf.complex64))
    space *= tf.complex(tf.cos(turn), tf.sin(turn))[..., tf.newaxis, :]
    return tf.abs(tf.signal.ifft(space))
