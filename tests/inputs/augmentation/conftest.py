"""Crops, seeds and a configuration with all operations enabled."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.crops import Crops


@pytest.fixture
def much() -> AugmentationConfig:
    """All operations on the crops of a study, with high probabilities and limits."""
    return AugmentationConfig(
        rotation_deg=20,
        zoom=0.25,
        shift_mm=6,
        brightness=0.2,
        contrast=0.3,
        gamma=0.4,
        noise=0.05,
        bias_field=0.5,
        blur_px=1.5,
        spike=0.5,
        spike_strength=0.3,
        motion_ghost=0.5,
        motion_shift=0.05,
        cutout=0.5,
        grid_mask=0.5,
        drop_slice=0.5,
    )


@pytest.fixture
def seed() -> Callable[[int], tf.Tensor]:
    """`seed(number)`: seeds as in the pipeline."""
    return lambda number: tf.constant([number, 7])


@pytest.fixture
def crops() -> Crops:
    """Four crops of three slices: one without a slice, one without all slices."""
    rng = np.random.default_rng(0)
    mask = np.ones((4, 3), np.bool_)
    mask[1, 0] = mask[2] = False
    image = rng.random((4, 3, 16, 16), np.float32) * 1.2 * mask[..., None, None]
    return Crops(tf.constant(image), tf.constant(mask), tf.constant(rng.random((4, 3), np.float32)))
