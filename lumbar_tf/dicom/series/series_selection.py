"""Selection of the series to grade, by table or by headers and geometry.

Every series gets a decision: a plane, or the reason of its exclusion. Doubtful series are excluded: the user
can list them in a table, whereas a wrong series would be graded unnoticed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

#: A normal more than 60 degrees from the patient's axis is not an oblique of that axis.
_OBLIQUE_COSINE = 0.5
#: ImageType and FrameType values of images computed from other images (DICOM PS3.3 C.7.6.1.1.2, C.8.13.3.1.1
#: and the vendors' conformance statements). Value 1 alone is not sufficient: scanners label the output of
#: their own filters DERIVED\PRIMARY.
_DERIVED_TYPES = frozenset(
    ("MPR", "CSA_MPR", "CSA_RESAMPLED", "CSA_3D_EDITOR", "CSA_BLACK_IMAGE", "REFORMATTED", "MOSAIC")
    + ("MIP", "MIN_IP", "MAX_IP", "PROJECTION_IMAGE", "COMPOSED", "COMP_SP", "COMP_AD", "COMP_MIP")
    + ("ADC", "ADC_MAP", "EADC", "TRACE", "TRACEW", "FA", "SUBTRACT", "SUBTRACTION", "SCREEN_SAVE", "POSDISP")
    + ("T1_MAP", "T2_MAP", "T2_STAR_MAP", "FAT", "FAT_FRACTION")
    + ("PHASE", "PHASE_MAP", "IMAGINARY", "VELOCITY")
)
#: Foramina are 13 to 23 mm to either side of the canal: a sagittal stack narrower than twice 13 mm shows them
#: on neither side.
_FORAMINA_MM = 26.0
#: Coverage is compared in steps of about two slices: a single additional slice is no advantage.
_COVERAGE_STEP_MM = 10.0


@dataclass(frozen=True, eq=False)
class SeriesCandidate:
    """A series before its pixels are decoded.

    Attributes:
        series_id: id of the series, as in tables.
        header: header of one of its files.
        geometries: geometries of all readable slices.
    """

    series_id: str
    header: SeriesHeader
    geometries: Sequence[SliceGeometry]


@dataclass(frozen=True)
class SeriesDecision:
    """Decision about a series.

    Attributes:
        plane: plane that the series is used as, None if it is excluded.
        reason: reason of the exclusion, None if the series is used.
        message: rule that excluded the series, "" if it is used.
        notes: reason and message of each contradiction that did not change the decision.
    """

    plane: Plane | None
    reason: RejectReason | None
    message: str
    notes: tuple[tuple[RejectReason, str], ...] = ()


def select_series(
    candidates: Sequence[SeriesCandidate], table: Mapping[str, Plane | None]
) -> dict[str, SeriesDecision]:
    """Decides about each series of ONE study.

    The table has priority. Of the series that are not in the table, all axial T2 series without fat
    suppression are used. For each sagittal plane without a series in the table, the most suitable series is
    used: it covers the foramina, has no fat suppression and no contrast agent, covers more, has more slices,
    has finer pixels.

    Args:
        candidates: series of the study.
        table: plane by series id; None for a series that is to be excluded.

    Returns:
        A decision for each series id.
    """
    decisions = {
        candidate.series_id: _follow_table(candidate, table[candidate.series_id])
        if candidate.series_id in table
        else _classify(candidate)
        for candidate in candidates
    }
    for plane in Plane:
        of_plane = [item for item in candidates if decisions[item.series_id].plane is plane]
        classified = [item for item in of_plane if item.series_id not in table]
        has_listed = len(classified) < len(of_plane)
        for candidate, message in _less_suitable(classified, plane, has_listed=has_listed):
            notes = decisions[candidate.series_id].notes
            decisions[candidate.series_id] = SeriesDecision(None, RejectReason.LESS_SUITABLE, message, notes)
    return decisions


def is_sagittal(geometry: SliceGeometry) -> bool | None:
    """Returns whether a slice is sagittal (True) or axial (False), including obliques; None for neither.

    >>> is_sagittal(SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4))
    True
    """
    x, _, z = np.abs(geometry.normal)
    if max(x, z) < _OBLIQUE_COSINE or x == z:
        return None
    return bool(x > z)


def _follow_table(candidate: SeriesCandidate, plane: Plane | None) -> SeriesDecision:
    if plane is None:
        return SeriesDecision(None, RejectReason.LEFT_OUT_BY_MAP, "the table excludes the series")
    orientations = Counter(is_sagittal(geometry) for geometry in candidate.geometries)
    main = orientations.most_common(1)[0][0] if orientations else plane.is_sagittal
    classified = _plane_of(main, classify_weighting(candidate.header)[0])
    notes: list[tuple[RejectReason, str]] = []
    if main is not plane.is_sagittal or classified not in (None, plane):
        message = f"the table lists {plane.value}, which the headers contradict; the table is used"
        notes.append((RejectReason.PLANE_CONTRADICTION, message))
    return SeriesDecision(plane, None, "", tuple(notes))


def _plane_of(sagittal: bool | None, weighting: Weighting | None) -> Plane | None:
    if sagittal is None or weighting not in (Weighting.T1, Weighting.T2):
        return None
    if sagittal:
        return Plane.SAGITTAL_T2 if weighting is Weighting.T2 else Plane.SAGITTAL_T1
    return Plane.AXIAL_T2 if weighting is Weighting.T2 else None


def _classify(candidate: SeriesCandidate) -> SeriesDecision:
    """Decides from headers and geometry alone; the first applicable rule decides."""
    header = candidate.header
    orientations = {is_sagittal(geometry) for geometry in candidate.geometries}
    description = header.description or header.protocol
    if "LOCALIZER" in header.image_type or mentions_localizer(description):
        return _exclude(RejectReason.LOCALIZER, "ImageType or description indicate a localiser")
    if len(orientations) > 1:
        message = "a localiser: one series with slices of several orientations (sagittal, axial, coronal)"
        return _exclude(RejectReason.LOCALIZER, message)
    if _is_derived(header) or mentions_derived(description):
        return _exclude(RejectReason.DERIVED, "ImageType or description indicate a derived image")
    if _is_elsewhere(header):
        return _exclude(RejectReason.NOT_LUMBAR, "body part or description indicate another part of the body")
    sagittal = next(iter(orientations), None)
    if sagittal is None:
        return _exclude(RejectReason.UNKNOWN_PLANE, "slices must be sagittal or axial, within 60 degrees")
    weighting, is_contradicted = classify_weighting(header)
    plane = _plane_of(sagittal, weighting)
    if plane is None:
        return _exclude(RejectReason.UNKNOWN_WEIGHTING, _weighting_message(sagittal, weighting))
    message = f"description: {weighting and weighting.value}, contradicted by echo and repetition time"
    notes = ((RejectReason.WEIGHTING_CONTRADICTION, message),) if is_contradicted else ()
    return SeriesDecision(plane, None, "", notes)


def _exclude(reason: RejectReason, message: str) -> SeriesDecision:
    return SeriesDecision(None, reason, message)


def _weighting_message(sagittal: bool, weighting: Weighting | None) -> str:
    if weighting is None:
        return (
            "neither the description nor echo, repetition and inversion time determine whether it is T1 or T2"
        )
    if weighting is Weighting.T1 and not sagittal:
        return "axial T1 is not graded"
    return "the weighting is neither T1 nor T2 of a spin echo"


def _is_derived(header: SeriesHeader) -> bool:
    types = {value.replace(" ", "_") for value in header.image_type}
    # SECONDARY: created after the examination (PS3.3 C.7.6.1.1.2), so not by the scanner's own filter.
    return bool(types & _DERIVED_TYPES) or header.image_type[:2] == ("DERIVED", "SECONDARY")


def _is_elsewhere(header: SeriesHeader) -> bool:
    """Returns whether the most specific text with a part of the body excludes the lumbar spine."""
    texts = (header.description, header.protocol, header.body_part, header.study_description)
    return next((found for text in texts if (found := mentions_lumbar(text)) is not None), True) is False


def _less_suitable(
    candidates: Sequence[SeriesCandidate], plane: Plane, *, has_listed: bool
) -> list[tuple[SeriesCandidate, str]]:
    """Returns the series of a plane that are excluded in favour of better ones, each with the rule."""
    if not plane.is_sagittal:
        # Blocks and level ranges are distributed over several axial series, so all are used.
        plain = [item for item in candidates if not is_fat_suppressed(item.header)]
        message = "there are axial T2 series without fat suppression"
        return [(item, message) for item in candidates if (plain or has_listed) and item not in plain]
    if has_listed:
        return [(item, f"the table lists another series for {plane.value}") for item in candidates]
    ranked = sorted(candidates, key=_rank)
    message = f"another series is more suitable for {plane.value}"
    return [(item, message) for item in ranked[1:]]


def _rank(candidate: SeriesCandidate) -> tuple[bool, bool, bool, int, int, float, str]:
    """Returns the sort key of a series among those of one sagittal plane, the best first."""
    first = candidate.geometries[0]
    positions_mm = [float(np.asarray(item.position) @ first.normal) for item in candidate.geometries]
    coverage_mm = max(positions_mm) - min(positions_mm)
    return (
        coverage_mm < _FORAMINA_MM,
        is_fat_suppressed(candidate.header),
        candidate.header.is_contrast,
        -round(coverage_mm / _COVERAGE_STEP_MM),
        -len(candidate.geometries),
        first.row_spacing_mm * first.column_spacing_mm,
        candidate.series_id,
    )
