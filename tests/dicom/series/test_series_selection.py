from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.image_kinds import Component, DixonPart
from lumbar_tf.dicom.series.series_selection import (
    SeriesCandidate,
    SeriesDecision,
    SeriesHeader,
    is_sagittal,
    select_series,
)
from lumbar_tf.labels import Plane

SAGITTAL = SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 0.6, 0.6, 448, 448)
AXIAL = SliceGeometry((0, 0, 0), (1, 0, 0), (0, 1, 0), 0.6, 0.6, 320, 320)
CORONAL = SliceGeometry((0, 0, 0), (1, 0, 0), (0, 0, -1), 0.6, 0.6, 320, 320)
T1 = SeriesHeader(description="t1_tse", echo_time_ms=10.0, repetition_time_ms=600.0)
T2 = SeriesHeader(description="t2_tse", echo_time_ms=100.0, repetition_time_ms=3500.0)
STIR = replace(T2, description="t2_tirm", inversion_time_ms=160.0, echo_time_ms=45.0)


def _tilt(geometry: SliceGeometry, axis: int, degrees: float) -> SliceGeometry:
    """Rotates a slice about a patient axis."""
    angle = np.deg2rad(degrees)
    first, second = [index for index in range(3) if index != axis]
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    row, column = (
        tuple((turn @ item).tolist()) for item in (geometry.row_direction, geometry.column_direction)
    )
    return replace(geometry, row_direction=row, column_direction=column)


def _stack(geometry: SliceGeometry, count: int = 15, gap_mm: float = 4.0) -> list[SliceGeometry]:
    return [
        replace(geometry, position=tuple((geometry.normal * gap_mm * index).tolist()))
        for index in range(count)
    ]


def _facts(
    series_id: str, header: SeriesHeader, geometry: SliceGeometry = SAGITTAL, **stack: Any
) -> SeriesCandidate:
    return SeriesCandidate(series_id, header, _stack(geometry, **stack))


def _decide(header: SeriesHeader, geometry: SliceGeometry = SAGITTAL) -> SeriesDecision:
    return select_series([_facts("1", header, geometry)], {})["1"]


def _planes(*facts: SeriesCandidate, table: dict[str, Plane | None] | None = None) -> dict[str, Any]:
    """Returns the plane or the reason of each series."""
    decisions = select_series(facts, table or {})
    return {name: decision.plane or decision.reason for name, decision in decisions.items()}


def test_orientation_follows_the_normal() -> None:
    assert (is_sagittal(SAGITTAL), is_sagittal(AXIAL), is_sagittal(CORONAL)) == (True, False, None)


@pytest.mark.parametrize("degrees", [-59, -40, -20, 0, 20, 45, 59])
def test_obliques_belong_to_their_axis(degrees: float) -> None:
    """Rotation about x, as for a disc, turns an axial slice towards coronal; scoliosis rotates about y."""
    assert is_sagittal(_tilt(AXIAL, 0, degrees)) is False
    assert is_sagittal(_tilt(SAGITTAL, 2, degrees)) is True
    if abs(degrees) < 45:
        assert is_sagittal(_tilt(AXIAL, 1, degrees)) is False
        assert is_sagittal(_tilt(SAGITTAL, 1, degrees)) is True


@pytest.mark.parametrize("degrees", [-29, 0, 29])
def test_slices_further_than_sixty_degrees_from_both_axes_are_neither(degrees: float) -> None:
    assert is_sagittal(_tilt(CORONAL, 0, degrees)) is None
    assert _decide(T2, _tilt(CORONAL, 0, degrees)).reason is RejectReason.UNKNOWN_PLANE


@pytest.mark.parametrize(
    ("header", "geometry", "plane"),
    [
        (T1, SAGITTAL, Plane.SAGITTAL_T1),
        (T2, SAGITTAL, Plane.SAGITTAL_T2),
        (STIR, SAGITTAL, Plane.SAGITTAL_T2),
        (T2, AXIAL, Plane.AXIAL_T2),
        (SeriesHeader(protocol="L-Spine T2"), SAGITTAL, Plane.SAGITTAL_T2),
        (replace(T2, image_type=("DERIVED", "PRIMARY", "M", "NORM")), AXIAL, Plane.AXIAL_T2),
        (replace(T2, body_part="SPINE", study_description="MRI C-SPINE AND L-SPINE"), AXIAL, Plane.AXIAL_T2),
        (replace(T2, description="L-spine T2", body_part="CSPINE"), AXIAL, Plane.AXIAL_T2),
    ],
)
def test_ordinary_series_are_used(header: SeriesHeader, geometry: SliceGeometry, plane: Plane) -> None:
    assert _decide(header, geometry) == SeriesDecision(plane, None, "", ())


