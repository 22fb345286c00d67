"""Intensity changes, artefacts against NumPy's Fourier transform."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy import ndimage

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.intensity import (
    add_spike,
    gaussian_blur,
    ghost_rows,
    random_bias_field,
    random_blur,
    random_motion_ghost,
    random_spike,
)

Seed = Callable[[int], tf.Tensor]


def _noise(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).random(shape, np.float32))


def test_blur_equals_scipy_in_the_interior_for_each_crop() -> None:
    image = _noise(2, 3, 40, 48)
    blurred = gaussian_blur(image, tf.constant([0.7, 2.0])).numpy()
    for crop, sigma in enumerate((0.7, 2.0)):
        for place in range(3):
            expected = ndimage.gaussian_filter(image[crop, place].numpy(), sigma, truncate=8)
            inside = (slice(12, -12), slice(12, -12))
            np.testing.assert_allclose(blurred[crop, place][inside], expected[inside], atol=1e-5)


def test_blur_of_zero_width_and_blur_of_a_constant_change_nothing() -> None:
    image = _noise(2, 1, 16, 16)
    np.testing.assert_array_equal(gaussian_blur(image, tf.zeros(2)), image)
    np.testing.assert_allclose(gaussian_blur(tf.ones_like(image), tf.fill([2], 3.0)), 1, atol=1e-6)


def test_random_blurs_differ_from_crop_to_crop(seed: Seed) -> None:
    image = tf.repeat(_noise(1, 2, 16, 16), 6, axis=0)
    config = AugmentationConfig.nothing().model_copy(update={"blur_px": 2.0})
    spread = random_blur(image, seed(1), config).numpy().std(axis=(1, 2, 3))
    assert len(np.unique(spread.round(5))) == 6


def test_bias_field_is_smooth_bounded_and_equal_in_all_slices(seed: Seed) -> None:
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
    assert np.std([value.mean() for value in logs]) < 0.05  # no change of brightness in disguise


def _noise_array(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def _each(value: float) -> tf.Tensor:
    return tf.fill([1, 1], np.float32(value))


def test_a_spike_is_one_sample_of_k_space() -> None:
    image = _noise_array(1, 1, 16, 24)
    space = np.fft.fft2(image[0, 0])
    space[3, 5] += 0.4 * 16 * 24 * np.exp(0.7j)
    found = add_spike(
        tf.constant(image),
        amplitude=_each(0.4),
        frequency=tf.constant([[[3 / 16, 5 / 24]]], tf.float32),
        phase=_each(0.7),
    )
    np.testing.assert_allclose(found[0, 0], np.abs(np.fft.ifft2(space)), atol=1e-5)


def test_ghost_equals_motion_between_k_space_lines() -> None:
    image = _noise_array(1, 1, 8, 20)
    space = np.fft.fft(image[0, 0], axis=-1)
    for place in range(20):
        line = place if place < 10 else place - 20
        shift = 1.5 * np.sin(2 * np.pi * line / 4.5 + 0.3)
        space[:, place] *= np.exp(-2j * np.pi * line * shift / 20)
    found = ghost_rows(tf.constant(image), shift_px=_each(1.5), period=_each(4.5), phase=_each(0.3))
    np.testing.assert_allclose(found[0, 0], np.abs(np.fft.ifft(space, axis=-1)), atol=1e-5)


def test_constant_motion_shifts_the_image_and_zero_motion_leaves_it() -> None:
    image = tf.constant(_noise_array(1, 1, 8, 15))
    moved = ghost_rows(image, shift_px=_each(3), period=_each(1e9), phase=_each(np.pi / 2))
    np.testing.assert_allclose(moved, np.roll(image, 3, axis=-1), atol=1e-5)
    still = ghost_rows(image, shift_px=_each(0), period=_each(4), phase=_each(1))
    np.testing.assert_allclose(still, image, atol=1e-6)


def test_artefacts_are_applied_per_slice_with_their_probability(seed: Seed) -> None:
    image = tf.constant(_noise_array(20, 5, 16, 16))
    for operation, names in (
        (random_spike, ("spike", "spike_strength")),
        (random_motion_ghost, ("motion_ghost", "motion_shift")),
    ):
        config = AugmentationConfig.nothing().model_copy(update=dict(zip(names, (0.4, 0.2), strict=True)))
        changed = operation(image, seed(2), config).numpy()
        is_changed = (changed != image.numpy()).any(axis=(2, 3))
        # 100 draws at 0.4: 20 to 60 is four standard deviations.
        assert 20 <= is_changed.sum() <= 60
        assert (changed >= 0).all()
        none = config.model_copy(update={names[1]: 0.0})
        np.testing.assert_array_equal(operation(image, seed(2), none), image)


def test_ghosts_run_along_rows_in_some_slices_and_along_columns_in_others(seed: Seed) -> None:
    # A vertical bar keeps its rows alike when ghosts run along them, and only then.
    bar = np.zeros((1, 40, 32, 32), np.float32)
    bar[..., 8:24, 12:20] = 1
    config = AugmentationConfig.nothing().model_copy(update={"motion_ghost": 1.0, "motion_shift": 0.1})
    changed = random_motion_ghost(tf.constant(bar), seed(1), config).numpy()[0]
    is_along_rows = np.abs(changed[:, :7]).max(axis=(1, 2)) < 1e-4  # nothing above the bar
    assert 8 <= is_along_rows.sum() <= 32
