"""Reads the DICOM files of one study into planes of slices.

A file that cannot be used becomes a `Reject` with a reason, and the rest goes on. Names of files and
InstanceNumber say nothing about order here: slices are arranged by geometry. Headers are read first and
series chosen by them; only what is kept is decoded.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.imaging.files.frames import Frame, ImageFile, open_image
from lumbar_tf.imaging.files.headers import MAX_FILE_BYTES
from lumbar_tf.imaging.files.pixels import decode_frame
from lumbar_tf.imaging.files.silence import silence_pydicom
from lumbar_tf.imaging.origin import ImageOrigin, StudyHeader, read_study_header
from lumbar_tf.imaging.reasons import ReasonKind, RefusedError, Reject, RejectReason
from lumbar_tf.imaging.series.choice import (
    SeriesDecision,
    SeriesFacts,
    choose_series,
    read_series_header,
)
from lumbar_tf.imaging.series.stack import check_stack, median_gap_mm
from lumbar_tf.imaging.sources.listing import shown_name
from lumbar_tf.imaging.sources.reading import StudyFiles, list_study_files
from lumbar_tf.imaging.study import SeriesSummary, Slice, Study, arrange_slices
from lumbar_tf.imaging.uids import is_safe_id
from lumbar_tf.labels import Plane

#: What turns a frame of a file into pixels, see `pixels.decode_frame`.
FrameDecoder = Callable[[ImageFile, Frame], NDArray[np.generic]]

#: Files of a study that wait for the choice of series are held up to here, and read again beyond. Ten
#: times a lumbar examination; an archive's functional series would otherwise fill the memory.
_MAX_HELD_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class _File:
    """A file whose header was read.

    `image` is None where the study's files are too large to hold all at once. `copies` have the same
    SOPInstanceUID: the same image in another folder of an export, which counts only if this one is damaged.
    """

    path: Path
    shown_name: str
    study_uid: str
    series_id: str
    sop_uid: str
    patient_id: str
    origin: ImageOrigin
    frames: tuple[Frame, ...]
    image: ImageFile | None
    copies: tuple["_File", ...] = ()

    def open(self) -> ImageFile:
        return open_image(_read_bytes(self.path)) if self.image is None else self.image


#: One frame and the file that it is in.
_Member = tuple[_File, Frame]


def read_study(
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

    with silence_pydicom():
        files, digest = _open_files(study, table, rejects)
        files = _drop_foreign(study, files, refuse)
        patients = {each.patient_id for each in files if each.patient_id}
        if len(patients) > 1:
            message = f"the files of one study name {len(patients)} patients"
            refuse("", "", RejectReason.MIXED_PATIENTS, message)
            files = []
        series = _group(_join_copies(files))
        facts = {name: _facts(name, members) for name, members in series.items()}
        decisions = choose_series(list(facts.values()), table)
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


def _read_header(files: Sequence[_File]) -> StudyHeader:
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


def read_patient_id(study: StudyFiles) -> str:
    """Returns a study's PatientID from the first header that has one, "" where none has."""
    paths, _ = list_study_files(study)
    with silence_pydicom():
        for path in paths:
            try:
                patient_id = open_image(_read_bytes(path)).patient_id
            except RefusedError:
                continue
            if patient_id:
                return patient_id
    return ""


#: Notes a reject: series id, shown file name, reason, message.
_Refuse = Callable[[str, str, RejectReason, str], None]


def _open_files(
    study: StudyFiles, table: Mapping[str, Plane | None], rejects: list[Reject]
) -> tuple[list[_File], str]:
    """Returns the files that hold images, and the digest over all that could be read."""
    paths, faults = list_study_files(study)
    rejects.extend(faults)
    files: list[_File] = []
    digests: list[str] = []
    held_bytes = 0
    for path in paths:
        name = shown_name(path, study.root)
        try:
            data = _read_bytes(path)
            digests.append(hashlib.sha256(data).hexdigest())
            image = open_image(data)
        except RefusedError as error:
            # A folder's name may hold a patient's; one that a table names as a series does not.
            series_id = path.parent.name if path.parent.name in table else ""
            rejects.append(Reject(study.study_id, series_id, name, error.reason, str(error)))
            continue
        held_bytes += len(data)
        held = image if held_bytes <= _MAX_HELD_BYTES else None
        files.append(
            _File(
                path=path,
                shown_name=name,
                study_uid=image.study_uid,
                series_id=_name_series(study, path, image, table),
                sop_uid=image.sop_uid,
                patient_id=image.patient_id,
                origin=image.origin,
                frames=image.frames,
                image=held,
            )
        )
    return files, hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            message = f"a file must have at most {MAX_FILE_BYTES} bytes. Received: {size}"
            raise RefusedError(RejectReason.TOO_LARGE, message)
        return path.read_bytes()
    except OSError as error:
        raise RefusedError(RejectReason.UNREADABLE, f"cannot be read: {error.strerror}") from None