@pytest.mark.parametrize(
    ("header", "geometry", "reason"),
    [
        (replace(T2, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), SAGITTAL, RejectReason.LOCALIZER),
        (replace(T2, description="T2 haste loc"), SAGITTAL, RejectReason.LOCALIZER),
        (replace(T2, image_type=("ORIGINAL", "PRIMARY", "MPR")), AXIAL, RejectReason.DERIVED),
        (replace(T2, image_type=("DERIVED", "PRIMARY", "PROJECTION IMAGE")), AXIAL, RejectReason.DERIVED),
        (replace(T2, image_type=("DERIVED", "SECONDARY")), AXIAL, RejectReason.DERIVED),
        (replace(T2, image_type=("ORIGINAL", "PRIMARY", "DIFFUSION", "ADC")), AXIAL, RejectReason.DERIVED),
        (replace(T2, description="t2 sub"), AXIAL, RejectReason.DERIVED),
        (replace(T2, body_part="CSPINE"), SAGITTAL, RejectReason.NOT_LUMBAR),
        (replace(T2, study_description="MRI BRAIN"), SAGITTAL, RejectReason.NOT_LUMBAR),
        (
            replace(T2, description="t2 c-spine", study_description="MRI C AND L SPINE"),
            SAGITTAL,
            RejectReason.NOT_LUMBAR,
        ),
        (T1, AXIAL, RejectReason.UNKNOWN_WEIGHTING),
        (replace(T2, description="pd_tse"), SAGITTAL, RejectReason.UNKNOWN_WEIGHTING),
        (replace(T2, scanning_sequence=("GR",)), SAGITTAL, RejectReason.UNKNOWN_WEIGHTING),
        (replace(T2, scanning_sequence=("SE", "EP")), AXIAL, RejectReason.UNKNOWN_WEIGHTING),
        (replace(T2, acquisition_contrast="DIFFUSION"), AXIAL, RejectReason.UNKNOWN_WEIGHTING),
        (SeriesHeader(), SAGITTAL, RejectReason.UNKNOWN_WEIGHTING),
    ],
)
def test_series_that_are_not_graded_are_excluded(
    header: SeriesHeader, geometry: SliceGeometry, reason: RejectReason
) -> None:
    decision = _decide(header, geometry)
    assert decision.plane is None
    assert decision.reason is reason
    assert decision.message


def test_slices_of_several_orientations_are_a_localiser() -> None:
    scout = SeriesCandidate("1", T2, [SAGITTAL, AXIAL, CORONAL])
    assert _planes(scout) == {"1": RejectReason.LOCALIZER}
    blocks = SeriesCandidate("1", T2, [_tilt(AXIAL, 0, degrees) for degrees in (-30, -10, 0, 10, 35)])
    assert _planes(blocks) == {"1": Plane.AXIAL_T2}


def test_a_series_without_slices_is_excluded() -> None:
    assert _planes(SeriesCandidate("1", T2, [])) == {"1": RejectReason.UNKNOWN_PLANE}
    assert _planes(SeriesCandidate("1", T2, []), table={"1": Plane.AXIAL_T2}) == {"1": Plane.AXIAL_T2}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"header": STIR}),
        ({}, {"header": replace(T2, is_fat_suppressed=True)}),
        ({}, {"header": replace(T2, is_contrast=True)}),
        ({}, {"count": 9}),
        ({"header": STIR}, {"count": 3}),  # three slices 8 mm wide show no foramen
        ({"count": 30, "gap_mm": 2.0}, {"count": 15}),
        ({"count": 16, "gap_mm": 3.7}, {"count": 15, "gap_mm": 4.0}),  # 55.5 and 56 mm
        ({"geometry": replace(SAGITTAL, row_spacing_mm=0.4, column_spacing_mm=0.4)}, {}),
        ({"gap_mm": 4.01}, {"header": STIR, "count": 16}),
    ],
)
@pytest.mark.parametrize("ids", [("1", "2"), ("2", "1")])
def test_the_most_suitable_sagittal_series_is_selected(
    better: dict[str, Any], worse: dict[str, Any], ids: tuple[str, str]
) -> None:
    series = [_facts(name, **{"header": T2, **item}) for name, item in zip(ids, (better, worse))]
    assert _planes(*series) == {ids[0]: Plane.SAGITTAL_T2, ids[1]: RejectReason.LESS_SUITABLE}


