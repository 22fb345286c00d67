"""Reading of a study's DICOM files into planes of slices.

A file that cannot be used becomes a `Reject` with a reason, and reading continues. File names, the order of
files and InstanceNumber determine neither the selection nor the order of slices: series are split into
contrasts, which are selected by their headers, and slices are arranged by geometry. Only the selected images
are decoded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from lumbar_tf.dicom.files.decoders import FrameDecoder, decode_frame
from lumbar_tf.dicom.files.frames import Frame, ImageFile
from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.dicom.reasons import ReasonKind, Reject, RejectedError, RejectReason
from lumbar_tf.dicom.series.series_selection import (
    SeriesCandidate,
    SeriesDecision,
    select_series,
    split_series,
)
from lumbar_tf.dicom.series.stack import check_stack, median_gap_mm
from lumbar_tf.dicom.sources.study_source import StudyFiles
from lumbar_tf.dicom.study import (
    PixelScale,
    SeriesSummary,
    Slice,
    Study,
    StudyHeader,
    arrange_slices,
    read_study_header,
)
from lumbar_tf.dicom.study_files import (
    RecordReject,
    StudyFile,
    drop_other_studies,
    image_digest,
    merge_copies,
    open_files,
)
from lumbar_tf.labels import Plane

#: A frame with its file.
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
        study: files of the study.
        table: plane by series id, which is a folder name or the SeriesInstanceUID. The table overrides a
            contradicting header, with a note; None excludes the series. Series that are not in the table are
            classified by their headers.
        decode: frame decoder.
        keep_header: whether to fill `Study.header`, for results that return to the hospital's archive.

    Returns:
        The study. Planes without slices are absent.
    """
    rejects: list[Reject] = []

    def reject(series_id: str, file_name: str, reason: RejectReason, message: str) -> None:
        rejects.append(Reject(study.study_id, series_id, file_name, reason, message))

    with suppress_pydicom_warnings():
        files, digest = open_files(study, table, rejects)
        files = drop_other_studies(study, files, reject)
        patients = {file.patient_id for file in files if file.patient_id}
        if len(patients) > 1:
            message = f"the files of one study have {len(patients)} different PatientIDs"
            reject("", "", RejectReason.MIXED_PATIENTS, message)
            files = []
        series = _group_by_series(merge_copies(files))
        contrasts = [part for name in sorted(series) for part in _split(name, series[name])]
        decisions = select_series([candidate for candidate, _ in contrasts], table)
        planes = _read_planes(contrasts, decisions, decode, reject)
        header = _read_header(files) if keep_header and files else None
    if not planes:
        rejects.append(_reject_empty(study.study_id, rejects, has_series=bool(series)))
    return Study(
        study_id=study.study_id,
        patient_id=next(iter(patients)) if len(patients) == 1 else "",
        planes=planes,
        series=tuple(_summarize(candidate, decisions[candidate.key]) for candidate, _ in contrasts),
        rejects=tuple(rejects),
        source_digest=digest,
        header=header,
    )


def _read_header(files: Sequence[StudyFile]) -> StudyHeader:
    """Reads the header of a file with a PatientID, or of the first file if none has one."""
    chosen = next((file for file in files if file.patient_id), files[0])
    study_uid = next((file.study_uid for file in files if file.study_uid), "")
    return read_study_header(chosen.open().dataset, study_uid)


def _reject_empty(study_id: str, rejects: Iterable[Reject], *, has_series: bool) -> Reject:
    """Returns the reject for a study without slices: faulty, or valid but without a graded series.

    A study of reports, spectroscopy or other modalities only has no series at all, and is valid.
    """
    reasons = {reject.reason for reject in rejects}
    has_objects = has_series or bool(reasons - {RejectReason.NOT_DICOM, RejectReason.DICOMDIR})
    if has_objects and all(reason.kind is not ReasonKind.FAULT for reason in reasons):
        message = "the study has no series of a graded plane and weighting"
        return Reject(study_id, "", "", RejectReason.NOTHING_TO_GRADE, message)
    return Reject(study_id, "", "", RejectReason.NO_SLICES, "no slice of any plane could be used")


def _group_by_series(files: Iterable[StudyFile]) -> dict[str, list[_Member]]:
    """Returns the frames of each series in an order that depends on their geometry, not on their files."""
    series: dict[str, list[_Member]] = {}
    for file in files:
        series.setdefault(file.series_id, []).extend((file, frame) for frame in file.frames)
    for members in series.values():
        members.sort(key=lambda member: member[1].geometry.sort_key)
    return series


