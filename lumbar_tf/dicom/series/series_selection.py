"""Chooses the series of a study that are graded, by table or by headers and geometry.

Every series gets a decision: a plane, or the reason why it is left out. In doubt it is left out: a person
can name it in a table, and a wrong series would be graded without anybody noticing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.header import SeriesHeader, read_series_header
from lumbar_tf.dicom.series.series_description_patterns import (
    Weighting,
    mentions_derived,
    mentions_localizer,
    mentions_lumbar,
)
from lumbar_tf.dicom.series.weighting import classify_weighting, is_fat_suppressed
from lumbar_tf.labels import Plane

__all__ = [
    "SeriesDecision",
    "SeriesCandidate",
    "SeriesHeader",
    "select_series",
    "is_sagittal",
    "read_series_header",
]

#: A normal further than 60 degrees from the patient's axis is no oblique of that axis any more.
_OBLIQUE_COSINE = 0.5
#: ImageType and FrameType values of what a computer made of images (DICOM PS3.3 C.7.6.1.1.2, C.8.13.3.1.1
#: and the vendors' conformance statements). Value 1 alone says nothing: scanners call what their own
#: filters made DERIVED\PRIMARY.
_DERIVED_TYPES = frozenset(
    ("MPR", "CSA_MPR", "CSA_RESAMPLED", "CSA_3D_EDITOR", "CSA_BLACK_IMAGE", "REFORMATTED", "MOSAIC")
    + ("MIP", "MIN_IP", "MAX_IP", "PROJECTION_IMAGE", "COMPOSED", "COMP_SP", "COMP_AD", "COMP_MIP")
    + ("ADC", "ADC_MAP", "EADC", "TRACE", "TRACEW", "FA", "SUBTRACT", "SUBTRACTION", "SCREEN_SAVE", "POSDISP")
    + ("T1_MAP", "T2_MAP", "T2_STAR_MAP", "FAT", "FAT_FRACTION")
    + ("PHASE", "PHASE_MAP", "IMAGINARY", "VELOCITY")
)
#: Foramina lie 13 to 23 mm to either side of the canal: a sagittal stack that is narrower than twice 13 mm
#: shows them on neither side.
_FORAMINA_MM = 26.0
#: Coverage is compared in steps of about two slices: one slice more is no better choice.
_COVERAGE_STEP_MM = 10.0


@dataclass(frozen=True, eq=False)
class SeriesCandidate:
    """What is known of a series before its pixels are decoded.

    Attributes:
        series_id: the series, as tables name it.
        header: of one of its files.
        geometries: of every readable slice.
    """

    series_id: str
    header: SeriesHeader
    geometries: Sequence[SliceGeometry]


@dataclass(frozen=True)
class SeriesDecision:
    """What becomes of a series.

    Attributes:
        plane: what it is used as, None where it is left out.
        reason: why it is left out, None where it is used.
        message: the rule that decided, "" where it is used.
        notes: what is odd about a decision that was made all the same.
    """

    plane: Plane | None
    reason: RejectReason | None
    message: str
    notes: tuple[tuple[RejectReason, str], ...] = ()


def select_series(
    facts: Sequence[SeriesCandidate], table: Mapping[str, Plane | None]
) -> dict[str, SeriesDecision]:
    """Decides what becomes of each series of ONE study.

    A table's word wins. Of the series that it does not name, all plain axial T2 are used, and for each
    sagittal plane that the table names no series for the most suitable one: covering the foramina, without
    fat suppression, without contrast agent, covering more, with more slices, with finer pixels.

    Args:
        facts: the study's series.
        table: the plane by series id; None where the table says to leave the series out.

    Returns:
        A decision for each series id.
    """
    decisions = {
        each.series_id: _follow_table(each, table[each.series_id])
        if each.series_id in table
        else _judge(each)
        for each in facts
    }
    for plane in Plane:
        candidates = [each for each in facts if decisions[each.series_id].plane is plane]
        named = [each for each in candidates if each.series_id in table]
        told = [each for each in candidates if each.series_id not in table]
        for each, message in _less_suitable(told, plane, is_named=bool(named)):
            left_out = SeriesDecision(None, RejectReason.LESS_SUITABLE, message)
            decisions[each.series_id] = replace(left_out, notes=decisions[each.series_id].notes)
    return decisions


def is_sagittal(geometry: SliceGeometry) -> bool | None:
    """Whether a slice is sagittal (True) or axial (False), obliques included; None where it is neither.

    >>> is_sagittal(SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4))
    True
    """
    x, _, z = np.abs(geometry.normal)
    if max(x, z) < _OBLIQUE_COSINE or x == z:
        return None
    return bool(x > z)


def _follow_table(facts: SeriesCandidate, plane: Plane | None) -> SeriesDecision:
    if plane is None:
        return SeriesDecision(None, RejectReason.LEFT_OUT_BY_MAP, "the table says to leave the series out")
    orientations = Counter(is_sagittal(each) for each in facts.geometries)
    main = orientations.most_common(1)[0][0] if orientations else plane.is_sagittal
    told = _plane_of(main, classify_weighting(facts.header)[0])
    notes: list[tuple[RejectReason, str]] = []
    if main is not plane.is_sagittal or told not in (None, plane):
        message = f"the table says {plane.value}, the headers disagree; the table's word is taken"
        notes.append((RejectReason.PLANE_CONTRADICTION, message))
    return SeriesDecision(plane, None, "", tuple(notes))


def _plane_of(sagittal: bool | None, weighting: Weighting | None) -> Plane | None:
    if sagittal is None or weighting not in (Weighting.T1, Weighting.T2):
        return None
    if sagittal:
        return Plane.SAGITTAL_T2 if weighting is Weighting.T2 else Plane.SAGITTAL_T1
    return Plane.AXIAL_T2 if weighting is Weighting.T2 else None


def _judge(facts: SeriesCandidate) -> SeriesDecision:
    """Decides from headers and geometry alone; the first rule that speaks counts."""
    header = facts.header
    orientations = {is_sagittal(each) for each in facts.geometries}
    description = header.description or header.protocol
    if "LOCALIZER" in header.image_type or mentions_localizer(description):
        return _leave_out(RejectReason.LOCALIZER, "ImageType or description name a localiser")
    if len(orientations) > 1:
        message = "a localiser: one series of sagittal, axial or coronal slices together"
        return _leave_out(RejectReason.LOCALIZER, message)
    if _is_derived(header) or mentions_derived(description):
        return _leave_out(RejectReason.DERIVED, "ImageType or description name a derived image")
    if _is_elsewhere(header):
        return _leave_out(RejectReason.NOT_LUMBAR, "body part or description name another part of the body")
    sagittal = next(iter(orientations), None)
    if sagittal is None:
        return _leave_out(RejectReason.UNKNOWN_PLANE, "slices must be sagittal or axial, within 60 degrees")
    weighting, is_contradicted = classify_weighting(header)
    plane = _plane_of(sagittal, weighting)
    if plane is None:
        return _leave_out(RejectReason.UNKNOWN_WEIGHTING, _weighting_message(sagittal, weighting))
    message = f"the description says {weighting and weighting.value}, echo and repetition time disagree"
    notes = ((RejectReason.WEIGHTING_CONTRADICTION, message),) if is_contradicted else ()
    return SeriesDecision(plane, None, "", notes)


def _leave_out(reason: RejectReason, message: str) -> SeriesDecision:
    return SeriesDecision(None, reason, message)


def _weighting_message(sagittal: bool, weighting: Weighting | None) -> str:
    if weighting is None:
        return "neither description nor echo, repetition and inversion time tell T1 from T2"
    if weighting is Weighting.T1 and not sagittal:
        return "axial T1 is not graded here"
    return "the weighting is neither a spin echo's T1 nor T2"


def _is_derived(header: SeriesHeader) -> bool:
    types = {each.replace(" ", "_") for each in header.image_type}
    # SECONDARY: made after the examination (PS3.3 C.7.6.1.1.2), so not by the scanner's own filter.
    return bool(types & _DERIVED_TYPES) or header.image_type[:2] == ("DERIVED", "SECONDARY")


def _is_elsewhere(header: SeriesHeader) -> bool:
    """Whether the most particular text that names a part of the body names another than the lumbar spine."""
    texts = (header.description, header.protocol, header.body_part, header.study_description)
    return next((told for each in texts if (told := mentions_lumbar(each)) is not None), True) is False


def _less_suitable(
    told: Sequence[SeriesCandidate], plane: Plane, *, is_named: bool
) -> list[tuple[SeriesCandidate, str]]:
    """Returns the series of a plane that are left for better ones, each with the rule."""
    if not plane.is_sagittal:
        # Blocks and level ranges are spread over several axial series: all are used.
        plain = [each for each in told if not is_fat_suppressed(each.header)]
        message = "axial T2 without fat suppression are there"
        return [(each, message) for each in told if (plain or is_named) and each not in plain]
    if is_named:
        return [(each, f"the table names another series for {plane.value}") for each in told]
    ranked = sorted(told, key=_rank)
    message = f"another series suits {plane.value} better"
    return [(each, message) for each in ranked[1:]]


def _rank(facts: SeriesCandidate) -> tuple[bool, bool, bool, int, int, float, str]:
    """Returns what series of one sagittal plane are sorted by, the best first."""
    first = facts.geometries[0]
    places = [float(np.asarray(each.position) @ first.normal) for each in facts.geometries]
    coverage_mm = max(places) - min(places)
    return (
        coverage_mm < _FORAMINA_MM,
        is_fat_suppressed(facts.header),
        facts.header.is_contrast,
        -round(coverage_mm / _COVERAGE_STEP_MM),
        -len(facts.geometries),
        first.row_spacing_mm * first.column_spacing_mm,
        facts.series_id,
    )
