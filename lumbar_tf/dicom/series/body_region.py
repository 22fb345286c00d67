"""Part of the body that a series shows, by its texts and, where they disagree, by its geometry.

Scanners and technologists write wrong parts of the body: ABDOMEN as the default of a coil, HIP or HEAD FIRST
in the name of a series.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from lumbar_tf.dicom.geometry import SliceGeometry, is_sagittal, pixel_to_patient
from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.series_description_patterns import (
    mentions_lumbar,
    mentions_organ,
    mentions_other_part,
    mentions_other_spine,
)

#: mm. The discs L1/L2 to L5/S1 span 120 to 160, and sagittal protocols of the lumbar spine show 220 to 300 of
#: the patient's height; those of a knee or hip show 150 to 180.
_LEAST_HEIGHT_MM = 180.0
#: mm. A sagittal stack of the lumbar spine is 40 to 90 wide; the head and the pelvis need more.
_LARGEST_BREADTH_MM = 130.0
#: mm. Axial slices of discs have 150 to 260, those of abdomen and pelvis 320 and more.
_LARGEST_AXIAL_FIELD_MM = 300.0


def is_elsewhere(
    header: SeriesHeader, geometries: Sequence[SliceGeometry], spine_mm: tuple[float, float] | None = None
) -> bool:
    """Returns whether a series shows another part of the body than the lumbar spine.

    Its own description decides if it mentions the lumbar spine, another part of the spine, or an organ. A
    protocol or body part that mentions another part of the spine comes next. If other texts disagree, the
    geometry decides: a series is lumbar if it can be a stack that shows five discs, or axial slices of it.

    Args:
        header: header of the series.
        geometries: geometries of its slices.
        spine_mm: patient's z of the lower and upper end of the study's sagittal stacks of the lumbar spine;
            None if there are none.
    """
    if mentions_lumbar(header.description):
        return False
    if mentions_other_spine(header.description) or mentions_organ(header.description):
        return True
    examination = (header.protocol, header.body_part)
    is_named = any(mentions_lumbar(text) for text in examination)
    if not is_named and any(mentions_other_spine(text) for text in examination):
        return True
    opinions = [mentions_lumbar(text) for text in (header.description, *examination)]
    # An examination of several parts does not name that of this series.
    if not (mentions_lumbar(header.study_description) and mentions_other_part(header.study_description)):
        opinions.append(mentions_lumbar(header.study_description))
    if True in opinions and False in opinions:
        return not _can_show_discs(geometries, spine_mm)
    return False in opinions


def find_spine(series: Iterable[tuple[SeriesHeader, Sequence[SliceGeometry]]]) -> tuple[float, float] | None:
    """Returns the patient's z of both ends of the sagittal stacks that show the lumbar spine, mm.

    Args:
        series: header and geometries of each series of a study.
    """
    heights = [
        _range_mm(geometries, 2)
        for header, geometries in series
        if shows_five_discs(geometries) and not is_elsewhere(header, geometries)
    ]
    return (min(low for low, _ in heights), max(high for _, high in heights)) if heights else None


def shows_five_discs(geometries: Sequence[SliceGeometry]) -> bool:
    """Returns whether slices are a sagittal stack of the height and breadth of lumbar protocols."""
    if not geometries or any(is_sagittal(geometry) is not True for geometry in geometries):
        return False
    low, high = _range_mm(geometries, 2)
    centres = np.array([geometry.centre for geometry in geometries]) @ geometries[0].normal
    return high - low >= _LEAST_HEIGHT_MM and float(np.ptp(centres)) <= _LARGEST_BREADTH_MM


def _can_show_discs(geometries: Sequence[SliceGeometry], spine_mm: tuple[float, float] | None) -> bool:
    if not geometries or is_sagittal(geometries[0]) is None:
        return False
    if is_sagittal(geometries[0]):
        return shows_five_discs(geometries)
    fields = [
        max(geometry.columns * geometry.column_spacing_mm, geometry.rows * geometry.row_spacing_mm)
        for geometry in geometries
    ]
    z = float(np.median([geometry.centre[2] for geometry in geometries]))
    is_in_stack = spine_mm is None or spine_mm[0] <= z <= spine_mm[1]
    return max(fields) <= _LARGEST_AXIAL_FIELD_MM and is_in_stack


def _range_mm(geometries: Sequence[SliceGeometry], axis: int) -> tuple[float, float]:
    """Returns the range of the slices' corner pixels along a patient axis, mm."""
    values = [
        pixel_to_patient(geometry, corner)[axis]
        for geometry in geometries
        for corner in (
            (0, 0),
            (geometry.columns - 1, 0),
            (0, geometry.rows - 1),
            (geometry.columns - 1, geometry.rows - 1),
        )
    ]
    return min(values), max(values)
