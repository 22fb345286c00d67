from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation import augment_crops, random_intensity, random_warp
from lumbar_tf.inputs.augmentation.operations import (
    INTENSITY,
    OCCLUSION,
    random_cutout,
    random_grid_mask,
    random_slice_drop,
)
from lumbar_tf.inputs.crops import Crops

Seed = Callable[[int], tf.Tensor]


def test_limits_of_zero_change_nothing(seed: Seed, crops: Crops) -> None:
    for before, after in zip(crops, augment_crops(crops, seed(3), AugmentationConfig.nothing()), strict=True):
        np.testing.assert_array_equal(after, before)


def test_augmentation_depends_on_the_seed_only(seed: Seed, crops: Crops, much: AugmentationConfig) -> None:
    def change(number: int) -> list[np.ndarray]:
        return [array.numpy() for array in augment_crops(crops, seed(number), much)]

    for first, again in zip(change(1), change(1), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(change(1)[0], change(2)[0])


@pytest.mark.parametrize("name", [*INTENSITY, *OCCLUSION])
def test_each_operation_is_enabled_by_its_field_and_stays_in_range(
    name: str, seed: Seed, crops: Crops, much: AugmentationConfig
) -> None:
    config = AugmentationConfig.nothing().model_copy(
        update={
            name: getattr(much, name),
            "spike_strength": much.spike_strength,
            "motion_shift": much.motion_shift,
        }
    )
    changed = np.stack([augment_crops(crops, seed(number), config).image for number in range(8)])
    assert np.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1.5
    assert (changed != crops.image.numpy()).any(axis=(1, 2, 3, 4)).sum() >= 7
    assert len(np.unique(changed.sum(axis=(1, 2, 3, 4)))) >= 7  # each seed its own


def test_display_changes_keep_the_order_of_intensities(seed: Seed, much: AugmentationConfig) -> None:
    image = tf.reshape(tf.linspace(0.0, 1.5, 49), [1, 1, 7, 7])
    config = AugmentationConfig.nothing().model_copy(
        update={name: getattr(much, name) for name in ("gamma", "contrast", "brightness")}
    )
    for number in range(20):
        assert (np.diff(random_intensity(image, seed(number), config).numpy().ravel()) >= 0).all()


def test_localizer_image_is_changed_as_one_crop(seed: Seed, crops: Crops, much: AugmentationConfig) -> None:
    field = crops.image[0]
    changed = random_intensity(field, seed(4), much)
    np.testing.assert_array_equal(changed, random_intensity(field[tf.newaxis], seed(4), much)[0])


def test_each_crop_gets_the_configured_number_of_operations(seed: Seed) -> None:
    image = tf.ones((60, 1, 32, 32))
    crops = Crops(image, tf.ones((60, 1), tf.bool), tf.zeros((60, 1)))
    config = AugmentationConfig.nothing().model_copy(
        update={"bias_field": 1.0, "blur_px": 2.0, "noise": 0.5, "num_operations": 1}
    )
    change = np.abs(augment_crops(crops, seed(0), config).image.numpy() - 1).max(axis=(1, 2, 3))
    # A blur leaves a constant; noise and the field do not: about two in three of the crops change.
    assert 28 <= (change > 1e-4).sum() <= 52
    every = config.model_copy(update={"num_operations": 3})
    plain = config.model_copy(update={"num_operations": 0})
    np.testing.assert_array_equal(
        augment_crops(crops, seed(0), every).image, augment_crops(crops, seed(0), plain).image
    )


def test_augmentation_is_equal_inside_a_dataset(seed: Seed, crops: Crops, much: AugmentationConfig) -> None:
    (inside,) = tf.data.Dataset.from_tensors(0).map(lambda _: augment_crops(crops, seed(5), much))
    outside = augment_crops(crops, seed(5), much)
    np.testing.assert_allclose(inside.image, outside.image, atol=1e-5)
    np.testing.assert_array_equal(inside.mask, outside.mask)


def test_everything_compiles_under_xla(seed: Seed, crops: Crops, much: AugmentationConfig) -> None:
    """XLA has other random values than TensorFlow, so values are compared under XLA only."""
    config = much.model_copy(update={"num_operations": 4})

    @tf.function(jit_compile=True)
    def change(number: tf.Tensor) -> Crops:
        return augment_crops(crops, number, config)

    first, again, other = change(seed(1)), change(seed(1)), change(seed(2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.image, other.image)
    assert np.isfinite(first.image).all()
    assert 0 <= np.min(first.image) < np.max(first.image) <= 1.5


def test_central_slices_are_never_dropped_and_masked_slices_stay_masked(
    seed: Seed, crops: Crops, much: AugmentationConfig
) -> None:
    mask = crops.mask.numpy()
    kept = np.stack([random_slice_drop(crops.mask, seed(number), much) for number in range(300)])
    assert not (kept & ~mask).any()
    assert (kept[:, :, 1] == mask[:, 1]).all()
    # 300 x 5 draws at one half: 0.4 to 0.6 is more than seven standard deviations.
    outer = kept[:, mask & (np.arange(3) != 1)]
    assert 0.4 < outer.mean() < 0.6


def test_cutout_is_one_rectangle_in_all_slices_of_a_crop(seed: Seed, much: AugmentationConfig) -> None:
    image = tf.ones((40, 2, 32, 32))
    blank = random_cutout(image, seed(1), much.model_copy(update={"cutout": 1.0})).numpy() == 0.5
    assert (blank[:, 0] == blank[:, 1]).all()
    for hidden in blank[:, 0]:
        rows, columns = hidden.any(axis=1), hidden.any(axis=0)
        assert (hidden == rows[:, None] & columns).all()
        assert 3 <= rows.sum() <= 14  # 0.15 to 0.4 of 32, give or take one
        assert 3 <= columns.sum() <= 14
    some = random_cutout(image, seed(1), much).numpy() == 0.5
    assert 8 <= some.any(axis=(1, 2, 3)).sum() <= 32


def test_grid_mask_is_a_lattice_that_keeps_most_of_a_crop(seed: Seed, much: AugmentationConfig) -> None:
    image = tf.ones((200, 2, 64, 64))
    blank = random_grid_mask(image, seed(1), much.model_copy(update={"grid_mask": 1.0})).numpy() == 0.5
    assert (blank[:, 0] == blank[:, 1]).all()
    for hidden in blank[:, 0]:
        rows, columns = hidden.any(axis=1), hidden.any(axis=0)
        assert (hidden == rows[:, None] & columns).all()
        # Two to four periods an axis, so as many bands or one more.
        starts = int(rows[0]) + (np.diff(rows.astype(int)) == 1).sum()
        assert 1 <= starts <= 5
    # 1 - (1 - r)**2 is kept, r = 0.6: 84% on average.
    assert 0.82 < 1 - blank.mean() < 0.86
    some = random_grid_mask(image, seed(1), much).numpy() == 0.5
    assert 60 <= some.any(axis=(1, 2, 3)).sum() <= 140


def test_limits_of_zero_are_the_identity(seed: Seed) -> None:
    warp = random_warp(seed(3), AugmentationConfig.nothing())
    np.testing.assert_array_equal(warp.matrix, np.eye(2))
    np.testing.assert_array_equal(warp.shift_mm, [0, 0])


def test_warps_are_rotations_with_zoom_within_their_limits(seed: Seed, much: AugmentationConfig) -> None:
    angles, zooms, shifts = [], [], []
    for number in range(200):
        matrix, shift = (part.numpy() for part in random_warp(seed(number), much))
        zoom = np.sqrt(np.linalg.det(matrix))
        np.testing.assert_allclose(matrix @ matrix.T, zoom**2 * np.eye(2), atol=1e-5)
        angles.append(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))
        zooms.append(np.log(zoom) / np.log(1.25))
        shifts.append(shift / 6)
    for values in (np.array(angles) / 20, np.array(zooms), np.array(shifts)):
        assert np.abs(values).max() <= 1 + 1e-4
        assert values.max() > 0.8
        assert values.min() < -0.8
