from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy import ndimage

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.intensity import gaussian_blur, random_bias_field, random_blur

Seed = Callable[[int], tf.Tensor]


def _noise(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).random(shape, np.float32))


def test_a_blur_is_scipys_in_the_interior_and_each_crop_has_its_own() -> None:
    image = _noise(2, 3, 40, 48)
    blurred = gaussian_blur(image, tf.constant([0.7, 2.0])).numpy()
    for crop, sigma in enumerate((0.7, 2.0)):
        for place in range(3):
            expected = ndimage.gaussian_filter(image[crop, place].numpy(), sigma, truncate=8)
            inside = (slice(12, -12), slice(12, -12))
            np.testing.assert_allclose(blurred[crop, place][inside], expected[inside], atol=1e-5)


def test_a_blur_of_no_width_is_the_image_and_a_constant_stays_one() -> None:
    image = _noise(2, 1, 16, 16)
    np.testing.assert_array_equal(gaussian_blur(image, tf.zeros(2)), image)
    np.testing.assert_allclose(gaussian_blur(tf.ones_like(image), tf.fill([2], 3.0)), 1, atol=1e-6)


def test_random_blurs_differ_from_crop_to_crop(seed: Seed) -> None:
    image = tf.repeat(_noise(1, 2, 16, 16), 6, axis=0)
    config = AugmentationConfig.nothing().model_copy(update={"blur_px": 2.0})
    spread = random_blur(image, seed(1), config).numpy().std(axis=(1, 2, 3))
    assert len(np.unique(spread.round(5))) == 6


def test_a_bias_field_is_a_smooth_factor_within_its_limit_the_same_in_all_slices(seed: Seed) -> None:
    config = AugmentationConfig.nothing().model_copy(update={"bias_field": 0.5})
    logs = []
    for number in range(40):
        factor = random_bias_field(tf.ones((5, 2, 32, 32)), seed(number), config).numpy()
        np.testing.assert_array_equal(factor[:, 0], factor[:, 1])
        # The fastest part is one whole cosine each way: pi**2 / 2 * 0.5 over (32 pixels)**2 and axis.
        assert np.abs(np.diff(np.log(factor), 2, axis=-1)).max() < 0.01
        logs.append(np.log(factor))
        np.testing.assert_array_equal(
            random_bias_field(2 * tf.ones((5, 2, 32, 32)), seed(number), config), 2 * factor
        )
    assert 0.35 < np.max(logs) <= 0.5 + 1e-6
    assert -0.5 - 1e-6 <= np.min(logs) < -0.35
    assert np.std([each.mean() for each in logs]) < 0.05  # no change of brightness in disguise
