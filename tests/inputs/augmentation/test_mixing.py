from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation import mix_studies
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Family, Plane

Seed = Callable[[int], tf.Tensor]
Inputs = dict[str, tf.Tensor]

STUDIES = 3
AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
CROPS = len(AXIAL.sides)
#: The mean of the crops that show a row; the canal is shown from both sides.
VIEWS = np.array(AXIAL.row_views) / np.sum(AXIAL.row_views, axis=1, keepdims=True)


def _config(**fields: float) -> AugmentationConfig:
    return AugmentationConfig.nothing().model_copy(update=fields)


def _batch() -> tuple[Inputs, tf.Tensor]:
    """Study s, crop p is a flat image of s * 100 + p + 1; the target of row r of study s encodes s and r."""
    value = np.arange(STUDIES)[:, None] * 100.0 + np.arange(CROPS) + 1
    shape = (STUDIES, CROPS, 2, 32, 32)
    inputs = {
        "image": tf.constant(np.broadcast_to(value[..., None, None, None], shape).astype(np.float32)),
        "mask": tf.ones(shape[:3], tf.bool),
        "offset_mm": tf.constant(np.broadcast_to(value[..., None], shape[:3]).astype(np.float32)),
    }
    targets = np.zeros((STUDIES, len(AXIAL.rows), 3), np.float32)
    targets[np.arange(STUDIES), :, np.arange(STUDIES)] = 1  # study s is all of grade s
    return inputs, tf.constant(targets)


