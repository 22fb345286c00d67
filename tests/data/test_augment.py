import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.data.augment import (
    augment_crops,
    random_cutout,
    random_intensity,
    random_slice_drop,
    random_warp,
)
from lumbar_tf.data.crops import Crops

NOTHING = AugmentationConfig(
    rotation_deg=0, zoom=0, shift_mm=0, brightness=0, contrast=0, gamma=0, noise=0, cutout=0, drop_slice=0
)
MUCH = AugmentationConfig(
    rotation_deg=20,
    zoom=0.25,
    shift_mm=6,
    brightness=0.2,
    contrast=0.3,
    gamma=0.4,
    noise=0.05,
    cutout=0.5,
    drop_slice=0.5,
)


def _seed(number: int) -> tf.Tensor:
    return tf.constant([number, 7])


def _crops() -> Crops:
    rng = np.random.default_rng(0)
    mask = np.ones((4, 3), np.bool_)
    mask[1, 0] = mask[2] = False
    image = rng.random((4, 3, 16, 16), np.float32) * 1.2 * mask[..., None, None]
    return Crops(tf.constant(image), tf.constant(mask), tf.constant(rng.random((4, 3), np.float32)))


def test_limits_of_zero_change_nothing() -> None:
    warp = random_warp(_seed(3), NOTHING)
    np.testing.assert_array_equal(warp.matrix, np.eye(2))
    np.testing.assert_array_equal(warp.shift_mm, [0, 0])
    crops = _crops()
    changed = augment_crops(crops, _seed(3), NOTHING)
    np.testing.assert_allclose(changed.image, crops.image, atol=2e-6)
    np.testing.assert_array_equal(changed.mask, crops.mask)
    np.testing.assert_array_equal(changed.offset_mm, crops.offset_mm)


def test_a_seed_gives_the_same_change_every_time_and_another_seed_another() -> None:
    def change(number: int) -> list[np.ndarray]:
        return [
            each.numpy()
            for each in (*random_warp(_seed(number), MUCH), *augment_crops(_crops(), _seed(number), MUCH))
        ]

    for first, again in zip(change(1), change(1), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(change(1)[0], change(2)[0])
    assert not np.array_equal(change(1)[2], change(2)[2])


def test_warps_are_rotations_with_zoom_within_their_limits() -> None:
    angles, zooms, shifts = [], [], []
    for number in range(200):
        matrix, shift = (each.numpy() for each in random_warp(_seed(number), MUCH))
        zoom = np.sqrt(np.linalg.det(matrix))
        np.testing.assert_allclose(matrix @ matrix.T, zoom**2 * np.eye(2), atol=1e-5)
        angles.append(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))
        zooms.append(np.log(zoom) / np.log(1.25))
        shifts.append(shift / 6)
    for values in (np.array(angles) / 20, np.array(zooms), np.array(shifts)):
        assert np.abs(values).max() <= 1 + 1e-4
        assert values.max() > 0.8
        assert values.min() < -0.8


def test_intensity_stays_in_range_and_keeps_the_order_without_noise() -> None:
    image = tf.linspace(0.0, 1.5, 50)
    for number in range(20):
        changed = random_intensity(image, _seed(number), MUCH.model_copy(update={"noise": 0.0})).numpy()
        assert changed.min() >= 0
        assert changed.max() <= 1.5
        assert (np.diff(changed) >= 0).all()


def test_masked_slices_stay_black_under_brightness_and_noise() -> None:
    for number in range(5):
        changed = augment_crops(_crops(), _seed(number), MUCH)
        assert not changed.image.numpy()[~changed.mask.numpy()].any()


def test_slices_are_dropped_but_never_the_central_one_nor_brought_back() -> None:
    mask = _crops().mask.numpy()
    kept = np.stack([random_slice_drop(mask, _seed(number), MUCH) for number in range(300)])
    assert not (kept & ~mask).any()
    assert (kept[:, :, 1] == mask[:, 1]).all()
    # 300 x 5 draws at one half: 0.4 to 0.6 is more than seven standard deviations.
    outer = kept[:, mask & (np.arange(3) != 1)]
    assert 0.4 < outer.mean() < 0.6


def test_a_cutout_is_one_rectangle_the_same_in_all_slices_of_a_crop() -> None:
    image = tf.ones((40, 2, 32, 32))
    blank = random_cutout(image, _seed(1), MUCH.model_copy(update={"cutout": 1.0})).numpy() == 0.5
    assert (blank[:, 0] == blank[:, 1]).all()
    for each in blank[:, 0]:
        rows, columns = each.any(axis=1), each.any(axis=0)
        assert (each == rows[:, None] & columns).all()
        assert 3 <= rows.sum() <= 14  # 0.15 to 0.4 of 32, give or take one
        assert 3 <= columns.sum() <= 14
    some = random_cutout(image, _seed(1), MUCH).numpy() == 0.5
    assert 8 <= some.any(axis=(1, 2, 3)).sum() <= 32


def test_changes_run_inside_a_dataset_as_they_do_outside() -> None:
    crops = _crops()
    (inside,) = tf.data.Dataset.from_tensors(0).map(lambda _: augment_crops(crops, _seed(5), MUCH))
    outside = augment_crops(crops, _seed(5), MUCH)
    np.testing.assert_allclose(inside.image, outside.image, atol=1e-5)
    np.testing.assert_array_equal(inside.mask, outside.mask)
