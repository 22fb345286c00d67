from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from lumbar_tf.config import AugmentationConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.geometry import patient_to_pixel
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.axial_localizer_dataset import (
    AXIAL_SIDES,
    AxialLocalizerInputs,
    axial_input_spec,
    cut_axial_inputs,
    make_axial_localizer_eval_dataset,
    make_axial_localizer_train_dataset,
    reachable_points,
    study_axial_inputs,
)
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.crops import Warp, identity_warp
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.inputs.slice_decoding import decode_slices
from lumbar_tf.labels import Condition, Level, Plane, Side, finding_index
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.training.localization_metrics import measure_slice_agreement

CONFIG = LocalizerConfig(
    backbone="csp_darknet_narrow",
    side_mm=24.0,
    side_px=32,
    supersample=1,
    num_slices=3,
    max_distance_mm=6.0,
    training=TrainingConfig(
        epochs=1, batch_studies=2, learning_rate=1e-3, augmentation=AugmentationConfig.nothing()
    ),
)
ROWS = list(localizer_rows(Plane.AXIAL_T2))
NO_JITTER = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Cohort:
    """Three studies of seven slices 4 mm apart, and one study without slices."""

    source: RecordSource
    annotated: dict[str, np.ndarray]
    slices: list[Slice]

    def near(self, study: str, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
        """Returns the midpoints of a study's annotated sides, shifted; float32 [25, 3]."""
        points = np.full((25, 3), np.nan, np.float32)
        sides = self.annotated[study][ROWS].reshape(5, 2, 3)
        points[:5] = sides.mean(axis=1) + np.float32(shift)
        points[15:20] = points[20:25] = points[:5]
        return points


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, make_stack: Callable[..., list[Slice]]) -> Cohort:
    slices = make_stack(Plane.AXIAL_T2, tilt=5.0, size=40, count=7)
    path = tmp_path_factory.mktemp("records") / "a.tfrecord"
    annotated = {}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for place, study in enumerate(("10", "11", "12", "13")):
            points = np.full((25, 3), np.nan, np.float32)
            for level in range(5):
                # Each level on a slice of its own, in its plane, 5 mm to either side.
                geometry = slices[5 - level].geometry
                points[level] = geometry.centre + [0.0, 3.0, 0.0]
                for side, x in ((0, 5.0), (1, -5.0)):
                    along = np.array(geometry.row_direction) * x + np.array(geometry.column_direction) * place
                    points[15 + 5 * side + level] = geometry.centre + along
            points[15, :] = np.nan  # nobody annotated the left L1/L2
            annotated[study] = points
            own = [] if study == "13" else slices
            writer.write(encode_plane(study, Plane.AXIAL_T2, own, points=points))
    return Cohort(RecordSource((path,), tuple(annotated)), annotated, slices)


def _train(cohort: Cohort, points: dict[str, np.ndarray], **options: object) -> tf.data.Dataset:
    settings = {"config": CONFIG, "jitter_mm": NO_JITTER, "seed": 0, **options}
    return make_axial_localizer_train_dataset(cohort.source, points, **settings)


def test_batches_are_whole_studies_of_static_shape(cohort: Cohort) -> None:
    points = {study: cohort.near(study) for study in cohort.annotated}
    dataset = _train(cohort, points)
    inputs, targets = dataset.element_spec
    assert inputs["image"].shape.as_list() == [2, 10, 3, 32, 32]
    assert inputs["mask"].shape.as_list() == inputs["offset_mm"].shape.as_list() == [2, 10, 3]
    for name in ("origin", "right", "down"):
        assert inputs[name].shape.as_list() == [2, 10, 3, 3]
    assert targets.shape.as_list() == [2, 10, 3]
    for inputs, targets in dataset.take(3):
        assert np.isfinite(inputs["image"]).all()
        is_known = np.isfinite(targets.numpy()).all(axis=-1)
        assert not is_known[:, 0].any()  # its level has one side only, so no point between the two
        assert is_known[:, 2:].all()
    evaluation = make_axial_localizer_eval_dataset(cohort.source, points, config=CONFIG, batch_studies=2)
    batches = [(targets.numpy(), ids.numpy().tolist()) for _, targets, ids in evaluation]
    assert [ids for _, ids in batches] == [[b"10", b"11"], [b"12"]]
    np.testing.assert_array_equal(batches[1][0][0, 2:], cohort.annotated["12"][ROWS][2:])


