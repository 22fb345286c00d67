"""Selection of the series to grade, by table or by headers and geometry.

Every contrast of every series gets a decision: a plane, or the reason of its exclusion. Doubtful series are
excluded: the user can list them in a table, whereas a wrong series would be graded unnoticed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lumbar_tf.dicom.geometry import SliceGeometry, is_sagittal
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.body_region import find_spine
from lumbar_tf.dicom.series.classification import (
    SeriesCandidate,
    SeriesDecision,
    classify_series,
    is_gradable_kind,
    plane_of,
    stack_kind,
)
from lumbar_tf.dicom.series.contrasts import Contrast, find_places, is_same_echo, split_contrasts
from lumbar_tf.dicom.series.header import SeriesHeader, read_series_header
from lumbar_tf.dicom.series.image_kinds import DixonPart, dixon_stem
from lumbar_tf.dicom.series.weighting import classify_weighting, is_fat_suppressed
from lumbar_tf.labels import Plane

__all__ = [
    "SeriesDecision",
    "SeriesCandidate",
    "SeriesHeader",
    "split_series",
    "select_series",
    "is_sagittal",
    "read_series_header",
]

#: Foramina are 13 to 23 mm to either side of the canal: a sagittal stack narrower than twice 13 mm shows them
#: on neither side.
_FORAMINA_MM = 26.0
#: Coverage is compared in steps of about two slices: a single additional slice is no advantage.
_COVERAGE_STEP_MM = 10.0
#: Of several T2 echoes of a place the longest is used, up to this, ms: later ones show fluid only, and noise.
_LONGEST_USUAL_ECHO = 150.0


def split_series(
    series_id: str, headers: Sequence[SeriesHeader], geometries: Sequence[SliceGeometry]
) -> list[tuple[SeriesCandidate, tuple[int, ...]]]:
    """Splits a series into its contrasts.

    Args:
        series_id: id of the series.
        headers: header of each image.
        geometries: geometry of each image.

    Returns:
        A candidate for each contrast, and the indices of its images.
    """

    def candidate(contrast: Contrast) -> SeriesCandidate:
        return SeriesCandidate(
            series_id,
            contrast.header,
            [geometries[index] for index in contrast.members],
            contrast.name,
            contrast.places,
            contrast.is_repetition,
        )

    contrasts = split_contrasts(headers, geometries, stack_kind)
    return [(candidate(contrast), contrast.members) for contrast in contrasts]


def select_series(
    candidates: Sequence[SeriesCandidate], table: Mapping[str, Plane | None]
) -> dict[str, SeriesDecision]:
    """Decides about each series and contrast of ONE study.

    The table has priority. Of the series that are not in the table, all axial T2 series without fat
    suppression are used. For each sagittal plane without a series in the table, the most suitable series is
    used: it covers the foramina, has no fat suppression and no contrast agent, is not part of a Dixon
    family, covers more, has more slices, has finer pixels. Of the contrasts of a series at the same places
    one is used at most.

    Args:
        candidates: series of the study, or their contrasts.
        table: plane by series id; None for a series that is to be excluded.

    Returns:
        A decision for each `SeriesCandidate.key`. It does not depend on the order of `candidates`.
    """
    candidates = _name_dixon_families(candidates)
    contrasts: dict[str, list[SeriesCandidate]] = defaultdict(list)
    for candidate in candidates:
        contrasts[candidate.series_id].append(candidate)
    spine_mm = find_spine((candidate.header, candidate.geometries) for candidate in candidates)
    decisions: dict[str, SeriesDecision] = {}
    for series_id, members in contrasts.items():
        own = {item.key: classify_series(item, members, spine_mm=spine_mm) for item in members}
        decisions |= _follow_table(members, table[series_id], own) if series_id in table else own
    for plane in Plane:
        for members in contrasts.values():
            of_plane = [item for item in members if decisions[item.key].plane is plane]
            for candidate in _repeated_places(of_plane, plane):
                _leave_out(decisions, candidate, f"another contrast of the series is used for {plane.value}")
        of_plane = [item for item in candidates if decisions[item.key].plane is plane]
        classified = [item for item in of_plane if item.series_id not in table]
        has_listed = len(classified) < len(of_plane)
        for candidate, message in _less_suitable(classified, plane, has_listed=has_listed):
            _leave_out(decisions, candidate, message)
    return decisions


def _leave_out(decisions: dict[str, SeriesDecision], candidate: SeriesCandidate, message: str) -> None:
    notes = decisions[candidate.key].notes
    decisions[candidate.key] = SeriesDecision(None, RejectReason.LESS_SUITABLE, message, notes)


def _name_dixon_families(candidates: Sequence[SeriesCandidate]) -> list[SeriesCandidate]:
    """Sets the Dixon part of series whose names differ in it only, such as `t2_sag_in` and `t2_sag_opp`."""
    stems = [dixon_stem(candidate.header.description) for candidate in candidates]
    members: dict[str, set[DixonPart]] = defaultdict(set)
    for stem, part in stems:
        if part is not None:
            members[stem].add(part)
    return [
        replace(candidate, header=replace(candidate.header, dixon_part=part))
        if part is not None and candidate.header.dixon_part is None and len(members[stem]) > 1
        else candidate
        for candidate, (stem, part) in zip(candidates, stems, strict=True)
    ]


def _follow_table(
    members: Sequence[SeriesCandidate], plane: Plane | None, own: Mapping[str, SeriesDecision]
) -> dict[str, SeriesDecision]:
    """Decides about the contrasts of a listed series.

    Args:
        members: contrasts of the series.
        plane: plane in the table.
        own: decisions by the headers.
    """
    if plane is None:
        message = "the table excludes the series"
        return {item.key: SeriesDecision(None, RejectReason.LEFT_OUT_BY_MAP, message) for item in members}
    # The table lists the series for one of its contrasts: that of the plane, or else an acquired image.
    fitting = [item for item in members if own[item.key].plane is plane]
    acquired = [item for item in members if own[item.key].reason is not RejectReason.DERIVED]
    used = fitting or acquired or members
    decisions = dict(own) if len(members) > 1 else {}
    for item in members:
        if item in used:
            decisions[item.key] = _list_plane(item, plane)
        elif own[item.key].plane is not None:
            _leave_out(decisions, item, f"the table lists {plane.value}, which is another contrast")
    return decisions


def _list_plane(candidate: SeriesCandidate, plane: Plane) -> SeriesDecision:
    orientations = Counter(is_sagittal(geometry) for geometry in candidate.geometries)
    main = orientations.most_common(1)[0][0] if orientations else plane.is_sagittal
    classified = plane_of(main, classify_weighting(candidate.header)[0])
    notes: list[tuple[RejectReason, str]] = []
    is_other = not is_gradable_kind(candidate.header)
    if main is not plane.is_sagittal or classified not in (None, plane) or is_other:
        message = f"the table lists {plane.value}, which the headers contradict; the table is used"
        notes.append((RejectReason.PLANE_CONTRADICTION, message))
    return SeriesDecision(plane, None, "", tuple(notes))


def _repeated_places(contrasts: Sequence[SeriesCandidate], plane: Plane) -> Iterable[SeriesCandidate]:
    """Yields the contrasts of one series and plane that show the places of a better one."""
    used: set[int] = set()
    for candidate in sorted(contrasts, key=lambda item: _rank_contrast(item, plane)):
        if used.isdisjoint(candidate.places):
            used |= candidate.places
        else:
            yield candidate


def _rank_contrast(candidate: SeriesCandidate, plane: Plane) -> tuple[object, ...]:
    """Returns the sort key of a contrast among those of its series and plane, the best first."""
    header = candidate.header
    echo, number = header.echo_time_ms or 0.0, header.echo_number or 0
    if plane is Plane.SAGITTAL_T1:
        order = (False, echo, number)
    else:
        # The T2 image of a dual echo is the long echo.
        is_late = echo > _LONGEST_USUAL_ECHO
        order = (is_late, echo if is_late else -echo, -number)
    return (
        is_fat_suppressed(header),
        header.dixon_part is not None,
        header.is_contrast,
        candidate.is_repetition,
        *order,
        -len(candidate.geometries),
        candidate.key,
    )


def _less_suitable(
    candidates: Sequence[SeriesCandidate], plane: Plane, *, has_listed: bool
) -> list[tuple[SeriesCandidate, str]]:
    """Returns the series of a plane that are excluded in favour of better ones, each with the rule."""
    if not plane.is_sagittal:
        # Blocks and level ranges are distributed over several axial series, so all are used.
        plain = [item for item in candidates if not is_fat_suppressed(item.header)]
        message = "there are axial T2 series without fat suppression"
        excluded = [(item, message) for item in candidates if (plain or has_listed) and item not in plain]
        return excluded + [(item, "another contrast of its slices is used") for item in _find_siblings(plain)]
    if has_listed:
        return [(item, f"the table lists another series for {plane.value}") for item in candidates]
    ranked = sorted(candidates, key=_rank)
    message = f"another series is more suitable for {plane.value}"
    return [(item, message) for item in ranked[1:]]


def _find_siblings(candidates: Sequence[SeriesCandidate]) -> list[SeriesCandidate]:
    """Returns the axial series that show only places of a better one, with another echo or Dixon part.

    They are contrasts of one acquisition that the scanner stored as series: the earlier of two T2 echoes, or
    an in-phase image beside a plain one. Repetitions of a series have the same contrast, and are not found.
    """
    if len({(item.header.echo_time_ms, item.header.dixon_part) for item in candidates}) < 2:
        return []
    places = iter(find_places([geometry for item in candidates for geometry in item.geometries]))
    shown = {item.key: {next(places) for _ in item.geometries} for item in candidates}
    kept: list[SeriesCandidate] = []
    for item in sorted(candidates, key=lambda candidate: _rank_contrast(candidate, Plane.AXIAL_T2)):
        if not any(shown[item.key] <= shown[better.key] and _is_sibling(item, better) for better in kept):
            kept.append(item)
    return [item for item in candidates if item not in kept]


def _is_sibling(candidate: SeriesCandidate, other: SeriesCandidate) -> bool:
    header = candidate.header
    has_same_part = header.dixon_part is other.header.dixon_part
    return not (has_same_part and is_same_echo(header, other.header))


def _rank(candidate: SeriesCandidate) -> tuple[object, ...]:
    """Returns the sort key of a series among those of one sagittal plane, the best first."""
    first = min(
        candidate.geometries, key=lambda item: (item.position, item.row_direction, item.row_spacing_mm)
    )
    positions_mm = [float(np.asarray(item.position) @ first.normal) for item in candidate.geometries]
    coverage_mm = max(positions_mm) - min(positions_mm)
    return (
        coverage_mm < _FORAMINA_MM,
        is_fat_suppressed(candidate.header),
        candidate.header.is_contrast,
        candidate.header.dixon_part is not None,
        -round(coverage_mm / _COVERAGE_STEP_MM),
        -len(candidate.geometries),
        first.row_spacing_mm * first.column_spacing_mm,
        candidate.key,
    )
