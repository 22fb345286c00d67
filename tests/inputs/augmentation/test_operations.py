from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation import augment_crops, random_intensity
from lumbar_tf.inputs.augmentation.operations import INTENSITY, OCCLUSION
from lumbar_tf.inputs.crops import Crops

Seed = Callable[[int], tf.Tensor]


def test_limits_of_zero_change_not_one_bit(seed: Seed, crops: Crops) -> None:
    for before, after in zip(crops, augment_crops(crops, seed(3), AugmentationConfig.nothing()), strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_seed_gives_the_same_change_every_time_and_another_seed_another(
    seed: Seed, crops: Crops, much: AugmentationConfig
) -> None:
    def change(number: int) -> list[np.ndarray]:
        return [each.numpy() for each in augment_crops(crops, seed(number), much)]

    for first, again in zip(change(1), change(1), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(change(1)[0], change(2)[0])


@pytest.mark.parametrize("name", [*INTENSITY, *OCCLUSION])
def test_each_operation_is_switched_on_by_its_own_field_and_stays_in_range(
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
    assert changed[:, ~crops.mask.numpy()].max() == 0


def test_display_keeps_the_order_of_intensities(seed: Seed, much: AugmentationConfig) -> None:
    image = tf.reshape(tf.linspace(0.0, 1.5, 49), [1, 1, 7, 7])
    config = AugmentationConfig.nothing().model_copy(
        update={name: getattr(much, name) for name in ("gamma", "contrast", "brightness")}
    )
    for number in range(20):
        assert (np.diff(random_intensity(image, seed(number), config).numpy().ravel()) >= 0).all()


def test_a_localizers_field_is_changed_as_one_crop(
    seed: Seed, crops: Crops, much: AugmentationConfig
) -> None:
    field = crops.image[0]
    changed = random_intensity(field, seed(4), much)
    np.testing.assert_array_equal(changed, random_intensity(field[tf.newaxis], seed(4), much)[0])


def test_a_random_choice_gives_each_crop_as_many_operations_as_asked(seed: Seed) -> None:
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


def test_changes_run_inside_a_dataset_as_they_do_outside(
    seed: Seed, crops: Crops, much: AugmentationConfig
) -> None:
    (inside,) = tf.data.Dataset.from_tensors(0).map(lambda _: augment_crops(crops, seed(5), much))
    outside = augment_crops(crops, seed(5), much)
    np.testing.assert_allclose(inside.image, outside.image, atol=1e-5)
    np.testing.assert_array_equal(inside.mask, outside.mask)


def test_everything_compiles_under_xla(seed: Seed, crops: Crops, much: AugmentationConfig) -> None:
    """XLA draws other numbers than TensorFlow does, so values are compared with those of XLA only."""
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
