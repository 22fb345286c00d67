from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.body_region import find_spine, is_elsewhere, shows_five_discs
from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.series_description_patterns import is_lumbar_study
from lumbar_tf.dicom.series.series_selection import SeriesCandidate, select_series
from lumbar_tf.interop.study_filter import StudyFilter
from lumbar_tf.labels import Plane

_SAGITTAL = SliceGeometry((0, -130, 130), (0, 1, 0), (0, 0, -1), 0.6, 0.6, 448, 448)
_AXIAL = SliceGeometry((-90, -90, 0), (1, 0, 0), (0, 1, 0), 0.6, 0.6, 300, 300)


def _stack(geometry: SliceGeometry, count: int, gap_mm: float) -> list[SliceGeometry]:
    start = np.array(geometry.position)
    return [
        replace(
            geometry,
            position=tuple((start + geometry.normal * gap_mm * (place - (count - 1) / 2)).tolist()),
        )
        for place in range(count)
    ]


LUMBAR_STACK = _stack(_SAGITTAL, 15, 4.4)
HEAD_STACK = _stack(_SAGITTAL, 30, 5.5)
KNEE_STACK = _stack(replace(_SAGITTAL, rows=260, columns=260), 15, 4.4)
DISC_SLICES = _stack(_AXIAL, 20, 4.0)
ABDOMEN_SLICES = _stack(replace(_AXIAL, rows=640, columns=640), 30, 6.0)

STUDY_SAYS_LUMBAR = SeriesHeader(description="t2_tse", study_description="MRI LUMBAR SPINE")


def test_a_stack_that_shows_five_discs_is_high_and_narrow() -> None:
    assert shows_five_discs(LUMBAR_STACK)
    assert shows_five_discs(LUMBAR_STACK[7:8])
    for stack in (HEAD_STACK, KNEE_STACK, DISC_SLICES, [*LUMBAR_STACK, _AXIAL], []):
        assert not shows_five_discs(stack)


@pytest.mark.parametrize("body_part", ["ABDOMEN", "PELVIS", "HEAD", "BRAIN", "HIP", "HEART", "KNEE"])
def test_the_geometry_decides_where_the_body_part_contradicts_the_study(body_part: str) -> None:
    header = replace(STUDY_SAYS_LUMBAR, body_part=body_part)
    assert not is_elsewhere(header, LUMBAR_STACK)
    assert not is_elsewhere(header, DISC_SLICES, (-130.0, 130.0))
    for stack in (HEAD_STACK, KNEE_STACK, ABDOMEN_SLICES):
        assert is_elsewhere(header, stack)
    above = [replace(item, position=(-90, -90, 250 + place)) for place, item in enumerate(DISC_SLICES)]
    assert is_elsewhere(header, above, (-130.0, 130.0))


@pytest.mark.parametrize(
    "description",
    ["T2 SAG HIP", "T2 SAG PELVIC TILT", "T2 SAG HEAD FIRST", "t2_feet_first", "SAG T2 LEGS UP"],
)
def test_words_of_position_in_the_name_of_a_series_do_not_exclude_it(description: str) -> None:
    header = replace(STUDY_SAYS_LUMBAR, description=description)
    assert not is_elsewhere(header, LUMBAR_STACK)
    if "HIP" not in description:
        assert not is_elsewhere(SeriesHeader(description=description), LUMBAR_STACK)


@pytest.mark.parametrize(
    "header",
    [
        replace(STUDY_SAYS_LUMBAR, description="t2 c-spine"),
        replace(STUDY_SAYS_LUMBAR, description="T2 SAG BRAIN"),
        replace(STUDY_SAYS_LUMBAR, description="T2 COR SI JOINTS"),
        replace(STUDY_SAYS_LUMBAR, body_part="CSPINE"),
        replace(STUDY_SAYS_LUMBAR, body_part="TSPINE"),
        SeriesHeader(body_part="HEAD", study_description="MRI BRAIN AND LUMBAR SPINE"),
        SeriesHeader(body_part="ABDOMEN"),
        SeriesHeader(study_description="MRI HIP"),
        SeriesHeader(description="T2 HIP", body_part="PELVIS"),
    ],
)
def test_other_parts_of_the_body_stay_excluded(header: SeriesHeader) -> None:
    assert is_elsewhere(header, LUMBAR_STACK)


@pytest.mark.parametrize(
    "header",
    [
        SeriesHeader(),
        SeriesHeader(body_part="SPINE"),
        SeriesHeader(description="L-spine T2", body_part="CSPINE"),
        SeriesHeader(protocol="LWS", body_part="ABDOMEN"),
        SeriesHeader(body_part="LSPINE", study_description="MRI ABDOMEN"),
        SeriesHeader(body_part="LSPINE", study_description="MRI BRAIN AND LUMBAR SPINE"),
    ],
)
def test_lumbar_series_are_used(header: SeriesHeader) -> None:
    assert not is_elsewhere(header, LUMBAR_STACK)


def test_the_spine_is_found_in_sagittal_stacks_that_are_not_elsewhere() -> None:
    low, high = find_spine([(STUDY_SAYS_LUMBAR, LUMBAR_STACK), (STUDY_SAYS_LUMBAR, DISC_SLICES)]) or (0, 0)
    assert (low, high) == pytest.approx((130 - 447 * 0.6, 130))
    assert find_spine([(SeriesHeader(body_part="HEAD"), LUMBAR_STACK)]) is None


def _decide(headers: Sequence[SeriesHeader]) -> list[Plane | RejectReason | None]:
    series = [SeriesCandidate(str(index), header, LUMBAR_STACK) for index, header in enumerate(headers)]
    decisions = select_series(series, {})
    return [decision.plane or decision.reason for decision in decisions.values()]


@pytest.mark.parametrize(
    ("study_description", "body_part", "descriptions"),
    [
        ("MRI LUMBAR SPINE", "ABDOMEN", ("t1_tse_sag", "t2_tse_sag")),
        ("MRT LWS", "HEAD", ("t2_tse_sag",)),
        ("MR", "PELVIS", ("T2 SAG L-SPINE", "T1 SAG")),
        ("LUMBAR", "SPINE", ("T2 SAG HEAD FIRST", "T1 SAG HIP")),
        ("MRI ABDOMEN", "LSPINE", ("T2 SAG",)),
        ("MRI BRAIN", "BRAIN", ("T2 SAG",)),
        ("MRT HWS", "CSPINE", ("t2_tse_sag", "t1_tse_sag")),
        ("MRI HIP", "HIP", ("T2 SAG",)),
    ],
)
def test_the_watcher_and_the_reader_have_one_rule(
    study_description: str, body_part: str, descriptions: tuple[str, ...]
) -> None:
    texts = [study_description, body_part, *descriptions]
    headers = [
        SeriesHeader(description=text, body_part=body_part, study_description=study_description)
        for text in descriptions
    ]
    is_graded = any(isinstance(decision, Plane) for decision in _decide(headers))
    assert StudyFilter().matches(texts) == is_lumbar_study(texts) == is_graded