def test_training_crops_are_centred_on_predicted_level_points(cohort: Cohort) -> None:
    """Annotated level points are used only where the localizer has no prediction."""

    def images(points: dict[str, np.ndarray]) -> np.ndarray:
        evaluation = make_axial_localizer_eval_dataset(cohort.source, points, config=CONFIG, batch_studies=3)
        ((inputs, _, _),) = evaluation
        return inputs["image"].numpy()

    points = {study: cohort.near(study, (2.0, -1.0, 1.5)) for study in cohort.annotated}
    for study in points:
        points[study][[2, 17, 22]] = np.nan
    # Of the first level there is no point either: it lies between two sides, of which one is not annotated.
    complete = {
        study: np.where(np.isfinite(predicted), predicted, cohort.annotated[study][np.arange(25) % 5])
        for study, predicted in points.items()
    }
    ((trained, _),) = _train(cohort, points).take(1)
    for image in trained["image"].numpy():
        assert min(np.abs(image - value).max() for value in images(complete)) < 1e-4
    assert not images(points)[:, 4:6].any()  # in evaluation what was not found stays so
    # A ladder two levels off shows none of the true points. Only the third level, which gets the first one's
    # point, has none and falls back on the annotated one.
    wrong = {study: np.roll(cohort.near(study), 2, axis=0) for study in cohort.annotated}
    narrow = CONFIG.model_copy(update={"num_slices": 1})
    ((_, targets),) = _train(cohort, wrong, config=narrow).take(1)
    assert np.isnan(np.delete(targets, [4, 5], axis=1)).all()
    assert np.isfinite(targets[:, 4:6]).all()


def test_jitter_moves_every_crop_and_is_reproducible(cohort: Cohort) -> None:
    points = {study: cohort.near(study) for study in cohort.annotated}

    def centres(**options: object) -> np.ndarray:
        ((inputs, _),) = _train(cohort, points, **options).take(1)
        return (inputs["origin"] - inputs["offset_mm"][..., np.newaxis]).numpy()[:, 2:, 1]

    still, moved = centres(), centres(jitter_mm=(3.0, 3.0, 3.0))
    np.testing.assert_array_equal(moved, centres(jitter_mm=(3.0, 3.0, 3.0)))
    distance = np.linalg.norm(moved - still, axis=-1)
    assert (distance > 0.1).all()
    assert 1.0 < np.median(distance) < 8.0
    assert not np.allclose(moved[:, 0] - still[:, 0], moved[:, 1] - still[:, 1], atol=0.1)


def test_resuming_at_an_epoch_gives_the_batches_of_an_uninterrupted_run(cohort: Cohort) -> None:
    points = {study: cohort.near(study) for study in cohort.annotated}
    augmented = CONFIG.training.model_copy(update={"augmentation": AugmentationConfig(shift_mm=2)})
    config = CONFIG.model_copy(update={"training": augmented})
    whole = [inputs["image"].numpy() for inputs, _ in _train(cohort, points, config=config).take(4)]
    # Four studies in batches of two: an epoch is two batches.
    later = _train(cohort, points, config=config, start_epoch=1).take(2)
    for before, (inputs, _) in zip(whole[2:], later, strict=True):
        np.testing.assert_array_equal(inputs["image"], before)


def test_slice_agreement_compares_nearest_and_annotated_slices(cohort: Cohort) -> None:
    normal = np.float32(cohort.slices[0].geometry.normal)

    def measure(steps: float) -> tuple[float, float]:
        moved = {
            study: points + normal * np.float32(4.0 * steps) for study, points in cohort.annotated.items()
        }
        choice = measure_slice_agreement(cohort.source, moved)
        # Nine annotated points in each of the three studies that have slices.
        assert (choice.num_points, choice.num_withheld) == (27, 0)
        return choice.same, choice.within_one

    assert measure(0.0) == measure(0.45) == (1.0, 1.0)
    assert measure(0.55) == measure(-1.4) == (0.0, 1.0)
    same, within_one = measure(1.6)  # two slices up; the first level is on the last but one already
    assert same == 0.0
    assert within_one == pytest.approx(1 / 9)
    unknown = {"10": np.full((25, 3), np.nan, np.float32)}
    assert measure_slice_agreement(cohort.source, unknown).num_withheld == 27
    assert "27 withheld" in str(measure_slice_agreement(cohort.source, unknown))


