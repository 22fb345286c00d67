import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig, TrainingConfig
from lumbar_tf.labels import Plane
from lumbar_tf.models.localizer import Localizer, build_localizer, locate

SLICES, SIZE, CELLS = 5, 32, 16
PIXEL_MM = 8.0
CONFIG = LocalizerConfig(
    backbone="csp_darknet_narrow",
    side_mm=SIZE * PIXEL_MM,
    side_px=SIZE,
    supersample=1,
    num_slices=SLICES,
    decoder_channels=8,
    training=TrainingConfig(epochs=1, batch_studies=2, learning_rate=1e-3),
)


def _field(seed: int = 0) -> dict[str, np.ndarray]:
    """Two studies; slices 5 mm apart, columns to the back and rows to the feet."""
    lateral = 5.0 * (np.arange(SLICES) - 2)
    origin = np.zeros((2, SLICES, 3))
    origin[..., 0] = lateral + 7.0
    origin[1, :, 1:] = (11.0, -40.0)
    field = {
        "image": np.random.default_rng(seed).random((2, SLICES, SIZE, SIZE)),
        "lateral_mm": np.tile(lateral, (2, 1)),
        "origin": origin,
        "right": np.tile([0.0, PIXEL_MM, 0.0], (2, SLICES, 1)),
        "down": np.tile([0.0, 0.0, -PIXEL_MM], (2, SLICES, 1)),
    }
    return {
        **{name: value.astype(np.float32) for name, value in field.items()},
        "mask": np.ones((2, SLICES), np.bool_),
    }


def _patient(
    field: dict[str, np.ndarray], study: int, each: int, column_px: float, row_px: float
) -> np.ndarray:
    """Where a field pixel lies: a plain reading of what `origin`, `right` and `down` mean."""
    middle = (SIZE - 1) / 2
    return (
        field["origin"][study, each]
        + field["right"][study, each] * (column_px - middle)
        + field["down"][study, each] * (row_px - middle)
    )


