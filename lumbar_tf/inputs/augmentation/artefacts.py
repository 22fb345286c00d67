"""Artefacts of MR acquisition: k-space spikes and motion ghosts, drawn slice by slice.

Each random function takes `image`, float32 [P, S, H, W], not negative, a seed and the limits, and returns the
same shape, not negative. Slices that are not chosen come back as they were.
"""

import math

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.draws import Draw, chance, uniform

#: Distance of a spike from the centre of k-space, in cycles per pixel: below it the stripes would be a
#: gradient of brightness, and 0.5 is the Nyquist frequency.
_SPIKE_RADIUS = (0.05, 0.35)
#: K-space lines that one cycle of the motion lasts. A shorter cycle throws its ghost out of the crop's
#: edge, a longer one is a slow drift.
_GHOST_PERIOD = (3.0, 12.0)


def random_spike(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Lays stripes over some slices, as a spark during one k-space sample does."""
    if config.spike == 0 or config.spike_strength == 0:
        return image
    slices = (image.shape[0], image.shape[1])
    radius = uniform(seed, Draw.SPIKE_RADIUS, *_SPIKE_RADIUS, slices)
    angle = uniform(seed, Draw.SPIKE_ANGLE, 0.0, math.pi, slices)
    changed = add_spike(
        image,
        amplitude=uniform(seed, Draw.SPIKE_AMPLITUDE, 0.0, config.spike_strength, slices),
        frequency=tf.stack([radius * tf.sin(angle), radius * tf.cos(angle)], axis=-1),
        phase=uniform(seed, Draw.SPIKE_PHASE, 0.0, 2 * math.pi, slices),
    )
    chosen = chance(seed, Draw.SPIKE_CHANCE, config.spike, slices)
    return tf.where(chosen[..., tf.newaxis, tf.newaxis], changed, image)


def add_spike(image: tf.Tensor, *, amplitude: tf.Tensor, frequency: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """Adds one sample to each slice's k-space and returns the magnitude.

    The inverse Fourier transform of one sample is a plane wave, so no transform is needed:
    |image + amplitude exp(2 pi i (f_row row + f_column column) + i phase)|.

    Args:
        image: float32 [P, S, H, W].
        amplitude: float32 [P, S], in the image's unit.
        frequency: float32 [P, S, 2], cycles per pixel along rows' numbers and columns' numbers.
        phase: float32 [P, S], radians.

    Returns:
        The same shape.
    """

    def turns(frequency: tf.Tensor, size: int) -> tf.Tensor:
        return 2 * math.pi * frequency[..., tf.newaxis] * np.arange(size, dtype=np.float32)

    along_rows = turns(frequency[..., 0], image.shape[2]) + phase[..., tf.newaxis]
    along_columns = turns(frequency[..., 1], image.shape[3])
    # exp(i (a + b)) = exp(i a) exp(i b): sines of rows and of columns, not of every pixel.
    sin_row, cos_row = (each[..., :, tf.newaxis] for each in (tf.sin(along_rows), tf.cos(along_rows)))
    sin_column, cos_column = (
        each[..., tf.newaxis, :] for each in (tf.sin(along_columns), tf.cos(along_columns))
    )
    amplitude = amplitude[..., tf.newaxis, tf.newaxis]
    real = image + amplitude * (cos_row * cos_column - sin_row * sin_column)
    imaginary = amplitude * (sin_row * cos_column + cos_row * sin_column)
    return tf.sqrt(tf.square(real) + tf.square(imaginary))


def random_motion_ghost(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Repeats the edges of some slices along their rows or columns, as breathing during a scan does.

    Needs square slices. The crop's own edge stands for the field of view, over which ghosts wrap.
    """
    if config.motion_ghost == 0 or config.motion_shift == 0:
        return image
    slices = (image.shape[0], image.shape[1])
    largest_px = config.motion_shift * image.shape[3]
    is_vertical = chance(seed, Draw.GHOST_AXIS, 0.5, slices)[..., tf.newaxis, tf.newaxis]
    changed = tf.where(is_vertical, tf.linalg.matrix_transpose(image), image)
    changed = ghost_rows(
        changed,
        shift_px=uniform(seed, Draw.GHOST_SHIFT, 0.0, largest_px, slices),
        period=uniform(seed, Draw.GHOST_PERIOD, *_GHOST_PERIOD, slices),
        phase=uniform(seed, Draw.GHOST_PHASE, 0.0, 2 * math.pi, slices),
    )
    changed = tf.where(is_vertical, tf.linalg.matrix_transpose(changed), changed)
    chosen = chance(seed, Draw.GHOST_CHANCE, config.motion_ghost, slices)
    return tf.where(chosen[..., tf.newaxis, tf.newaxis], changed, image)


def ghost_rows(image: tf.Tensor, *, shift_px: tf.Tensor, period: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """Moves the object to and fro along its rows while k-space is acquired line by line.

    Line k sees the object at d(k) = shift sin(2 pi k / period + phase), so by the shift theorem its sample
    turns by exp(-2 pi i k d(k) / W).

    Args:
        image: float32 [P, S, H, W].
        shift_px: float32 [P, S], amplitude of the motion.
        period: float32 [P, S], lines a cycle.
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