def test_of_equal_series_the_smaller_id_is_selected_in_any_order() -> None:
    series = [_facts(name, T1) for name in ("2", "1", "3")]
    expected = {"1": Plane.SAGITTAL_T1, "2": RejectReason.LESS_SUITABLE, "3": RejectReason.LESS_SUITABLE}
    assert _planes(*series) == _planes(*series[::-1]) == expected


def test_all_axial_series_without_fat_suppression_are_used() -> None:
    fat_suppressed = _facts("3", replace(T2, description="t2_fs_tra"), AXIAL)
    plain = [_facts(name, T2, AXIAL) for name in ("1", "2")]
    kept = {"1": Plane.AXIAL_T2, "2": Plane.AXIAL_T2}
    assert _planes(*plain, fat_suppressed) == {**kept, "3": RejectReason.LESS_SUITABLE}
    assert _planes(fat_suppressed) == {"3": Plane.AXIAL_T2}


def test_of_axial_contrasts_of_one_acquisition_in_several_series_one_is_used() -> None:
    early = replace(T2, echo_time_ms=60.0)
    in_phase = replace(T2, description="t2_dixon_tra_in", dixon_part=DixonPart.IN_PHASE)
    kept, left_out = Plane.AXIAL_T2, RejectReason.LESS_SUITABLE
    for worse in (early, in_phase):
        for ids in (("1", "2"), ("2", "1")):
            series = [_facts(ids[0], T2, AXIAL), _facts(ids[1], worse, AXIAL, count=9)]
            assert _planes(*series) == _planes(*series[::-1]) == {ids[0]: kept, ids[1]: left_out}
    # Other places, and repetitions of the same contrast, are used.
    elsewhere = replace(AXIAL, position=(0.0, 0.0, 2.0))
    moved = [replace(item, position=(0.0, 0.0, item.position[2] + 2.0)) for item in _stack(elsewhere)]
    assert _planes(_facts("1", T2, AXIAL), SeriesCandidate("2", early, moved)) == {"1": kept, "2": kept}
    assert _planes(_facts("1", T2, AXIAL), _facts("2", T2, AXIAL)) == {"1": kept, "2": kept}


def test_the_table_overrides_headers_and_contradictions_are_noted() -> None:
    table = {"1": Plane.AXIAL_T2, "2": Plane.SAGITTAL_T2, "3": None, "4": Plane.SAGITTAL_T1}
    series = [_facts("1", T2, CORONAL), _facts("2", T1), _facts("3", T2), _facts("4", SeriesHeader())]
    decisions = select_series(series, table)
    assert {name: decision.plane for name, decision in decisions.items()} == table
    assert decisions["3"].reason is RejectReason.LEFT_OUT_BY_MAP
    flagged = {name for name, decision in decisions.items() if decision.notes}
    assert flagged == {"1", "2"}
    assert decisions["1"].notes[0][0] is RejectReason.PLANE_CONTRADICTION


@pytest.mark.parametrize(
    "values", [{"component": Component.PHASE}, {"dixon_part": DixonPart.FAT}, {"b_value": 800.0}]
)
def test_a_listed_series_that_is_never_graded_otherwise_is_noted(values: dict[str, Any]) -> None:
    decision = select_series([_facts("1", replace(T2, **values))], {"1": Plane.SAGITTAL_T2})["1"]
    assert decision.plane is Plane.SAGITTAL_T2
    assert [reason for reason, _ in decision.notes] == [RejectReason.PLANE_CONTRADICTION]


def test_all_series_of_the_table_are_used_and_exclude_others() -> None:
    table: dict[str, Plane | None] = {"8": Plane.SAGITTAL_T1, "9": Plane.SAGITTAL_T1}
    series = [_facts(name, T1) for name in ("1", "8", "9")] + [_facts("2", T2)]
    assert _planes(*series, table=table) == {
        "1": RejectReason.LESS_SUITABLE,
        "8": Plane.SAGITTAL_T1,
        "9": Plane.SAGITTAL_T1,
        "2": Plane.SAGITTAL_T2,
    }


def test_a_description_that_the_timing_contradicts_is_used_with_a_note() -> None:
    decision = _decide(replace(T2, description="t1_tse_sag"))
    assert decision.plane is Plane.SAGITTAL_T1
    assert [reason for reason, _ in decision.notes] == [RejectReason.WEIGHTING_CONTRADICTION]


def test_messages_contain_no_text_of_the_header() -> None:
    header = replace(T2, description="Doe t2 loc", protocol="Doe", study_description="Doe", body_part="Doe")
    for item in (header, replace(header, description="Doe sub"), replace(header, description="Doe pd brain")):
        assert "Doe" not in _decide(item).message