def _mirrored(field: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mirrored patient's field: the stack read from the other end, x turned."""
    turned = {name: value[:, ::-1].copy() for name, value in field.items()}
    turned["lateral_mm"] *= -1
    for name in ("origin", "right", "down"):
        turned[name] *= np.array([-1, 1, 1], np.float32)
    return turned


def test_a_backbone_without_fine_features_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride 2.*convnext_tiny, with strides 4, 8"):
        build_localizer(CONFIG.model_copy(update={"backbone": "convnext_tiny"}), Plane.SAGITTAL_T2)


def test_a_peak_is_found_where_it_lies_in_the_patient() -> None:
    field = _field()
    logits = np.full((2, SLICES, CELLS, CELLS, 5), -50.0, np.float32)
    logits[0, 3, 6, 9, 0] = 0.0
    logits[1, 0, 15, 0, 4] = 0.0
    points, spread = (each.numpy() for each in locate(field, logits))
    # A cell of stride 2 covers two pixels a side: cell 9 is centred between pixels 18 and 19.
    np.testing.assert_allclose(points[0, 0], _patient(field, 0, 3, 18.5, 12.5), atol=1e-3)
    np.testing.assert_allclose(points[1, 4], _patient(field, 1, 0, 0.5, 30.5), atol=1e-3)
    assert spread[0, 0] < 0.1
    assert spread[0, 1] > 20  # an even heatmap knows nothing


def test_a_blob_is_found_between_cells_and_slices() -> None:
    field = _field()
    field["right"] /= 4
    field["down"] /= 4
    truth = _patient(field, 0, 2, 15.3, 18.1) + np.array([1.4, 0, 0])
    logits = np.zeros((2, SLICES, CELLS, CELLS, 1), np.float32)
    for each in range(SLICES):
        for row in range(CELLS):
            for column in range(CELLS):
                cell = _patient(field, 0, each, 2 * column + 0.5, 2 * row + 0.5)
                logits[0, each, row, column] = -((cell - truth) ** 2).sum() / (2 * 4.0**2)
    points, spread = locate(field, logits)
    np.testing.assert_allclose(points[0, 0], truth, atol=0.5)
    # Root mean square distance of a 3-D Gaussian, a little less for the window and the stack's ends.
    assert float(spread[0, 0]) == pytest.approx(4.0 * np.sqrt(3), rel=0.1)


def test_two_candidates_give_one_of_them_and_a_wide_spread() -> None:
    field = _field()
    logits = np.full((2, SLICES, CELLS, CELLS, 1), -50.0, np.float32)
    logits[:, 2, 5, 8] = 0.0
    logits[:, 2, 10, 8] = -0.1
    points, spread = locate(field, logits)
    np.testing.assert_allclose(points[0, 0], _patient(field, 0, 2, 16.5, 10.5), atol=1e-3)
    assert float(spread[0, 0]) > 40  # they lie 80 mm apart


@pytest.fixture(scope="module", params=[Plane.SAGITTAL_T1, Plane.SAGITTAL_T2])
def localizer(request: pytest.FixtureRequest) -> Localizer:
    keras.utils.set_random_seed(0)
    model = build_localizer(CONFIG, request.param)
    for layer in model.layers:
        if layer.name in ("evidence", "slice_bias"):
            layer.set_weights([value * 20 for value in layer.get_weights()])
    return model


def test_a_mirrored_stack_swaps_the_sides(localizer: Localizer) -> None:
    field = _field()
    field["mask"][1, 4] = False
    mirrored = _mirrored(field)
    points, _ = locate(field, localizer(field, training=False))
    others, _ = locate(mirrored, localizer(mirrored, training=False))
    points, others = points.numpy(), others.numpy()
    if points.shape[1] == 10:
        assert np.abs(points[:, 0::2] - points[:, 1::2]).max() > 3  # the sides differ
        others = others.reshape(2, 5, 2, 3)[:, :, ::-1].reshape(2, 10, 3)
    np.testing.assert_allclose(others * [-1, 1, 1], points, atol=2e-3)


def test_masked_slices_have_no_weight(localizer: Localizer) -> None:
    field = _field()
    field["mask"][:, 3:] = False
    first = localizer(field, training=False).numpy()
    field["image"][:, 3:] = 0.5
    field["lateral_mm"][:, 3:] = 99.0
    logits = localizer(field, training=False).numpy()
    np.testing.assert_array_equal(first, logits)
    cells = logits.reshape(2, SLICES, -1, logits.shape[-1]).astype(np.float64)
    share = np.exp(cells - cells.max(axis=(1, 2), keepdims=True))
    assert share[:, 3:].max() == 0
    points, _ = locate(field, logits)
    assert float(tf.reduce_max(points[..., 0])) <= field["origin"][0, 2, 0] + 1e-3


def test_the_loss_is_least_at_its_own_target_and_leaves_missing_points_out(localizer: Localizer) -> None:
    field = _field()
    logits = localizer(field, training=False).numpy()
    count = logits.shape[-1]
    truth = np.stack([_patient(field, study, 1, 12.5, 20.5) for study in range(2)])
    points = np.repeat(truth[:, None], count, axis=1).astype(np.float32)
    cells = np.stack(
        [
            [
                [
                    [_patient(field, study, each, 2 * i + 0.5, 2 * j + 0.5) for i in range(CELLS)]
                    for j in range(CELLS)
                ]
                for each in range(SLICES)
            ]
            for study in range(2)
        ]
    )
    squared = ((cells[..., None, :] - points[:, None, None, None]) ** 2).sum(axis=-1)
    target = (-squared / (2 * CONFIG.sigma_mm**2)).astype(np.float32)
    weights = np.exp(target).reshape(2, -1, count)
    weights /= weights.sum(axis=1, keepdims=True)
    entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=1).mean()
    best = float(localizer.compute_loss(field, points, tf.constant(target)))
    assert best == pytest.approx(entropy, rel=1e-4)
    assert float(localizer.compute_loss(field, points, tf.constant(logits))) > best
    partly = points.copy()
    partly[0, 1:] = np.nan
    partly[1] = np.nan
    alone = localizer.compute_loss(field, partly, tf.constant(logits))
    changed = logits.copy()
    changed[1] += np.random.default_rng(0).normal(size=changed[1].shape)
    assert float(localizer.compute_loss(field, partly, tf.constant(changed))) == pytest.approx(float(alone))
    nothing = np.full_like(points, np.nan)
    assert float(localizer.compute_loss(field, nothing, tf.constant(logits))) == 0.0