def _name_series(study: StudyFiles, path: Path, image: ImageFile, table: Mapping[str, Plane | None]) -> str:
    """The competition names a series by its folder, and so do its tables; everybody else by its UID."""
    folder = path.parent.name
    is_competition = study.files is None and path.parent.parent == study.root and is_safe_id(folder)
    return folder if folder in table or is_competition or not image.series_uid else image.series_uid


def _drop_foreign(study: StudyFiles, files: Sequence[_File], refuse: _Refuse) -> list[_File]:
    """Drops files that name another study than theirs: than the study's id or else than most of them."""
    counts = Counter(each.study_uid for each in files if each.study_uid)
    own = study.study_id if study.study_id in counts else max(counts, key=counts.__getitem__, default="")
    kept = []
    for each in files:
        if each.study_uid in ("", own):
            kept.append(each)
            continue
        message = "its StudyInstanceUID is another one than that of the rest of the study"
        refuse(each.series_id, each.shown_name, RejectReason.FOREIGN_FILE, message)
    return kept


def _join_copies(files: Iterable[_File]) -> list[_File]:
    """Puts files of one SOPInstanceUID together, in path order; files without one stand alone.

    Files that claim to be one image and lie elsewhere in the patient are no copies.
    """
    copies: dict[tuple[object, ...], list[_File]] = {}
    for place, each in enumerate(files):
        geometry = tuple(frame.geometry for frame in each.frames)
        copies.setdefault((each.sop_uid or place, geometry), []).append(each)
    return [replace(first, copies=tuple(others)) for first, *others in copies.values()]


def _group(files: Iterable[_File]) -> dict[str, list[_Member]]:
    series: dict[str, list[_Member]] = {}
    for each in files:
        series.setdefault(each.series_id, []).extend((each, frame) for frame in each.frames)
    return series


def _facts(series_id: str, members: Sequence[_Member]) -> SeriesFacts:
    header = read_series_header(members[0][0].open().dataset)
    return SeriesFacts(series_id, header, [frame.geometry for _, frame in members])


def _read_planes(
    series: Mapping[str, Sequence[_Member]],
    decisions: Mapping[str, SeriesDecision],
    decode: FrameDecoder,
    refuse: _Refuse,
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


def _check(series_id: str, members: Sequence[_Member], plane: Plane, refuse: _Refuse) -> list[_Member]:
    check = check_stack(
        [frame.geometry for _, frame in members],
        [frame.instance_number for _, frame in members],
        plane=plane,
    )
    for index, reason, message in check.rejects:
        refuse(series_id, members[index][0].shown_name, reason, message)
    for reason, message in check.notes:
        refuse(series_id, "", reason, message)
    return [members[index] for index in check.kept]


def _decode(
    series_id: str, members: Iterable[_Member], decode: FrameDecoder, refuse: _Refuse
) -> Iterator[Slice]:
    opened: tuple[_File, ImageFile] | None = None
    for file, frame in members:
        found: Slice | None = None
        for copy in (file, *file.copies):
            if found is not None:
                if frame.index == 0:
                    message = "a file before this one has the same SOPInstanceUID, and is taken"
                    refuse(series_id, copy.shown_name, RejectReason.DUPLICATE_INSTANCE, message)
                continue
            try:
                # The frames of one file follow each other: it is opened once.
                if opened is None or opened[0] is not copy:
                    opened = (copy, copy.open())
                pixels = decode(opened[1], copy.frames[frame.index])
            except RefusedError as error:
                refuse(series_id, copy.shown_name, error.reason, str(error))
            else:
                number = frame.index + 1 if len(file.frames) > 1 else 0
                origin = replace(copy.origin, frame_number=number)
                found = Slice(frame.geometry, pixels, series_id, frame.instance_number, origin)
        if found is not None:
            yield found


def _summarize(facts: SeriesFacts, decision: SeriesDecision) -> SeriesSummary:
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
