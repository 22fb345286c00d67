"""Outlines are held against SimpleITK, and against what a grader is given when slices are blanked."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tensorflow as tf

from lumbar_tf.config.loading import dump_config, load_plane_config
from lumbar_tf.dicom.study import Slice, Study, arrange_slices
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import study_crops
from lumbar_tf.labels import FINDINGS, Condition, Family, Level, Plane, finding_index
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines, find_crop_outlines, read_plane_configs
from lumbar_tf.prediction.pipeline import encode_study
from lumbar_tf.records.cohort import open_cohort, read_cohort_study
from lumbar_tf.records.parsing import parse_example

CONFIGS = {
    plane: load_plane_config(
        Path(__file__).resolve().parents[2] / "configs" / f"{plane.value}.yaml",
        overrides=["grader.crop.num_slices=3", "grader.crop.side_mm=44"],
    )
    for plane in Plane
}


@pytest.fixture(scope="module")
def given(phantom_cohort: Path) -> tuple[Study, np.ndarray]:
    """A study that has all planes and points."""
    with open_cohort([phantom_cohort]) as cohort:
        for job in cohort.jobs:
            study, points = read_cohort_study(job)
            if len(study.planes) == 3 and np.isfinite(points).all():
                return study, points
    raise AssertionError("no study of the cohort is whole")


@pytest.fixture(scope="module")
def evidence(given: tuple[Study, np.ndarray]) -> dict[Plane, PlaneCropOutlines]:
    study, points = given
    return find_crop_outlines(CONFIGS, encode_study(study), points)


def _ordered(study: Study, plane: Plane) -> list[Slice]:
    return [each for group in arrange_slices(study.planes[plane]) for each in group.slices]


def _image(each: Slice) -> sitk.Image:
    geometry = each.geometry
    image = sitk.GetImageFromArray(np.asarray(each.pixels, np.float32)[np.newaxis])
    normal = np.cross(geometry.row_direction, geometry.column_direction)
    image.SetOrigin(geometry.position)
    image.SetSpacing((geometry.column_spacing_mm, geometry.row_spacing_mm, 1.0))
    axes = [np.array(geometry.row_direction), np.array(geometry.column_direction), normal]
    image.SetDirection(np.stack(axes, axis=1).ravel().tolist())
    return image


@pytest.mark.parametrize("plane", list(Plane))
def test_an_outline_is_a_square_in_the_slice_around_the_points_foot(
    given: tuple[Study, np.ndarray], evidence: dict[Plane, PlaneCropOutlines], plane: Plane
) -> None:
    study, points = given
    slices = _ordered(study, plane)
    for row, outlines in evidence[plane].crops.items():
        finding = FINDINGS[row]
        # Sagittal crops lie around their own point; axial ones, of these configurations, around the level's.
        own = row if plane.is_sagittal else finding_index(Condition.SPINAL_CANAL_STENOSIS, finding.level)
        if finding.condition.family is Family.FORAMINAL and plane is not Plane.SAGITTAL_T1:
            continue
        point = points[own].astype(float)
        assert outlines
        for each in outlines:
            image = _image(slices[each.index])
            indices = [
                image.TransformPhysicalPointToContinuousIndex(c.astype(float).tolist()) for c in each.corners
            ]
            foot = image.TransformPhysicalPointToContinuousIndex(point.tolist())
            # In the slice, which is at 0, and around the foot.
            np.testing.assert_allclose([index[2] for index in indices], 0, atol=1e-3)
            np.testing.assert_allclose(np.mean(indices, axis=0)[:2], foot[:2], atol=1e-3)
            assert abs(foot[2]) == pytest.approx(each.distance_mm, abs=1e-3)
            edges = np.linalg.norm(np.roll(each.corners, -1, axis=0) - each.corners, axis=1)
            np.testing.assert_allclose(edges, 44, atol=1e-3)
        nearest = min(outlines, key=lambda each: each.distance_mm)
        feet = [
            abs(_image(each).TransformPhysicalPointToContinuousIndex(point.tolist())[2]) for each in slices
        ]
        assert nearest.distance_mm == pytest.approx(min(feet), abs=1e-3)
        # The others are counted from it, in the order of the stack.
        assert nearest.step == 0
        assert all(each.step == each.index - nearest.index for each in outlines)
        # The canal is looked at from both sides where the plane answers findings of a side, too.
        is_canal = finding.condition.family is Family.CANAL
        looks = {0, 1} if is_canal and CropLayout.of(CONFIGS[plane]).is_sided else {0}
        assert {each.look for each in outlines} == looks


@pytest.mark.parametrize("plane", list(Plane))
def test_the_outlined_pixels_are_all_that_the_graders_see(
    given: tuple[Study, np.ndarray], evidence: dict[Plane, PlaneCropOutlines], plane: Plane
) -> None:
    study, points = given
    layout, crop = CropLayout.of(CONFIGS[plane]), CONFIGS[plane].grader.crop
    seen = {each.index for outlines in evidence[plane].crops.values() for each in outlines}
    slices = _ordered(study, plane)
    assert 0 < len(seen) < len(slices)

    def crops(blanked: set[int]) -> np.ndarray:
        changed = [
            Slice(each.geometry, each.pixels * (place not in blanked), each.series_id, each.instance_number)
            for place, each in enumerate(slices)
        ]
        # The range that the crop is scaled by is the series' own, which blanking moves.
        record = parse_example(tf.constant(encode_study(Study("s", "", {plane: tuple(changed)}))[plane]))
        record = {**record, "series/low": tf.zeros_like(record["series/low"])}
        record["series/high"] = tf.fill(tf.shape(record["series/high"]), 1e4)
        return np.asarray(study_crops(record, tf.constant(points, tf.float32), layout, crop)["image"])

    whole = crops(set())
    assert whole.max() > 0
    np.testing.assert_array_equal(crops(set(range(len(slices))) - seen), whole)
    assert crops(seen).max() == 0


def test_left_findings_lie_at_the_patients_left(evidence: dict[Plane, PlaneCropOutlines]) -> None:
    crops = evidence[Plane.SAGITTAL_T1].crops
    for level in Level:
        left, right = (
            np.mean([each.corners[:, 0] for each in crops[finding_index(condition, level)]])
            for condition in (
                Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
                Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
            )
        )
        # LPS: +x is left.
        assert left > right + 10


def test_without_points_or_plane_there_are_no_outlines(given: tuple[Study, np.ndarray]) -> None:
    study, points = given
    examples = encode_study(study)
    del examples[Plane.AXIAL_T2]
    found = find_crop_outlines(CONFIGS, examples, np.full_like(points, np.nan))
    assert set(found) == {Plane.SAGITTAL_T1, Plane.SAGITTAL_T2}
    assert not any(outlines for seen in found.values() for outlines in seen.crops.values())


def test_a_description_gives_its_configurations_but_for_what_is_not_understood() -> None:
    planes = {plane.value: {"config": dump_config(config)} for plane, config in CONFIGS.items()}
    assert read_plane_configs({"planes": planes}) == CONFIGS
    planes["axial_t2"]["config"] += "from_the_future: 1\n"
    assert set(read_plane_configs({"planes": planes})) == {Plane.SAGITTAL_T1, Plane.SAGITTAL_T2}
    assert read_plane_configs({}) == {}
