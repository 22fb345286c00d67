from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.occlusion import random_cutout, random_grid_mask, random_slice_drop
from lumbar_tf.inputs.crops import Crops

Seed = Callable[[int], tf.Tensor]


def test_slices_are_dropped_but_never_the_central_one_nor_brought_back(
    seed: Seed, crops: Crops, much: AugmentationConfig
) -> None:
    mask = crops.mask.numpy()
    kept = np.stack([random_slice_drop(crops.mask, seed(number), much) for number in range(300)])
    assert not (kept & ~mask).any()
    assert (kept[:, :, 1] == mask[:, 1]).all()
    # 300 x 5 draws at one half: 0.4 to 0.6 is more than seven standard deviations.
    outer = kept[:, mask & (np.arange(3) != 1)]
    assert 0.4 < outer.mean() < 0.6


def test_a_cutout_is_one_rectangle_the_same_in_all_slices_of_a_crop(
    seed: Seed, much: AugmentationConfig
) -> None:
    image = tf.ones((40, 2, 32, 32))
    blank = random_cutout(image, seed(1), much.model_copy(update={"cutout": 1.0})).numpy() == 0.5
    assert (blank[:, 0] == blank[:, 1]).all()
    for each in blank[:, 0]:
        rows, columns = each.any(axis=1), each.any(axis=0)
        assert (each == rows[:, None] & columns).all()
        assert 3 <= rows.sum() <= 14  # 0.15 to 0.4 of 32, give or take one
        assert 3 <= columns.sum() <= 14
    some = random_cutout(image, seed(1), much).numpy() == 0.5
    assert 8 <= some.any(axis=(1, 2, 3)).sum() <= 32


def test_a_grid_mask_is_a_lattice_that_keeps_most_of_a_crop(seed: Seed, much: AugmentationConfig) -> None:
    image = tf.ones((200, 2, 64, 64))
    blank = random_grid_mask(image, seed(1), much.model_copy(update={"grid_mask": 1.0})).numpy() == 0.5
    assert (blank[:, 0] == blank[:, 1]).all()
    for each in blank[:, 0]:
        rows, columns = each.any(axis=1), each.any(axis=0)
        assert (each == rows[:, None] & columns).all()
        # Two to four periods an axis, so as many bands or one more.
        starts = int(rows[0]) + (np.diff(rows.astype(int)) == 1).sum()
        assert 1 <= starts <= 5
    # 1 - (1 - r)**2 is kept, r = 0.6: 84% on average.
    assert 0.82 < 1 - blank.mean() < 0.86
    some = random_grid_mask(image, seed(1), much).numpy() == 0.5
    assert 60 <= some.any(axis=(1, 2, 3)).sum() <= 140