CUT_CONFIG = LocalizerConfig(
    backbone="csp_darknet_narrow",
    side_mm=24.0,
    side_px=32,
    supersample=1,
    num_slices=3,
    max_distance_mm=6.0,
    training=TrainingConfig(epochs=1, batch_studies=1, learning_rate=1e-3),
)
Stacks = Callable[..., list[Slice]]
Records = Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]


def _level_points() -> NDArray[np.float32]:
    """Returns points of five levels near the middle of the stack, the fourth unknown."""
    points = np.full((25, 3), np.nan, np.float32)
    for place, level in enumerate(Level):
        row = finding_index(Condition.SPINAL_CANAL_STENOSIS, level)
        points[row] = (1.0 - place, -2.0 + place, 9.0 - 4.5 * place)
    points[3] = np.nan
    return points


def _field(record: dict[str, tf.Tensor], warp: Warp | None = None) -> AxialLocalizerInputs:
    kept = decode_slices(record, tf.range(tf.shape(record["slices/group"])[0]))
    anchors = tf.repeat(tf.constant(_level_points()[:5]), 2, axis=0)
    field = cut_axial_inputs(kept, anchors, config=CUT_CONFIG, warp=warp or identity_warp())
    return AxialLocalizerInputs(*(array.numpy() for array in field))


def _warp() -> Warp:
    cosine, sine = np.cos(0.4), np.sin(0.4)
    return Warp(
        tf.constant([[cosine, -sine], [sine, cosine]], tf.float32) * 1.1, tf.constant([1.5, -2.0], tf.float32)
    )


def _positions(field: AxialLocalizerInputs, crop: int, item: int) -> NDArray[np.float64]:
    """Returns the patient positions of a crop's pixels from `origin`, `right` and `down`, [h, w, 3]."""
    offset = np.arange(CUT_CONFIG.side_px) - (CUT_CONFIG.side_px - 1) / 2
    across = offset[:, None] * field.right[crop, item]
    return field.origin[crop, item] + across + offset[:, None, None] * field.down[crop, item]