def _shares(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the own weight [B, P] and the partner [B], from the means of the flat images."""
    crop = np.arange(CROPS)
    mean = image.mean(axis=(2, 3, 4))
    partner = np.full(STUDIES, -1)
    for study in range(STUDIES):
        seen = np.rint(np.unique(image[study])).astype(int)
        others = {(value - 1) // 100 for value in seen if (value - 1) % 100 < CROPS} - {study}
        partner[study] = others.pop() if len(others) == 1 else -1
    own = np.arange(STUDIES)[:, None] * 100 + crop + 1
    other = partner[:, None] * 100 + crop + 1
    return (mean - other) / (own - other), partner


def test_cutmix_weights_targets_by_the_area_of_its_rectangle(seed: Seed) -> None:
    inputs, targets = _batch()
    mixed, soft = mix_studies(inputs, targets, seed(4), _config(cutmix=1.0), layout=AXIAL)
    image = mixed["image"].numpy()
    own, partner = _shares(image)
    # One shift for the batch: nobody is his own partner, everybody is somebody's.
    shift = (np.arange(STUDIES) - partner) % STUDIES
    assert shift[0] != 0
    assert (shift == shift[0]).all()
    for study in range(STUDIES):
        for crop in range(CROPS):
            pasted = image[study, crop] == partner[study] * 100 + crop + 1
            assert (pasted | (image[study, crop] == study * 100 + crop + 1)).all()
            rows, columns = pasted[0].any(axis=1), pasted[0].any(axis=0)
            assert (pasted == rows[:, None] & columns).all()  # one rectangle, in all slices
            assert own[study, crop] == pytest.approx(1 - pasted[0].mean(), abs=1e-4)
    assert len(np.unique(own.round(4))) > 20  # each crop its own
    np.testing.assert_allclose(soft.numpy().sum(axis=-1), 1, atol=1e-6)
    for row, weights in enumerate(VIEWS):
        for study in range(STUDIES):
            share = own[study] @ weights
            assert soft.numpy()[study, row, study] == pytest.approx(share, abs=1e-4)
            assert soft.numpy()[study, row, partner[study]] == pytest.approx(1 - share, abs=1e-4)


def test_mixup_weights_crops_and_targets_equally(seed: Seed) -> None:
    inputs, targets = _batch()
    mixed, soft = mix_studies(inputs, targets, seed(4), _config(mixup=1.0, mixup_alpha=2.0), layout=AXIAL)
    image, offset = mixed["image"].numpy(), mixed["offset_mm"].numpy()
    assert (image.max(axis=(2, 3, 4)) - image.min(axis=(2, 3, 4))).max() < 1e-3  # flat stays flat
    np.testing.assert_allclose(image[..., 0, 0], offset, rtol=1e-5)
    study = 0
    partner = next(item for item in (1, 2) if soft.numpy()[study, :, item].any())
    place = np.arange(CROPS) + 1.0
    own = (image[study].mean(axis=(1, 2, 3)) - 100 * partner - place) / (-100 * partner)
    assert ((own > 0) & (own < 1)).all()
    np.testing.assert_allclose(soft[study, :, study], VIEWS @ own, atol=1e-4)


def test_crops_without_common_slices_are_not_mixed(seed: Seed) -> None:
    inputs, targets = _batch()
    mask = np.ones((STUDIES, CROPS, 2), np.bool_)
    mask[1, 4] = False  # study 1 has no such crop
    mask[0, 6, 1] = False  # study 0 lacks one slice
    inputs = {**inputs, "mask": tf.constant(mask)}
    inputs["image"] = tf.where(inputs["mask"][..., None, None], inputs["image"], 0.0)
    mixed, soft = mix_studies(inputs, targets, seed(4), _config(mixup=1.0), layout=AXIAL)
    _, partner = _shares(
        mix_studies(*_batch(), seed(4), _config(cutmix=1.0), layout=AXIAL)[0]["image"].numpy()
    )
    meets = [study for study in range(STUDIES) if 1 in (study, partner[study])]
    for study in meets:
        np.testing.assert_array_equal(mixed["image"][study, 4], inputs["image"][study, 4])
        np.testing.assert_array_equal(mixed["mask"][study, 4], mask[study, 4])
        left = [row for row, view in enumerate(VIEWS) if view[4] == 1]
        np.testing.assert_array_equal(tf.gather(soft[study], left), tf.gather(targets[study], left))
    for study in range(STUDIES):
        expected = mask[study, 6] & mask[partner[study], 6]
        np.testing.assert_array_equal(mixed["mask"][study, 6], expected)
        assert not mixed["image"].numpy()[study, 6][~expected].any()


def test_canal_weight_is_that_of_the_visible_side(seed: Seed) -> None:
    """Level 1 lacks its right crop in all studies, so its canal has the left crop's weight."""
    inputs, targets = _batch()
    inputs["mask"] = tf.constant(np.arange(CROPS)[None, :, None] != 1) & inputs["mask"]
    _, soft = mix_studies(inputs, targets, seed(4), _config(mixup=1.0), layout=AXIAL)
    canal, left = (np.flatnonzero(VIEWS[:, 0] == weight)[0] for weight in (0.5, 1.0))
    np.testing.assert_allclose(soft[:, canal], tf.gather(soft, left, axis=1), atol=1e-6)
    assert np.isfinite(soft).all()


def test_missing_labels_are_mixed_as_zeros(seed: Seed) -> None:
    inputs, targets = _batch()
    targets = tf.concat([tf.zeros_like(targets[:1]), targets[1:]], axis=0)
    _, soft = mix_studies(inputs, targets, seed(4), _config(cutmix=1.0), layout=AXIAL)
    assert soft.numpy()[0].sum(axis=-1).max() < 1
    assert (soft.numpy()[0].sum(axis=-1) > 0).any()  # what is left is the partner's share
    assert not soft.numpy()[0, :, 0].any()


def test_disabled_mixing_and_single_study_batches_change_nothing(seed: Seed) -> None:
    inputs, targets = _batch()
    assert mix_studies(inputs, targets, seed(0), _config(), layout=AXIAL) == (inputs, targets)
    one = {name: value[:1] for name, value in inputs.items()}
    assert mix_studies(one, targets[:1], seed(0), _config(mixup=1.0), layout=AXIAL)[0] is one


def test_mixing_probabilities_are_per_crop(seed: Seed) -> None:
    inputs, targets = _batch()
    kinds = np.zeros(3)
    for number in range(30):
        mixed, _ = mix_studies(inputs, targets, seed(number), _config(mixup=0.3, cutmix=0.2), layout=AXIAL)
        image = mixed["image"].numpy()
        is_flat = np.ptp(image, axis=(2, 3, 4)) < 1e-3
        is_same = (image == inputs["image"].numpy()).all(axis=(2, 3, 4))
        kinds += [is_same.sum(), (is_flat & ~is_same).sum(), (~is_flat).sum()]
    # 900 draws: 0.06 is nearly four standard deviations. A rectangle may be too small to hold a pixel.
    np.testing.assert_allclose(kinds / kinds.sum(), [0.5, 0.3, 0.2], atol=0.06)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_mixing_is_reproducible_also_under_xla(seed: Seed, is_compiled: bool) -> None:
    inputs, targets = _batch()
    config = _config(mixup=0.5, cutmix=0.5)

    @tf.function(jit_compile=is_compiled)
    def mix(number: tf.Tensor) -> tuple[Inputs, tf.Tensor]:
        return mix_studies(inputs, targets, number, config, layout=AXIAL)

    (first, soft), (again, _), (other, _) = mix(seed(1)), mix(seed(1)), mix(seed(2))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert not np.array_equal(first["image"], other["image"])
    assert np.isfinite(first["image"]).all()
    np.testing.assert_allclose(soft.numpy().sum(axis=-1), 1, atol=1e-5)


def test_mixing_probabilities_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="a crop is mixed once"):
        AugmentationConfig(mixup=0.7, cutmix=0.4)
