"""Reads the DICOM files of one study into planes of slices.

A file that cannot be used becomes a `Reject` with a reason, and the rest goes on. Names of files and
InstanceNumber say nothing about order here: slices are arranged by geometry. Headers are read first and
series chosen by them; only what is kept is decoded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.frames import Frame, ImageFile
from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.dicom.reasons import ReasonKind, Reject, RejectedError, RejectReason
from lumbar_tf.dicom.series.series_selection import (
    SeriesCandidate,
    SeriesDecision,
    read_series_header,
    select_series,
)
from lumbar_tf.dicom.series.stack import check_stack, median_gap_mm
from lumbar_tf.dicom.sources.study_source import StudyFiles
from lumbar_tf.dicom.study import SeriesSummary, Slice, Study, StudyHeader, arrange_slices, read_study_header
from lumbar_tf.dicom.study_files import RecordReject, StudyFile, drop_other_studies, merge_copies, open_files
from lumbar_tf.labels import Plane

#: What turns a frame of a file into pixels, see `pixels.decode_frame`.
FrameDecoder = Callable[[ImageFile, Frame], NDArray[np.generic]]

#: One frame and the file that it is in.
_Member = tuple[StudyFile, Frame]


def read_study_files(
    study: StudyFiles,
    table: Mapping[str, Plane | None] = MappingProxyType({}),
    *,
    decode: FrameDecoder = decode_frame,
    keep_header: bool = False,
) -> Study:
    """Reads every DICOM file of a study.

    Args:
        study: its files.
        table: what a series table says, by series id: a folder's name or the SeriesInstanceUID. Its word
            wins over a header that contradicts it, with a note; None leaves the series out. Series that it
            does not name are told from their headers.
        decode: the decoder.
        keep_header: whether `Study.header` holds what results for the hospital's archive repeat.

    Returns:
        The study. Planes without any slice are absent.
    """
    rejects: list[Reject] = []

    def refuse(series_id: str, file_name: str, reason: RejectReason, message: str) -> None:
        rejects.append(Reject(study.study_id, series_id, file_name, reason, message))

    with suppress_pydicom_warnings():
        files, digest = open_files(study, table, rejects)
        files = drop_other_studies(study, files, refuse)
        patients = {each.patient_id for each in files if each.patient_id}
        if len(patients) > 1:
            message = f"the files of one study name {len(patients)} patients"
            refuse("", "", RejectReason.MIXED_PATIENTS, message)
            files = []
        series = _group(merge_copies(files))
        facts = {name: _facts(name, members) for name, members in series.items()}
        decisions = select_series(list(facts.values()), table)
        planes = _read_planes(series, decisions, decode, refuse)
        header = _read_header(files) if keep_header and files else None
    if not planes:
        rejects.append(_judge_empty(study.study_id, rejects, has_series=bool(series)))
    return Study(
        study_id=study.study_id,
        patient_id=next(iter(patients)) if len(patients) == 1 else "",
        planes=planes,
        series=tuple(_summarize(facts[name], decisions[name]) for name in sorted(series)),
        rejects=tuple(rejects),
        source_digest=digest,
        header=header,
    )


def _read_header(files: Sequence[StudyFile]) -> StudyHeader:
    """Reads the header of a file that names a patient, where one does."""
    chosen = next((each for each in files if each.patient_id), files[0])
    study_uid = next((each.study_uid for each in files if each.study_uid), "")
    return read_study_header(chosen.open().dataset, study_uid)


def _judge_empty(study_id: str, rejects: Iterable[Reject], *, has_series: bool) -> Reject:
    """Returns what is said of a study of which nothing is left: at fault, or sound but not graded here."""
    if has_series and all(each.reason.kind is ReasonKind.CHOICE for each in rejects):
        message = "it holds no series that is graded here"
        return Reject(study_id, "", "", RejectReason.NOTHING_TO_GRADE, message)
    return Reject(study_id, "", "", RejectReason.NO_SLICES, "no slice of any plane could be used")


def _group(files: Iterable[StudyFile]) -> dict[str, list[_Member]]:
    series: dict[str, list[_Member]] = {}
    for each in files:
        series.setdefault(each.series_id, []).extend((each, frame) for frame in each.frames)
    return series


def _facts(series_id: str, members: Sequence[_Member]) -> SeriesCandidate:
    header = read_series_header(members[0][0].open().dataset)
    return SeriesCandidate(series_id, header, [frame.geometry for _, frame in members])


def _read_planes(
    series: Mapping[str, Sequence[_Member]],
    decisions: Mapping[str, SeriesDecision],
    decode: FrameDecoder,
    refuse: RecordReject,
) -> dict[Plane, tuple[Slice, ...]]:
    slices: dict[Plane, list[Slice]] = {}
    for series_id, members in sorted(series.items()):
        decision = decisions[series_id]
        for reason, message in decision.notes:
            refuse(series_id, "", reason, message)
        if decision.plane is None:
            if decision.reason is not None:
                refuse(series_id, "", decision.reason, decision.message)
            continue
        kept = _check(series_id, members, decision.plane, refuse)
        slices.setdefault(decision.plane, []).extend(_decode(series_id, kept, decode, refuse))
    return {
        plane: tuple(image for group in arrange_slices(slices[plane]) for image in group.slices)
        for plane in Plane
        if slices.get(plane)
    }


def _check(series_id: str, members: Sequence[_Member], plane: Plane, refuse: RecordReject) -> list[_Member]:
    check = check_stack(
        [frame.geometry for _, frame in members],
        [frame.instance_number for _, frame in members],
        plane=plane,
    )
    for index, reason, message in check.rejects:
        refuse(series_id, members[index][0].display_name, reason, message)
    for reason, message in check.notes:
        refuse(series_id, "", reason, message)
    return [members[index] for index in check.kept]


def _decode(
    series_id: str, members: Iterable[_Member], decode: FrameDecoder, refuse: RecordReject
) -> Iterator[Slice]:
    opened: tuple[StudyFile, ImageFile] | None = None
    for file, frame in members:
        found: Slice | None = None
        for copy in (file, *file.copies):
            if found is not None:
                if frame.index == 0:
                    message = "a file before this one has the same SOPInstanceUID, and is taken"
                    refuse(series_id, copy.display_name, RejectReason.DUPLICATE_INSTANCE, message)
                continue
            try:
                # The frames of one file follow each other: it is opened once.
                if opened is None or opened[0] is not copy:
                    opened = (copy, copy.open())
                pixels = decode(opened[1], copy.frames[frame.index])
            except RejectedError as error:
                refuse(series_id, copy.display_name, error.reason, str(error))
            else:
                number = frame.index + 1 if len(file.frames) > 1 else 0
                origin = replace(copy.origin, frame_number=number)
                found = Slice(frame.geometry, pixels, series_id, frame.instance_number, origin)
        if found is not None:
            yield found


def _summarize(facts: SeriesCandidate, decision: SeriesDecision) -> SeriesSummary:
    first = facts.geometries[0]
    return SeriesSummary(
        series_id=facts.series_id,
        plane=decision.plane,
        reason=decision.reason.value if decision.plane is None and decision.reason else "",
        num_slices=len(facts.geometries),
        rows=first.rows,
        columns=first.columns,
        row_spacing_mm=first.row_spacing_mm,
        column_spacing_mm=first.column_spacing_mm,
        gap_mm=median_gap_mm(facts.geometries),
        vendor=facts.header.vendor,
        field_strength_tesla=facts.header.field_strength_tesla,
    )
