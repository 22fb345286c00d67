import keras
import numpy as np
import pytest

from lumbar_tf.models.pooling import POOLINGS, pool_slices


def test_a_single_slice_needs_no_pooling() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((2, 5, 1, 4)).astype(np.float32)
    mask, offset = np.ones((2, 5, 1), np.bool_), np.zeros((2, 5, 1), np.float32)
    for pooling in POOLINGS:
        pooled = pool_slices(features, mask, offset, pooling=pooling, is_sided=False)
        np.testing.assert_array_equal(pooled, features[:, :, 0])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("is_sided", [True, False])
def test_pooling_does_not_see_masked_slices_and_knows_the_order_of_the_others(
    pooling: str, is_sided: bool
) -> None:
    layers = {
        "features": keras.Input((2, 4, 6), name="features"),
        "mask": keras.Input((2, 4), name="mask", dtype="bool"),
        "offset": keras.Input((2, 4), name="offset"),
    }
    pooled = pool_slices(*layers.values(), pooling=pooling, is_sided=is_sided)
    model = keras.Model(layers, pooled)
    rng = np.random.default_rng(0)
    inputs = {
        "features": rng.normal(size=(3, 2, 4, 6)).astype(np.float32),
        "mask": rng.random((3, 2, 4)) > 0.3,
        "offset": np.tile(np.array([-6.0, -2.0, 2.0, 6.0], np.float32), (3, 2, 1)),
    }
    inputs["mask"][0, 0] = False
    inputs["mask"][1, 0] = [True, True, False, True]
    before = np.array(model(inputs))
    assert np.isfinite(before).all()
    changed = {**inputs, "features": np.where(inputs["mask"][..., None], inputs["features"], 9.0)}
    changed["offset"] = np.where(inputs["mask"], inputs["offset"], 80.0)
    if pooling == "attention":
        # All scores of a crop without a slice are equal: it answers with what it is given.
        before[0, 0] = np.asarray(model(changed))[0, 0]
    np.testing.assert_allclose(model(changed), before, atol=1e-6)
    turned = {key: value[:, :, ::-1] for key, value in inputs.items()}
    turned["offset"] = -turned["offset"]
    difference = np.abs(np.asarray(model(turned)) - before)[1:].max()
    if is_sided and pooling != "mean":
        assert difference > 1e-3
    else:
        assert difference < 1e-5


def test_mean_pooling_is_the_mean_of_the_slices_that_are_there() -> None:
    features = np.random.default_rng(0).normal(size=(1, 1, 3, 4)).astype(np.float32)
    mask = np.array([[[True, False, True]]])
    pooled = pool_slices(features, mask, np.zeros((1, 1, 3), np.float32), pooling="mean", is_sided=True)
    np.testing.assert_allclose(pooled[0, 0], features[0, 0, [0, 2]].mean(axis=0), atol=1e-6)
