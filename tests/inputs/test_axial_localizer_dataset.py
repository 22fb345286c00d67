from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.axial_localizer_dataset import (
    make_axial_localizer_eval_dataset,
    make_axial_localizer_train_dataset,
)
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import Plane
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.training.axial_slice_accuracy import measure_slice_choice

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
    """Three studies of seven slices 4 mm apart, and one without any."""

    source: RecordSource
    annotated: dict[str, np.ndarray]
    slices: list[Slice]

    def near(self, study: str, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
        """Level points of a study between its annotated sides, moved; float32 [25, 3]."""
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


def test_training_looks_where_the_sagittal_localizer_points_with_all_its_errors(cohort: Cohort) -> None:
    """Not at the annotated level points; only where the localizer found nothing do they count."""

    def images(points: dict[str, np.ndarray]) -> np.ndarray:
        evaluation = make_axial_localizer_eval_dataset(cohort.source, points, config=CONFIG, batch_studies=3)
        ((inputs, _, _),) = evaluation
        return inputs["image"].numpy()

    points = {study: cohort.near(study, (2.0, -1.0, 1.5)) for study in cohort.annotated}
    for study in points:
        points[study][[2, 17, 22]] = np.nan
    # Of the first level there is no point either: it lies between two sides, of which one is not annotated.
    complete = {
        study: np.where(np.isfinite(each), each, cohort.annotated[study][np.arange(25) % 5])
        for study, each in points.items()
    }
    ((trained, _),) = _train(cohort, points).take(1)
    for image in trained["image"].numpy():
        assert min(np.abs(image - each).max() for each in images(complete)) < 1e-4
    assert not images(points)[:, 4:6].any()  # in evaluation what was not found stays so
    # A ladder two levels off shows none of the true points. Only the third level, which gets the first one's
    # point, has none and falls back on the annotated one.
    wrong = {study: np.roll(cohort.near(study), 2, axis=0) for study in cohort.annotated}
    narrow = CONFIG.model_copy(update={"num_slices": 1})
    ((_, targets),) = _train(cohort, wrong, config=narrow).take(1)
    assert np.isnan(np.delete(targets, [4, 5], axis=1)).all()
    assert np.isfinite(targets[:, 4:6]).all()


def test_jitter_moves_each_crop_and_one_seed_gives_one_jitter(cohort: Cohort) -> None:
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


def test_a_run_taken_up_at_an_epoch_sees_what_an_undisturbed_one_sees(cohort: Cohort) -> None:
    points = {study: cohort.near(study) for study in cohort.annotated}
    augmented = CONFIG.training.model_copy(update={"augmentation": AugmentationConfig(shift_mm=2)})
    config = CONFIG.model_copy(update={"training": augmented})
    whole = [inputs["image"].numpy() for inputs, _ in _train(cohort, points, config=config).take(4)]
    # Four studies in batches of two: an epoch is two batches.
    later = _train(cohort, points, config=config, start_epoch=1).take(2)
    for before, (inputs, _) in zip(whole[2:], later, strict=True):
        np.testing.assert_array_equal(inputs["image"], before)


def test_the_slice_that_a_point_leads_to_is_compared_with_the_annotators(cohort: Cohort) -> None:
    normal = np.float32(cohort.slices[0].geometry.normal)

    def measure(steps: float) -> tuple[float, float]:
        moved = {
            study: points + normal * np.float32(4.0 * steps) for study, points in cohort.annotated.items()
        }
        choice = measure_slice_choice(cohort.source, moved)
        # Nine annotated points in each of the three studies that have slices.
        assert (choice.num_points, choice.num_withheld) == (27, 0)
        return choice.same, choice.within_one

    assert measure(0.0) == measure(0.45) == (1.0, 1.0)
    assert measure(0.55) == measure(-1.4) == (0.0, 1.0)
    same, within_one = measure(1.6)  # two slices up; the first level is on the last but one already
    assert same == 0.0
    assert within_one == pytest.approx(1 / 9)
    unknown = {"10": np.full((25, 3), np.nan, np.float32)}
    assert measure_slice_choice(cohort.source, unknown).num_withheld == 27
    assert "27 withheld" in str(measure_slice_choice(cohort.source, unknown))
