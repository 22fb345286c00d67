import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.geometry import SliceGeometry, pixel_to_patient
from lumbar_tf.models.axial_localizer import AxialLocalizer, build_axial_localizer, locate_subarticular

CROPS, SLICES, SIZE, CELLS = 10, 3, 32, 16
PIXEL_MM, GAP_MM = 1.25, 4.0
CONFIG = LocalizerConfig(
    backbone="densenet_tiny",
    side_mm=SIZE * PIXEL_MM,
    side_px=SIZE,
    supersample=1,
    num_slices=SLICES,
    decoder_channels=8,
    sigma_mm=2.5,
    training=TrainingConfig(epochs=1, batch_studies=2, learning_rate=1e-3, batch_norm_momentum=0.5),
)
NO_DOUBT = np.zeros((2, CROPS), np.float32)


def _geometry(crop: int, each: int) -> SliceGeometry:
    """The crop's slice as if it had been scanned so: tilted and turned otherwise for every crop."""
    angle, turn = 0.1 + 0.05 * crop, 0.3 - 0.04 * crop
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    down = np.array([-np.sin(turn) * np.cos(angle), np.cos(turn) * np.cos(angle), np.sin(angle)])
    middle = np.array([3.0 - crop, 5.0 + crop, 40.0 - 15.0 * crop])
    middle = middle + np.cross(right, down) * GAP_MM * (each - SLICES // 2)
    corner = middle - (right + down) * PIXEL_MM * (SIZE - 1) / 2
    return SliceGeometry(tuple(corner), tuple(right), tuple(down), PIXEL_MM, PIXEL_MM, SIZE, SIZE)


def _field(images: NDArray[np.float32] | None = None) -> dict[str, NDArray[np.float32]]:
    """Two studies alike in geometry."""
    grid = [[_geometry(crop, number) for number in range(SLICES)] for crop in range(CROPS)]

    def tiled(values: object) -> NDArray[np.float32]:
        return np.tile(np.asarray(values, np.float32), (2, 1, 1, 1))

    if images is None:
        images = np.random.default_rng(0).random((2, CROPS, SLICES, SIZE, SIZE)).astype(np.float32)
    return {
        "image": images,
        "mask": np.ones((2, CROPS, SLICES), np.bool_),
        "offset_mm": np.tile(np.float32(GAP_MM) * (np.arange(SLICES) - 1), (2, CROPS, 1)).astype(np.float32),
        "origin": tiled([[geometry.centre for geometry in row] for row in grid]),
        "right": tiled([[np.array(geometry.row_direction) * PIXEL_MM for geometry in row] for row in grid]),
        "down": tiled([[np.array(geometry.column_direction) * PIXEL_MM for geometry in row] for row in grid]),
    }


def _gaussian(truth: NDArray[np.float64], sigma_mm: float) -> NDArray[np.float32]:
    """Logits of a Gaussian about each crop's point, [2, crop, slice, cells, cells], by `imaging.geometry`."""
    logits = np.zeros((2, CROPS, SLICES, CELLS, CELLS), np.float32)
    for crop in range(CROPS):
        for plane in range(SLICES):
            geometry = _geometry(crop, plane)
            # Cell (j, i) of stride 2 covers pixels 2i and 2i + 1.
            cells = np.array(
                [
                    [pixel_to_patient(geometry, (2 * i + 0.5, 2 * j + 0.5)) for i in range(CELLS)]
                    for j in range(CELLS)
                ]
            )
            squared = ((cells - truth[crop]) ** 2).sum(axis=-1)
            logits[:, crop, plane] = -squared / (2 * sigma_mm**2)
    return logits


def test_points_between_the_cells_of_oblique_slices_are_found_where_they_lie_in_the_patient() -> None:
    truth = np.array(
        [pixel_to_patient(_geometry(crop, 1), (12.3 + crop, 20.1 - crop)) for crop in range(CROPS)]
    )
    points, spread, doubt = (
        output.numpy() for output in locate_subarticular(_field(), _gaussian(truth, 2.0), NO_DOUBT + 0.25)
    )
    np.testing.assert_allclose(points, np.stack([truth, truth]), atol=0.15)
    # Of a Gaussian of 2 mm in two directions, and three slices 4 mm apart in the third: 2 exp(-2) x 4^2 /
    # (1 + 2 exp(-2)) = 3.4 mm2.
    np.testing.assert_allclose(spread, np.sqrt(2 * 2.0**2 + 3.4), rtol=0.03)
    np.testing.assert_array_equal(doubt, NO_DOUBT + 0.25)


def test_another_peak_far_off_is_not_averaged_with_the_answer() -> None:
    truth = np.array([pixel_to_patient(_geometry(crop, 0), (8, 16)) for crop in range(CROPS)])
    other = np.array([pixel_to_patient(_geometry(crop, 0), (24, 16)) for crop in range(CROPS)])
    both = np.logaddexp(_gaussian(truth, 1.5), _gaussian(other, 1.5) - 0.5)
    located = locate_subarticular(_field(), both, NO_DOUBT)
    np.testing.assert_allclose(located.points[0], truth, atol=0.6)
    assert located.spread_mm.numpy().min() > 8  # and the spread tells of it


def test_a_crop_without_a_slice_has_no_point() -> None:
    field = _field()
    field["mask"][1, 3:5] = False
    located = locate_subarticular(field, _gaussian(np.zeros((CROPS, 3)), 50.0), NO_DOUBT + 0.1)
    is_found = np.isfinite(located.points.numpy()).all(axis=-1)
    assert np.argwhere(~is_found).tolist() == [[1, 3], [1, 4]]
    assert np.isnan(located.points.numpy()[1, 3:5]).all()
    assert np.isnan(located.spread_mm.numpy()[1, 3:5]).all()
    np.testing.assert_array_equal(located.uncertainty.numpy() == 1, ~is_found)


@pytest.fixture(scope="module")
def localizer() -> AxialLocalizer:
    keras.utils.set_random_seed(0)
    model = build_axial_localizer(CONFIG)
    for layer in model.layers:
        if layer.name in ("evidence", "slice_bias"):
            layer.set_weights([value * 20 for value in layer.get_weights()])
    return model


def test_the_network_knows_neither_level_nor_side(localizer: AxialLocalizer) -> None:
    """The mirrored patient's crops are the same with the sides swapped; its points are the mirrored ones."""
    field = _field()
    swapped = np.arange(CROPS).reshape(5, 2)[:, ::-1].ravel()
    mirrored = {name: value[:, swapped] for name, value in field.items()}
    for name in ("origin", "right", "down"):
        mirrored[name] = mirrored[name] * np.float32([-1, 1, 1])
    points = locate_subarticular(field, localizer(field), NO_DOUBT).points.numpy()
    others = locate_subarticular(mirrored, localizer(mirrored), NO_DOUBT).points.numpy()
    np.testing.assert_allclose(others[:, swapped] * [-1, 1, 1], points, atol=2e-3)
    assert np.abs(others * [-1, 1, 1] - points).max() > 3  # the sides differ
    # Levels likewise: another order of the crops is another order of the answers.
    order = np.random.default_rng(1).permutation(CROPS)
    shuffled = locate_subarticular(
        {name: value[:, order] for name, value in field.items()},
        localizer({name: value[:, order] for name, value in field.items()}),
        NO_DOUBT,
    ).points.numpy()
    np.testing.assert_allclose(shuffled, points[:, order], atol=2e-3)


def test_masked_slices_have_no_weight(localizer: AxialLocalizer) -> None:
    field = _field()
    field["mask"][:, :, 2] = False
    field["image"][:, :, 2] = 0.0
    first = localizer(field).numpy()
    field["offset_mm"][:, :, 2] = 99.0
    logits = localizer(field).numpy()
    np.testing.assert_allclose(logits[:, :, :2], first[:, :, :2], atol=1e-4)
    points = locate_subarticular(field, logits, NO_DOUBT).points.numpy()
    for crop in range(CROPS):
        normal = np.cross(_geometry(crop, 0).row_direction, _geometry(crop, 0).column_direction)
        along = (points[:, crop] - _geometry(crop, 1).centre) @ normal
        assert (along < 1e-2).all() and (along > -GAP_MM - 1e-2).all()


def test_the_loss_is_least_at_its_target_and_leaves_missing_points_out(localizer: AxialLocalizer) -> None:
    field = _field()
    truth = np.array([pixel_to_patient(_geometry(crop, 1), (10.0, 18.0)) for crop in range(CROPS)])
    points = np.stack([truth, truth]).astype(np.float32)
    target = _gaussian(truth, CONFIG.sigma_mm)
    flat = target.reshape(2, CROPS, -1).astype(np.float64)
    share = np.exp(flat - flat.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(axis=-1).mean()
    best = float(localizer.compute_loss(field, points, tf.constant(target)))
    assert best == pytest.approx(entropy, rel=1e-4)
    logits = localizer(field)
    assert float(localizer.compute_loss(field, points, logits)) > best
    partly = points.copy()
    partly[1] = np.nan
    alone = float(localizer.compute_loss(field, partly, tf.constant(target)))
    changed = target.copy()
    changed[1] = 0.0
    assert float(localizer.compute_loss(field, partly, tf.constant(changed))) == pytest.approx(alone)
    assert float(localizer.compute_loss(field, np.full_like(points, np.nan), logits)) == 0.0


def _blobs(seed: int) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Two studies of noise with a bright blob in every crop, and where its middle lies in the patient."""
    rng = np.random.default_rng(seed)
    images = 0.15 * rng.random((2, CROPS, SLICES, SIZE, SIZE)).astype(np.float32)
    points = np.zeros((2, CROPS, 3), np.float32)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for study in range(2):
        for crop in range(CROPS):
            each, (column, row) = rng.integers(SLICES), rng.uniform(7, 25, 2)
            blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 2.5**2))
            images[study, crop, each] += blob.astype(np.float32)
            points[study, crop] = pixel_to_patient(_geometry(crop, each), (column, row))
    return _field(images), points


def test_a_bright_blob_is_found_in_its_slice_and_place_after_seconds_of_training() -> None:
    keras.utils.set_random_seed(1)
    model = build_axial_localizer(CONFIG)
    model.compile(keras.optimizers.Adam(5e-3))
    for seed in range(50):
        model.train_on_batch(*_blobs(seed))
    field, truth = _blobs(1000)
    found = locate_subarticular(field, model(field, training=False), NO_DOUBT).points.numpy()
    distance = np.linalg.norm(found - truth, axis=-1)
    assert np.median(distance) < 1.0
    assert np.mean(distance < 2.0) > 0.95  # half a gap: the slice is the right one
