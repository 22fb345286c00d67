"""The attribution of a grader's loss names the planted cause: points in the slice, off it, or labels."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import CropConfig
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.ensemble.loss_attribution import LossAttribution, attribute_loss
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_eval_dataset, make_placement_dataset
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import Condition, Family, Level, Plane, finding_index
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.training.placement_grading import grade_placements

CROP = CropConfig(side_mm=16, side_px=16, num_slices=1, max_distance_mm=30)
LAYOUT = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))
CANAL = [finding_index(Condition.SPINAL_CANAL_STENOSIS, level) for level in Level]
GAP_MM = 4.0
#: Brightness of the annotated place; it changes by `STEP` a slice and by `SLOPE` a millimetre downwards.
STEP, SLOPE = 200.0, 10.0


class _BrightnessGrader:
    """Answers Normal/Mild with more certainty, the nearer the crop's centre is to a brightness."""

    def __init__(self, wanted: np.ndarray, scale: float) -> None:
        self._wanted, self._scale = tf.constant(wanted, tf.float32), scale

    def __call__(self, inputs: dict[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        assert not training
        centre = tf.reduce_mean(inputs["image"][:, :, 0, 7:9, 7:9], axis=(-2, -1))
        gap = tf.abs(centre - self._wanted) * self._scale
        return tf.stack([2.0 - gap, tf.zeros_like(gap), tf.zeros_like(gap)], axis=-1)


def _annotated() -> np.ndarray:
    """Five points in the middle slice, from top to bottom; no other point."""
    points = np.full((25, 3), np.nan, np.float32)
    points[CANAL] = [(0.0, 0.0, 40.0 - 20.0 * level) for level in range(5)]
    return points


def _write_study(folder: Path) -> RecordSource:
    """Writes a sagittal study whose brightness tells slice and height."""
    slices = []
    for number in range(9):
        geometry = SliceGeometry(
            (GAP_MM * (number - 4), -64.0, 64.0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 128, 128
        )
        rows = SLOPE * np.arange(128, dtype=np.float32)[:, np.newaxis] + STEP * number
        slices.append(Slice(geometry, np.repeat(rows, 128, axis=1), "1", number + 1))
    path = folder / "shard"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(
            encode_plane("a", LAYOUT.plane, slices, labels=np.zeros(25, np.int64), points=_annotated())
        )
    return RecordSource((path,), ("a",))


def _dataset(source: RecordSource, points: np.ndarray) -> tf.data.Dataset:
    return make_placement_dataset(source, {"a": points}, layout=LAYOUT, crop=CROP, batch_studies=1)


def _loss(model: object, dataset: tf.data.Dataset) -> LossAttribution | None:
    graded = grade_placements(model, dataset, LAYOUT)
    return attribute_loss(graded.labels, graded.probabilities, graded.slice_offsets)


def _attribute(source: RecordSource, moved_mm: tuple[float, float, float]) -> LossAttribution:
    """The attribution of a grader that is certain at the annotated points, with predicted points moved."""
    plain = make_grader_eval_dataset(source, {"a": _annotated()}, layout=LAYOUT, crop=CROP, batch_studies=1)
    ((inputs, _, _),) = plain
    wanted = inputs["image"].numpy()[0, :, 0, 7:9, 7:9].mean(axis=(-2, -1))
    points = _annotated() + np.float32(moved_mm)
    attribution = _loss(_BrightnessGrader(wanted, 40.0), _dataset(source, points))
    assert attribution is not None
    return attribution


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RecordSource:
    return _write_study(tmp_path_factory.mktemp("study"))


def test_points_at_their_places_cost_nothing(source: RecordSource) -> None:
    found = _attribute(source, (0.0, 0.0, 0.0))
    assert found.at_annotated == found.in_annotated_slice == found.at_predicted
    # Softmax of (2, 0, 0).
    assert found.at_annotated == pytest.approx(np.log(1 + 2 * np.exp(-2)), abs=1e-3)
    assert (found.num_findings, found.slice_offsets) == (5, (5, 0, 0, 0))


def test_points_moved_in_the_slice_are_the_culprit(source: RecordSource) -> None:
    found = _attribute(source, (0.0, 3.0, 8.0))
    assert found.in_annotated_slice > found.at_annotated + 0.1
    assert found.at_predicted == pytest.approx(found.in_annotated_slice, abs=1e-6)
    assert found.slice_offsets == (5, 0, 0, 0)


@pytest.mark.parametrize(("slices", "offsets"), [(1, (0, 5, 0, 0)), (-2, (0, 0, 5, 0)), (4, (0, 0, 0, 5))])
def test_points_in_another_slice_are_the_culprit(
    source: RecordSource, slices: int, offsets: tuple[int, ...]
) -> None:
    found = _attribute(source, (slices * GAP_MM + 0.5, 0.0, 0.0))
    assert found.in_annotated_slice == pytest.approx(found.at_annotated, abs=1e-6)
    assert found.at_predicted > found.in_annotated_slice + 0.1
    assert found.slice_offsets == offsets


def test_the_crops_are_those_of_the_points(source: RecordSource) -> None:
    moved = _annotated() + np.float32((5.0, 2.0, -3.0))
    in_slice = _annotated() + np.float32((0.0, 2.0, -3.0))
    ((inputs, _, _),) = _dataset(source, moved)
    thirds = tf.split(inputs["image"], 3, axis=1)
    for third, points in zip(thirds, (_annotated(), in_slice, moved), strict=True):
        alone = make_grader_eval_dataset(source, {"a": points}, layout=LAYOUT, crop=CROP, batch_studies=1)
        ((expected, _, _),) = alone
        np.testing.assert_allclose(third, expected["image"], atol=1e-5)


def test_findings_without_both_points_are_left_out(source: RecordSource) -> None:
    points = _annotated()
    points[CANAL[1]] = np.nan
    found = _loss(_BrightnessGrader(np.zeros(5), 1.0), _dataset(source, points))
    assert found is not None and found.num_findings == 4
    graded = grade_placements(_BrightnessGrader(np.zeros(5), 1.0), _dataset(source, points), LAYOUT)
    is_graded = np.isfinite(graded.probabilities).all(axis=-1)
    assert np.flatnonzero(is_graded.all(axis=(0, 1))).tolist() == [CANAL[k] for k in (0, 2, 3, 4)]
    assert not is_graded.any(axis=0)[0, CANAL[1]]
    points[CANAL] = np.nan
    assert _loss(_BrightnessGrader(np.zeros(5), 1.0), _dataset(source, points)) is None


#: Studies whose patches show the grade of each finding: each grade for a third of the studies at each level.
STUDIES = tuple(f"s{number}" for number in range(12))
GRADES = np.array([[(study + level) % 3 for level in range(5)] for study in range(len(STUDIES))])


class _PatchGrader:
    """Is certain of the grade whose brightness the crop's centre has, and knows nothing elsewhere."""

    def __init__(self, brightness: np.ndarray) -> None:
        self._brightness = tf.constant(brightness, tf.float32)

    def __call__(self, inputs: dict[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        assert not training
        centre = tf.reduce_mean(inputs["image"][:, :, 0, 7:9, 7:9], axis=(-2, -1))
        half_step = (self._brightness[2] - self._brightness[0]) / 4
        is_shown = tf.abs(centre[..., tf.newaxis] - self._brightness) < half_step
        return 6.0 * tf.cast(is_shown, tf.float32)


def _patch_grader(source: RecordSource) -> _PatchGrader:
    points = dict.fromkeys(STUDIES, _annotated())
    plain = make_grader_eval_dataset(source, points, layout=LAYOUT, crop=CROP, batch_studies=12)
    ((inputs, _, _),) = plain
    centres = inputs["image"].numpy()[:, :, 0, 7:9, 7:9].mean(axis=(-2, -1))
    return _PatchGrader(np.array([centres[grade == GRADES].mean() for grade in range(3)]))


def _write_patches(folder: Path, grades: np.ndarray) -> RecordSource:
    """Writes studies with a patch of 10 mm around each annotated point, in its slice alone."""
    path = folder / "shard"
    points = _annotated()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for study, shown, labelled in zip(STUDIES, GRADES, grades, strict=True):
            slices = []
            for number in range(9):
                geometry = SliceGeometry(
                    (GAP_MM * (number - 4), -64.0, 64.0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 128, 128
                )
                pixels = np.zeros((128, 128), np.float32)
                pixels[:, :20] = 400.0  # the brightest part of the study
                if number == 4:
                    for row, grade in zip(points[CANAL], shown, strict=True):
                        line, column = round(64 - row[2]), round(64 + row[1])
                        pixels[line - 5 : line + 6, column - 5 : column + 6] = 100.0 * (grade + 1)
                slices.append(Slice(geometry, pixels, "1", number + 1))
            labels = np.full(25, -1, np.int64)
            labels[CANAL] = labelled
            writer.write(encode_plane(study, LAYOUT.plane, slices, labels=labels, points=points))
    return RecordSource((path,), STUDIES)


@pytest.mark.parametrize(
    ("moved_mm", "is_shuffled", "cause"),
    [
        ((0.0, 0.0, 0.0), False, ""),
        ((0.0, 0.0, 8.0), False, "the localizer's error within the slice"),
        ((2 * GAP_MM, 0.0, 0.0), False, "the choice of the slice"),
        ((2 * GAP_MM, 0.0, 8.0), False, "the localizer's error within the slice"),
        ((0.0, 0.0, 0.0), True, "labels, crops or the grader, not the points"),
    ],
    ids=["healthy", "moved 8 mm", "two slices off", "both", "labels of other studies"],
)
def test_the_cause_of_a_sabotage_is_named(
    tmp_path: Path, moved_mm: tuple[float, float, float], is_shuffled: bool, cause: str
) -> None:
    order = np.random.default_rng(1).permutation(len(STUDIES)) if is_shuffled else slice(None)
    source = _write_patches(tmp_path, GRADES[order])
    points = dict.fromkeys(STUDIES, _annotated() + np.float32(moved_mm))
    dataset = make_placement_dataset(source, points, layout=LAYOUT, crop=CROP, batch_studies=4)
    found = _loss(_patch_grader(source), dataset)
    assert found is not None and found.num_findings == 60
    assert found.cause.partition(":")[0] == cause
    assert found.prior is not None and (found.at_annotated > found.prior) == is_shuffled
    assert is_shuffled or (found.at_annotated < 0.1 and found.auc == 1.0)
