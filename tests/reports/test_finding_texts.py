from dataclasses import replace

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Condition, Flag, Level, Plane, Side, finding_index
from lumbar_tf.reports.finding_texts import (
    COLUMNS,
    FLAG_TEXTS,
    describe_position,
    format_levels,
    format_slice_numbers,
    list_warnings,
)
from tests.reports.reported_study import make_result, make_study

X, Z = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


def test_the_patients_right_is_at_the_left_of_the_page_and_the_canal_between() -> None:
    assert [condition.side for condition in COLUMNS] == [Side.RIGHT, Side.RIGHT, None, Side.LEFT, Side.LEFT]
    assert set(COLUMNS) == set(Condition)
    assert [condition.family for condition in COLUMNS] == [
        condition.family for condition in reversed(COLUMNS)
    ]


def test_every_flag_has_texts() -> None:
    assert set(FLAG_TEXTS) == set(Flag)


def test_a_complete_study_has_no_warnings() -> None:
    assert list_warnings(make_study(), make_result()) == []


def test_warnings_give_levels_and_counts() -> None:
    result, study = make_result(), make_study()
    flags, probability = result.flags.copy(), result.probability.copy()
    places = {flag: place for place, flag in enumerate(Flag)}
    uncertain = [row for row, finding in enumerate(FINDINGS) if finding.level in (Level.L1_L2, Level.L5_S1)]
    flags[uncertain, places[Flag.LEVEL_SHIFT]] = True
    flags[15:, places[Flag.NO_AXIAL_T2]] = True
    flags[15:, places[Flag.PRIOR_ONLY]] = True
    flags[5, places[Flag.NO_SAGITTAL_T1]] = True
    flags[7, places[Flag.NO_LANDMARK]] = True
    probability[24] = np.nan
    planes = {plane: slices for plane, slices in study.planes.items() if plane is not Plane.AXIAL_T2}
    warnings = list_warnings(
        replace(study, planes=planes), replace(result, flags=flags, probability=probability)
    )
    assert warnings == [
        "10 findings were predicted without any image: the probabilities are the general frequencies of the "
        "grades and carry no information about this patient.",
        "Level uncertain at L1/L2, L5/S1: the points may lie on the disc above or below. Count the vertebrae "
        "before using these grades.",
        "Sagittal T1 does not show 1 finding (L1/L2), which was predicted without it.",
        "This study has no usable Axial T2 series. 10 findings were predicted without it.",
        "No point was found for 1 finding (L3/L4).",
        "1 finding has no result.",
    ]


@pytest.mark.parametrize(
    ("plane", "centre", "normal", "text"),
    [
        (Plane.SAGITTAL_T1, (18.0, 3, 50), X, "15 mm left of the canal"),
        (Plane.SAGITTAL_T1, (-9.0, 3, 50), X, "12 mm right of the canal"),
        (Plane.SAGITTAL_T2, (3.4, 3, 50), X, "through the canal"),
        (Plane.AXIAL_T2, (0.0, 3, 4), Z, "4 mm above L4/L5"),
        (Plane.AXIAL_T2, (0.0, 3, -26), Z, "4 mm above L5/S1"),
        (Plane.AXIAL_T2, (0.0, 3, -33), Z, "3 mm below L5/S1"),
        (Plane.AXIAL_T2, (0.0, 3, 0.2), Z, "through L4/L5"),
    ],
)
def test_a_slice_is_described_relative_to_the_canal_and_the_discs(
    plane: Plane, centre: tuple, normal: np.ndarray, text: str
) -> None:
    levels = {Level.L4_L5: np.array([3.0, 0, 0]), Level.L5_S1: np.array([3.0, 0, -30])}
    assert describe_position(plane, np.array(centre), normal, levels) == text
    assert describe_position(plane, np.array(centre), normal, {}) == ""


def test_levels_and_slices_are_formatted_briefly() -> None:
    rows = [finding_index(Condition.SPINAL_CANAL_STENOSIS, level) for level in Level]
    assert format_levels(rows) == "all levels"
    assert format_levels(rows[1:3]) == "L2/L3, L3/L4"
    assert format_slice_numbers([]) == ""
    assert format_slice_numbers([3, 1, 0, 3]) == "1-2, 4"
