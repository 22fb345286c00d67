import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig, TrainingConfig
from lumbar_tf.labels import Plane
from lumbar_tf.models.localizer import Localizer, LocatedLevels, build_localizer, combine_folds, locate_levels

SLICES, SIZE, CELLS = 5, 32, 16
PIXEL_MM = 8.0
CONFIG = LocalizerConfig(
    backbone="densenet_tiny",
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


#: Field pixels of five discs, head to feet: 32 mm apart and not quite straight.
DISCS = ((14.5, 6.5), (14.5, 10.5), (16.5, 14.5), (16.5, 18.5), (18.5, 22.5))


def _peaks(at: tuple[tuple[float, float], ...] = DISCS, study_slice: int = 3) -> np.ndarray:
    """Heatmaps of five levels with one sharp peak each, float32 [2, slice, cells, cells, 5]."""
    logits = np.full((2, SLICES, CELLS, CELLS, 5), -50.0, np.float32)
    for level, (i, j) in enumerate(at):
        logits[:, study_slice, int(j) // 2, int(i) // 2, level] = 0.0
    return logits


def test_peaks_are_found_where_they_lie_in_the_patient() -> None:
    field = _field()
    points, spread, doubt = (output.numpy() for output in locate_levels(field, _peaks()))
    for study in range(2):
        # A cell of stride 2 covers two pixels a side: cell 7 is centred between pixels 14 and 15.
        truth = [_patient(field, study, 3, *disc) for disc in DISCS]
        np.testing.assert_allclose(points[study], truth, atol=1e-3)
    assert spread.max() < 0.1
    assert doubt.max() < 0.02


def test_a_level_that_is_outvoted_is_read_off_its_own_heatmap_at_the_other_disc() -> None:
    field, logits = _field(), _peaks()
    # The third level sees the second disc, and of its own disc a trace.
    logits[:, 3, 7, 8, 2] = -20.0
    logits[:, 3, 5, 7, 2] = 0.0
    logits[:, 3, 7, 8, 1] = -2.0
    points, spread, _ = (output.numpy() for output in locate_levels(field, logits))
    np.testing.assert_allclose(points[0], [_patient(field, 0, 3, *disc) for disc in DISCS], atol=1e-2)
    assert spread[0, 2] > 30  # its heatmap is elsewhere


def test_blobs_are_found_between_cells_and_slices() -> None:
    field = _field()
    field["right"] /= 1.5
    field["down"] /= 1.5
    truths = [_patient(field, 0, 2, 15.3, 1.1 + 7 * level) + np.array([1.4, 0, 0]) for level in range(5)]
    logits = np.zeros((2, SLICES, CELLS, CELLS, 5), np.float32)
    cells = np.array(
        [
            [
                [_patient(field, 0, number, 2 * i + 0.5, 2 * j + 0.5) for i in range(CELLS)]
                for j in range(CELLS)
            ]
            for number in range(SLICES)
        ]
    )
    for level, truth in enumerate(truths):
        logits[0, ..., level] = -((cells - truth) ** 2).sum(axis=-1) / (2 * 6.0**2)
    points, spread, _ = (output.numpy() for output in locate_levels(field, logits))
    np.testing.assert_allclose(points[0, 1:4], truths[1:4], atol=1.0)
    # Root mean square distance of a 3-D Gaussian, a little less for the stack's ends.
    np.testing.assert_allclose(spread[0, 1:4], 6.0 * np.sqrt(3), rtol=0.12)


def test_a_heatmap_that_sees_nothing_at_all_abstains() -> None:
    field, logits = _field(), _peaks()
    logits[1] = -50.0
    logits[1, 3, 7, 8] = 0.0  # five levels on one disc are no ladder
    points, _, doubt = (output.numpy() for output in locate_levels(field, logits))
    assert np.isfinite(points[0]).all()
    assert np.isnan(points[1]).all()
    assert (doubt[1] == 1).all()


def test_the_sides_of_a_level_are_read_off_apart() -> None:
    field = _field()
    both = np.stack([_peaks(study_slice=4), _peaks(study_slice=1)], axis=-1).reshape(
        2, SLICES, CELLS, CELLS, 10
    )
    points = locate_levels(field, both).points.numpy()
    for side, place in enumerate((4, 1)):
        truth = [_patient(field, 0, place, *disc) for disc in DISCS]
        np.testing.assert_allclose(points[0, side::2], truth, atol=1e-3)


def test_folds_are_joined_by_the_median_of_what_was_found() -> None:
    points = np.zeros((4, 1, 3, 3), np.float32)
    points[:, 0, 0, 2] = (1.0, 2.0, 40.0, 3.0)  # one fold is a level off
    points[:, 0, 1, 2] = (5.0, np.nan, 7.0, np.nan)
    points[:, 0, 2] = np.nan
    doubt = np.full((4, 1, 3), 0.2, np.float32)
    joined = combine_folds(LocatedLevels(points, np.ones((4, 1, 3), np.float32), doubt))
    np.testing.assert_allclose(joined.points[0, :, 2], [2.5, 6.0, np.nan])
    np.testing.assert_allclose(joined.uncertainty[0], [(3 * 0.2 + 1) / 4, (2 * 0.2 + 2) / 4, 1.0], rtol=1e-6)


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
    points, _, _ = locate_levels(field, localizer(field, training=False))
    others, _, _ = locate_levels(mirrored, localizer(mirrored, training=False))
    points, others = points.numpy(), others.numpy()
    assert np.isfinite(points).any()
    if points.shape[1] == 10:
        assert np.nanmax(np.abs(points[:, 0::2] - points[:, 1::2])) > 3  # the sides differ
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
    points, _, _ = locate_levels(field, logits)
    assert np.nanmax(points[..., 0]) <= field["origin"][0, 2, 0] + 1e-3


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
                    [_patient(field, study, number, 2 * i + 0.5, 2 * j + 0.5) for i in range(CELLS)]
                    for j in range(CELLS)
                ]
                for number in range(SLICES)
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
