from dataclasses import replace

import numpy as np
import pytest

from lumbar_tf.inputs.crop_layout import (
    CropLayout,
    anchor_points,
    complete_points,
    level_points,
    localizer_rows,
    refine_points,
)
from lumbar_tf.labels import FINDINGS, Condition, Family, Level, Plane, Side, finding_index

CANAL = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))
FORAMINA = CropLayout(Plane.SAGITTAL_T1, (Family.FORAMINAL,))
AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
CANAL_TOO = CropLayout(Plane.SAGITTAL_T1, (Family.CANAL, Family.FORAMINAL))


def _points() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 40, (25, 3)).astype(np.float32)


def test_canal_targets_have_one_crop_per_level() -> None:
    assert CANAL.sides == (None,) * 5
    assert CANAL.rows == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(CANAL.row_views, np.eye(5))


def test_auxiliary_families_have_rows_but_are_no_targets() -> None:
    layout = CropLayout(Plane.SAGITTAL_T1, (Family.CANAL,), (Family.FORAMINAL,))
    assert layout.sides == (Side.LEFT, Side.RIGHT) * 5
    assert layout.rows == CANAL_TOO.rows
    assert [layout.rows[place] for place in layout.target_places] == list(CANAL.rows)
    assert CANAL_TOO.target_places == tuple(range(15))


@pytest.mark.parametrize("layout", [FORAMINA, AXIAL, CANAL_TOO])
def test_rows_are_shown_by_the_crops_of_their_level_and_side(layout: CropLayout) -> None:
    assert layout.sides == (Side.LEFT, Side.RIGHT) * 5
    assert [FINDINGS[row].condition.family in layout.targets for row in range(25)] == [
        row in layout.rows for row in range(25)
    ]
    for row, views in zip(layout.rows, layout.row_views, strict=True):
        finding = FINDINGS[row]
        crops = [crop for crop, is_shown in enumerate(views) if is_shown]
        assert {list(Level)[crop // 2] for crop in crops} == {finding.level}
        sides = [layout.sides[crop] for crop in crops]
        assert sides == ([finding.condition.side] if finding.condition.side else [Side.LEFT, Side.RIGHT])


def test_level_without_canal_point_is_the_midpoint_of_its_foramina() -> None:
    points = _points()
    points[1] = np.nan
    points[2] = np.nan
    left = finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L2_L3)
    right = finding_index(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, Level.L2_L3)
    points[left + 1] = np.nan
    levels = level_points(points).numpy()
    np.testing.assert_array_equal(levels[[0, 3, 4]], points[[0, 3, 4]])
    np.testing.assert_allclose(levels[1], (points[left] + points[right]) / 2, rtol=1e-6)
    assert np.isnan(levels[2]).all()


def test_sagittal_t1_anchors_are_foramina_and_axial_anchors_are_levels() -> None:
    points = _points()
    foramina, levels = anchor_points(points, FORAMINA).numpy(), anchor_points(points, AXIAL).numpy()
    for place, level in enumerate(Level):
        for side, condition in enumerate(
            (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING)
        ):
            np.testing.assert_array_equal(foramina[2 * place + side], points[finding_index(condition, level)])
            np.testing.assert_array_equal(levels[2 * place + side], points[place])
    np.testing.assert_array_equal(anchor_points(points, CANAL), points[:5])
    np.testing.assert_array_equal(anchor_points(np.stack([points, points]), FORAMINA)[1], foramina)


def test_localizer_rows_recover_the_outputs_of_complete_points() -> None:
    rng = np.random.default_rng(0)
    canal, foramina = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 10, 3))
    canal, foramina = canal.astype(np.float32), foramina.astype(np.float32)
    canal[0, 2] = np.nan
    points = complete_points(canal, foramina).numpy()
    np.testing.assert_array_equal(points[1][list(localizer_rows(Plane.SAGITTAL_T2))], canal[1])
    np.testing.assert_array_equal(points[1][list(localizer_rows(Plane.SAGITTAL_T1))], foramina[1])
    np.testing.assert_allclose(points[0, 2], foramina[0, 4:6].mean(axis=0), rtol=1e-6)
    # Subarticular findings are looked for at the level points.
    np.testing.assert_array_equal(points[:, 15:20], points[:, :5])
    np.testing.assert_array_equal(points[:, 20:25], points[:, :5])


def test_one_sagittal_plane_is_enough() -> None:
    canal, foramina = np.ones((1, 5, 3), np.float32), np.ones((1, 10, 3), np.float32)
    assert np.isnan(complete_points(canal, None)[0, 5:15]).all()
    assert np.isfinite(complete_points(canal, None)[0, 15:]).all()
    assert np.isfinite(complete_points(None, foramina)).all()
    with pytest.raises(ValueError, match="must be given"):
        complete_points(None, None)


@pytest.mark.parametrize(
    ("plane", "family"), [(Plane.SAGITTAL_T1, Family.FORAMINAL), (Plane.AXIAL_T2, Family.SUBARTICULAR)]
)
def test_localizer_rows_go_level_by_level_and_left_before_right(plane: Plane, family: Family) -> None:
    findings = [FINDINGS[row] for row in localizer_rows(plane)]
    assert [finding.level for finding in findings] == [level for level in Level for _ in range(2)]
    assert [finding.condition.side for finding in findings] == [Side.LEFT, Side.RIGHT] * 5
    assert {finding.condition.family for finding in findings} == {family}


def test_refined_points_replace_the_subarticular_rows_only() -> None:
    rng = np.random.default_rng(1)
    levels = complete_points(rng.normal(size=(2, 5, 3)).astype(np.float32), None)
    found = rng.normal(size=(2, 10, 3)).astype(np.float32)
    found[1, 6:8] = np.nan  # no slice holds the fourth level
    points = refine_points(levels, found).numpy()
    np.testing.assert_array_equal(points[:, :15], levels[:, :15])
    for place, level in enumerate(Level):
        left = finding_index(Condition.LEFT_SUBARTICULAR_STENOSIS, level)
        right = finding_index(Condition.RIGHT_SUBARTICULAR_STENOSIS, level)
        for study in range(2):
            expected = found[study, 2 * place : 2 * place + 2]
            if study == 1 and place == 3:
                expected = np.stack([levels[1, 3]] * 2)
            np.testing.assert_array_equal(points[study, [left, right]], expected)


def test_axial_crops_can_be_anchored_at_subarticular_points() -> None:
    points = _points()
    anchors = anchor_points(points, replace(AXIAL, anchor="subarticular")).numpy()
    for place, level in enumerate(Level):
        for side, condition in enumerate(
            (Condition.LEFT_SUBARTICULAR_STENOSIS, Condition.RIGHT_SUBARTICULAR_STENOSIS)
        ):
            np.testing.assert_array_equal(anchors[2 * place + side], points[finding_index(condition, level)])
