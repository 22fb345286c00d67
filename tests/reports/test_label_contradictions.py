import numpy as np
import pytest

from lumbar_tf.labels import (
    FINDINGS,
    MISSING_LABEL,
    NUM_FINDINGS,
    Condition,
    Level,
    Plane,
    Side,
    finding_index,
)
from lumbar_tf.reports.label_contradictions import Contradiction, find_contradictions

CANAL = Condition.SPINAL_CANAL_STENOSIS


@pytest.fixture
def points() -> np.ndarray:
    """A point for each finding, as anatomy has it: LPS mm [25, 3]."""
    sides = {None: 0.0, Side.LEFT: 12.0, Side.RIGHT: -12.0}
    return np.array(
        [
            [sides[finding.condition.side], 5.0, -35.0 * list(Level).index(finding.level)]
            for finding in FINDINGS
        ],
        np.float32,
    )


@pytest.fixture
def planes() -> dict[int, Plane]:
    return {index: finding.condition.family.spec.graded_on[0] for index, finding in enumerate(FINDINGS)}


@pytest.fixture
def labels() -> np.ndarray:
    return np.zeros(NUM_FINDINGS, np.int8)


def test_a_consistent_study_has_no_contradictions(
    points: np.ndarray, planes: dict, labels: np.ndarray
) -> None:
    assert find_contradictions(labels, points, planes) == ()
    assert find_contradictions(None, points, planes) == ()


def test_a_study_without_points_has_no_contradictions(points: np.ndarray, labels: np.ndarray) -> None:
    assert find_contradictions(labels, np.full_like(points, np.nan), {}) == ()


def test_a_grade_without_a_point_and_a_point_without_a_grade(
    points: np.ndarray, planes: dict, labels: np.ndarray
) -> None:
    points[3] = np.nan
    labels[7] = MISSING_LABEL
    del planes[3]
    assert find_contradictions(labels, points, planes) == (
        (Contradiction.LABEL_WITHOUT_POINT, FINDINGS[3].name),
        (Contradiction.POINT_WITHOUT_LABEL, FINDINGS[7].name),
    )


def test_a_canal_point_on_sagittal_t1_is_a_contradiction(
    points: np.ndarray, planes: dict, labels: np.ndarray
) -> None:
    planes[finding_index(CANAL, Level.L2_L3)] = Plane.SAGITTAL_T1
    ((kind, message),) = find_contradictions(labels, points, planes)
    assert kind is Contradiction.POINT_ON_OTHER_PLANE
    assert message == "spinal_canal_stenosis_l2_l3 is annotated on sagittal_t1"


def test_swapped_sides_are_a_contradiction(points: np.ndarray, planes: dict, labels: np.ndarray) -> None:
    left = finding_index(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)
    right = finding_index(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L4_L5)
    points[[left, right]] = points[[right, left]]
    assert find_contradictions(labels, points, planes) == (
        (Contradiction.SIDES_SWAPPED, "left_subarticular_stenosis_l4_l5 by 24.0 mm"),
    )


def test_swapped_levels_are_a_contradiction(points: np.ndarray, planes: dict, labels: np.ndarray) -> None:
    upper, lower = finding_index(CANAL, Level.L3_L4), finding_index(CANAL, Level.L4_L5)
    points[[upper, lower]] = points[[lower, upper]]
    assert find_contradictions(labels, points, planes) == (
        (Contradiction.LEVELS_OUT_OF_ORDER, "spinal_canal_stenosis_l3_l4 by 35.0 mm"),
    )


def test_every_contradiction_has_a_title() -> None:
    assert len({kind.title for kind in Contradiction}) == len(Contradiction)
