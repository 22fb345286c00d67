"""Artefacts against NumPy's Fourier transform."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.artefacts import add_spike, ghost_rows, random_motion_ghost, random_spike

Seed = Callable[[int], tf.Tensor]


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def _each(value: float) -> tf.Tensor:
    return tf.fill([1, 1], np.float32(value))


def test_a_spike_is_one_sample_of_k_space() -> None:
    image = _noise(1, 1, 16, 24)
    space = np.fft.fft2(image[0, 0])
    space[3, 5] += 0.4 * 16 * 24 * np.exp(0.7j)
    found = add_spike(
        tf.constant(image),
        amplitude=_each(0.4),
        frequency=tf.constant([[[3 / 16, 5 / 24]]], tf.float32),
        phase=_each(0.7),
    )
    np.testing.assert_allclose(found[0, 0], np.abs(np.fft.ifft2(space)), atol=1e-5)


def test_a_ghost_is_a_motion_between_lines_of_k_space() -> None:
    image = _noise(1, 1, 8, 20)
    space = np.fft.fft(image[0, 0], axis=-1)
    for place in range(20):
        line = place if place < 10 else place - 20
        shift = 1.5 * np.sin(2 * np.pi * line / 4.5 + 0.3)
        space[:, place] *= np.exp(-2j * np.pi * line * shift / 20)
    found = ghost_rows(tf.constant(image), shift_px=_each(1.5), period=_each(4.5), phase=_each(0.3))
    np.testing.assert_allclose(found[0, 0], np.abs(np.fft.ifft(space, axis=-1)), atol=1e-5)


def test_a_standing_shift_moves_the_picture_and_none_leaves_it() -> None:
    image = tf.constant(_noise(1, 1, 8, 15))
    moved = ghost_rows(image, shift_px=_each(3), period=_each(1e9), phase=_each(np.pi / 2))
    np.testing.assert_allclose(moved, np.roll(image, 3, axis=-1), atol=1e-5)
    still = ghost_rows(image, shift_px=_each(0), period=_each(4), phase=_each(1))
    np.testing.assert_allclose(still, image, atol=1e-6)


def test_artefacts_come_slice_by_slice_with_their_probability(seed: Seed) -> None:
    image = tf.constant(_noise(20, 5, 16, 16))
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
