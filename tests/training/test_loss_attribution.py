"""The attribution of a grader's loss names the planted cause: points moved in the slice, or off it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import CropConfig
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_eval_dataset, make_placement_dataset
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import Condition, Family, Level, Plane, finding_index
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.training.loss_attribution import (
    LossAttribution,
    attribute_loss,
    mean_attribution,
    read_attribution,
)

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


def _attribute(source: RecordSource, moved_mm: tuple[float, float, float]) -> LossAttribution:
    """The attribution of a grader that is certain at the annotated points, with predicted points moved."""
    plain = make_grader_eval_dataset(source, {"a": _annotated()}, layout=LAYOUT, crop=CROP, batch_studies=1)
    ((inputs, _, _),) = plain
    wanted = inputs["image"].numpy()[0, :, 0, 7:9, 7:9].mean(axis=(-2, -1))
    points = _annotated() + np.float32(moved_mm)
    attribution = attribute_loss(_BrightnessGrader(wanted, 40.0), _dataset(source, points), LAYOUT)
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
    found = attribute_loss(_BrightnessGrader(np.zeros(5), 1.0), _dataset(source, points), LAYOUT)
    assert found is not None and found.num_findings == 4
    points[CANAL] = np.nan
    assert attribute_loss(_BrightnessGrader(np.zeros(5), 1.0), _dataset(source, points), LAYOUT) is None


def test_a_sentence_names_the_parts_and_folds_are_averaged_by_findings() -> None:
    first = LossAttribution(100, 0.500, 0.510, 0.535, (80, 15, 3, 2))
    assert str(first).startswith(
        "0.035 of 0.535 is lost to points: 0.010 in the slice, 0.025 to the choice of the slice, which is "
        "the annotated one for 80.0% of 100 findings, one off for 15.0%"
    )
    second = LossAttribution(300, 0.6, 0.6, 0.6, (300, 0, 0, 0))
    assert str(second).startswith("nothing of 0.600 is lost to points: 0.000 in the slice")
    both = mean_attribution([first, second])
    assert both is not None and both.at_annotated == pytest.approx(0.575)
    assert (both.num_findings, both.slice_offsets) == (400, (380, 15, 3, 2))
    assert mean_attribution([]) is None
    content = json.loads(json.dumps(asdict(first)))
    assert read_attribution(content) == first
