from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation import random_warp

Seed = Callable[[int], tf.Tensor]


def test_limits_of_zero_are_the_identity(seed: Seed) -> None:
    warp = random_warp(seed(3), AugmentationConfig.nothing())
    np.testing.assert_array_equal(warp.matrix, np.eye(2))
    np.testing.assert_array_equal(warp.shift_mm, [0, 0])


def test_warps_are_rotations_with_zoom_within_their_limits(seed: Seed, much: AugmentationConfig) -> None:
    angles, zooms, shifts = [], [], []
    for number in range(200):
        matrix, shift = (each.numpy() for each in random_warp(seed(number), much))
        zoom = np.sqrt(np.linalg.det(matrix))
        np.testing.assert_allclose(matrix @ matrix.T, zoom**2 * np.eye(2), atol=1e-5)
        angles.append(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))
        zooms.append(np.log(zoom) / np.log(1.25))
        shifts.append(shift / 6)
    for values in (np.array(angles) / 20, np.array(zooms), np.array(shifts)):
        assert np.abs(values).max() <= 1 + 1e-4
        assert values.max() > 0.8
        assert values.min() < -0.8
