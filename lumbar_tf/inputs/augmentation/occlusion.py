"""Hiding parts of crops: rectangles, grids and whole slices.

The random functions on images take `image`, float32 [P, S, H, W], a seed and the limits, and return the same
shape; what is hidden is hidden in all slices of a crop and becomes mid-grey.
"""

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.draws import Draw, chance, uniform

_GREY = 0.5
#: Edge of a blanked rectangle as a share of the crop's edge.
_CUTOUT_SHARE = (0.15, 0.4)
#: Period of a grid as a share of the crop's edge: two to four squares a row.
_GRID_PERIOD = (0.25, 0.5)
#: Share of a period that stays seen along each axis; the paper's r for ImageNet.
_GRID_KEPT = 0.6


def random_cutout(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Blanks one rectangle in some crops."""
    if config.cutout == 0:
        return image
    crops = image.shape[0]

    def band(size_draw: Draw, start_draw: Draw, pixels: int) -> tf.Tensor:
        position = np.arange(pixels, dtype=np.float32) / pixels
        size = uniform(seed, size_draw, *_CUTOUT_SHARE, (crops, 1))
        start = uniform(seed, start_draw, 0.0, 1.0, (crops, 1)) * (1 - size)
        return (position >= start) & (position < start + size)

    rows = band(Draw.CUTOUT_HEIGHT, Draw.CUTOUT_TOP, image.shape[2])
    columns = band(Draw.CUTOUT_WIDTH, Draw.CUTOUT_LEFT, image.shape[3])
    return _hide(image, rows, columns, chance(seed, Draw.CUTOUT_CHANCE, config.cutout, (crops,)))


def random_grid_mask(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Blanks a grid of squares in some crops (GridMask: Chen et al., arXiv:2001.04086, section 3.2)."""
    if config.grid_mask == 0:
        return image
    crops = image.shape[0]
    period = uniform(seed, Draw.GRID_PERIOD, *_GRID_PERIOD, (crops, 1))

    def bands(start_draw: Draw, pixels: int) -> tf.Tensor:
        position = np.arange(pixels, dtype=np.float32) / pixels
        place = tf.math.floormod(position / period + uniform(seed, start_draw, 0.0, 1.0, (crops, 1)), 1.0)
        return place < 1 - _GRID_KEPT

    rows, columns = bands(Draw.GRID_TOP, image.shape[2]), bands(Draw.GRID_LEFT, image.shape[3])
    return _hide(image, rows, columns, chance(seed, Draw.GRID_CHANCE, config.grid_mask, (crops,)))


def _hide(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Greys the pixels at rows [P, H] and columns [P, W] in the chosen crops, [P]."""
    hidden = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :] & chosen[:, tf.newaxis, tf.newaxis]
    return tf.where(hidden[:, tf.newaxis], _GREY, image)


def random_slice_drop(mask: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Masks slices at random but never the central one. `mask` is bool [P, S]."""
    if config.drop_slice == 0:
        return mask
    is_dropped = chance(seed, Draw.SLICE_DROP, config.drop_slice, tuple(mask.shape))
    is_central = np.arange(mask.shape[1]) == mask.shape[1] // 2
    return mask & (~is_dropped | is_central)