@pytest.mark.parametrize("tilt", [0.0, 16.0])
@pytest.mark.parametrize("order", ["plain", "columns", "transposed"])
@pytest.mark.parametrize("is_warped", [False, True])
def test_pixels_equal_the_slices_at_their_patient_positions(
    make_stack: Stacks,
    store: Callable[[Slice, str], Slice],
    make_record: Records,
    tilt: float,
    order: str,
    is_warped: bool,
) -> None:
    """The reference is `dicom.geometry` and SciPy, independent of the crops: oblique, mirrored and warped."""
    slices = [store(image_slice, order) for image_slice in make_stack(Plane.AXIAL_T2, tilt=tilt)]
    record = make_record(Plane.AXIAL_T2, slices)
    field = _field(record, _warp() if is_warped else None)
    low, high = float(record["series/low"][0]), float(record["series/high"][0])
    known = _level_points()[:5]
    for crop, side in enumerate(AXIAL_SIDES):
        if crop // 2 == 3:
            assert not field.mask[crop].any()
            assert not field.image[crop].any()
            continue
        distances = [patient_to_pixel(image_slice.geometry, known[crop // 2])[2] for image_slice in slices]
        nearest = int(np.argmin(np.abs(distances)))
        assert field.right[crop, 1, 0] * (-1 if side is Side.RIGHT else 1) > 0
        for place in np.flatnonzero(field.mask[crop]):
            chosen = slices[nearest + place - 1]
            positions = _positions(field, crop, place).reshape(-1, 3)
            column, row, distance = np.transpose(
                [patient_to_pixel(chosen.geometry, position) for position in positions]
            )
            assert np.abs(distance).max() < 1e-3
            expected = map_coordinates(chosen.pixels, [row, column], order=1, cval=0.0)
            expected = np.clip((expected - low) / (high - low), 0, 1.5)
            inside = (
                (column > 0)
                & (row > 0)
                & (column < chosen.geometry.columns - 1)
                & (row < chosen.geometry.rows - 1)
            )
            assert inside.mean() > 0.9
            np.testing.assert_allclose(field.image[crop, place].ravel()[inside], expected[inside], atol=1e-3)
            assert field.offset_mm[crop, place] == pytest.approx(-distances[nearest + place - 1], abs=1e-3)


def test_supersampled_inputs_are_averaged_at_the_same_position(
    make_stack: Stacks, make_record: Records
) -> None:
    record = make_record(Plane.AXIAL_T2, make_stack(Plane.AXIAL_T2, tilt=8.0))
    landmarks = tf.constant(_level_points())
    plain = study_axial_inputs(record, landmarks, CUT_CONFIG)
    fine = study_axial_inputs(record, landmarks, CUT_CONFIG.model_copy(update={"supersample": 3}))
    for name in ("mask", "offset_mm", "origin", "right", "down"):
        np.testing.assert_array_equal(plain[name], fine[name])
    # The scene is smooth: averages over a pixel are what is in its middle.
    np.testing.assert_allclose(fine["image"], plain["image"], atol=0.03)
    for name, spec in axial_input_spec(CUT_CONFIG).items():
        assert spec.is_compatible_with(plain[name]), name


@pytest.mark.parametrize("order", ["plain", "columns"])
def test_mirrored_patient_gives_the_inputs_of_the_other_side(
    make_stack: Stacks,
    store: Callable[[Slice, str], Slice],
    mirror: Callable[[Slice], Slice],
    make_record: Records,
    order: str,
) -> None:
    slices = make_stack(Plane.AXIAL_T2, tilt=12.0)
    mirrored = [store(mirror(image_slice), order) for image_slice in slices]
    landmarks = _level_points()
    turn = np.float32([-1, 1, 1])
    plain = study_axial_inputs(make_record(Plane.AXIAL_T2, slices), tf.constant(landmarks), CUT_CONFIG)
    other = study_axial_inputs(
        make_record(Plane.AXIAL_T2, mirrored), tf.constant(landmarks * turn), CUT_CONFIG
    )
    swapped = np.arange(10).reshape(5, 2)[:, ::-1].ravel()
    for name, tolerance in (("image", 2e-4), ("mask", 0), ("offset_mm", 1e-4)):
        first, second = (values[name].numpy().astype(np.float32) for values in (plain, other))
        np.testing.assert_allclose(second[swapped], first, atol=tolerance)
    known = plain["mask"].numpy()
    for name in ("origin", "right", "down"):
        second = other[name].numpy()[swapped] * turn
        np.testing.assert_allclose(second[known], plain[name].numpy()[known], atol=1e-3)
    image = plain["image"].numpy()
    assert np.abs(image[0] - image[1]).mean() > 0.05  # the two sides do not look alike


def test_points_outside_their_crops_are_no_targets(make_stack: Stacks, make_record: Records) -> None:
    slices = make_stack(Plane.AXIAL_T2, tilt=10.0)
    field = _field(make_record(Plane.AXIAL_T2, slices))
    normal = slices[0].geometry.normal
    points = field.origin[:, 1].copy()
    right, down = (
        array / np.linalg.norm(array, axis=-1, keepdims=True) for array in (field.right, field.down)
    )
    points[0] += 11.8 * right[0, 1] - 11.8 * down[0, 1]  # within 12 mm along both axes
    points[1] += 12.2 * right[1, 1]
    points[2] += (4.0 + 2.3) * normal  # 2.3 mm beyond the last slice: half a gap, and a bit
    points[4] += (4.0 + 2.7) * normal
    points[5] = np.nan
    kept = reachable_points(field, tf.constant(points.astype(np.float32))).numpy()
    is_kept = np.isfinite(kept).all(axis=-1)
    # 1, 4: out of reach; 5: nobody annotated; 6, 7: the level is unknown.
    assert np.flatnonzero(~is_kept).tolist() == [1, 4, 5, 6, 7]
    np.testing.assert_array_equal(kept[is_kept], points[is_kept].astype(np.float32))