def _split(series_id: str, members: Sequence[_Member]) -> list[tuple[SeriesCandidate, list[_Member]]]:
    """Returns the contrasts of a series, each with its frames."""
    headers = [file.headers[frame.index] for file, frame in members]
    geometries = [frame.geometry for _, frame in members]
    return [
        (candidate, [members[index] for index in indices])
        for candidate, indices in split_series(series_id, headers, geometries)
    ]


def _read_planes(
    contrasts: Iterable[tuple[SeriesCandidate, Sequence[_Member]]],
    decisions: Mapping[str, SeriesDecision],
    decode: FrameDecoder,
    reject: RecordReject,
) -> dict[Plane, tuple[Slice, ...]]:
    slices: dict[Plane, list[Slice]] = {}
    for candidate, members in contrasts:
        series_id, decision = candidate.series_id, decisions[candidate.key]
        prefix = f"{candidate.contrast}: " if candidate.contrast else ""
        for reason, message in decision.notes:
            reject(series_id, "", reason, prefix + message)
        if decision.plane is None:
            if decision.reason is not None:
                reject(series_id, "", decision.reason, prefix + decision.message)
            continue
        kept = _check(series_id, members, decision.plane, reject)
        slices.setdefault(decision.plane, []).extend(_decode(series_id, kept, decode, reject))
    return {
        plane: tuple(image for group in arrange_slices(slices[plane]) for image in group.slices)
        for plane in Plane
        if slices.get(plane)
    }


def _check(series_id: str, members: Sequence[_Member], plane: Plane, reject: RecordReject) -> list[_Member]:
    check = check_stack(
        [frame.geometry for _, frame in members],
        [frame.instance_number for _, frame in members],
        plane=plane,
        preference=lambda index: _acquisition_order(*members[index]),
    )
    for index, reason, message in check.rejects:
        reject(series_id, members[index][0].display_name, reason, message)
    for reason, message in check.notes:
        reject(series_id, "", reason, message)
    # Frames of one file are decoded together, so that it is opened once.
    return sorted(
        (members[index] for index in check.kept), key=lambda member: (member[0].path, member[1].index)
    )


def _acquisition_order(file: StudyFile, frame: Frame) -> tuple[str, str, str]:
    """Returns the sort key of images at one place: the first acquired is used, and of equal times either."""
    return file.acquisition_time, image_digest(file, frame.index), file.sop_uid


def _decode(
    series_id: str, members: Iterable[_Member], decode: FrameDecoder, reject: RecordReject
) -> Iterator[Slice]:
    opened: tuple[StudyFile, ImageFile] | None = None
    for file, frame in members:
        found: Slice | None = None
        for copy in (file, *file.copies):
            if found is not None:
                if frame.index == 0:
                    message = "an earlier file with the same SOPInstanceUID is used"
                    reject(series_id, copy.display_name, RejectReason.DUPLICATE_INSTANCE, message)
                continue
            try:
                # The frames of a file are consecutive, so each file is opened once.
                if opened is None or opened[0] is not copy:
                    opened = (copy, copy.open())
                stored = copy.frames[frame.index]
                pixels = decode(opened[1], stored)
            except RejectedError as error:
                reject(series_id, copy.display_name, error.reason, str(error))
            else:
                number = frame.index + 1 if len(file.frames) > 1 else 0
                scale = PixelScale(stored.slope, stored.intercept, opened[1].layout.complement)
                origin = replace(copy.origin, frame_number=number, pixel_scale=scale)
                found = Slice(frame.geometry, pixels, series_id, frame.instance_number, origin)
        if found is not None:
            yield found


def _summarize(candidate: SeriesCandidate, decision: SeriesDecision) -> SeriesSummary:
    sizes = Counter(
        (item.rows, item.columns, item.row_spacing_mm, item.column_spacing_mm)
        for item in candidate.geometries
    )
    rows, columns, row_spacing_mm, column_spacing_mm = max(sizes, key=lambda size: (sizes[size], size))
    return SeriesSummary(
        series_id=candidate.series_id,
        plane=decision.plane,
        reason=decision.reason.value if decision.plane is None and decision.reason else "",
        num_slices=len(candidate.geometries),
        rows=rows,
        columns=columns,
        row_spacing_mm=row_spacing_mm,
        column_spacing_mm=column_spacing_mm,
        gap_mm=median_gap_mm(candidate.geometries),
        vendor=candidate.header.vendor,
        field_strength_tesla=candidate.header.field_strength_tesla,
        contrast=candidate.contrast,
    )
