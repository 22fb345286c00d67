"""The files of one study: opened, with one image once and other studies' files left out.

What cannot be opened becomes a `Reject` with a reason, and the rest goes on.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lumbar_tf.dicom.files.frames import Frame, ImageFile, open_image
from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES, suppress_pydicom_warnings
from lumbar_tf.dicom.identifiers import display_name, is_safe_id
from lumbar_tf.dicom.reasons import Reject, RejectedError, RejectReason
from lumbar_tf.dicom.sources.study_source import StudyFiles, list_study_files
from lumbar_tf.dicom.study import ImageOrigin
from lumbar_tf.labels import Plane

#: Files of a study that wait for the choice of series are held up to here, and read again beyond. Ten
#: times a lumbar examination; an archive's functional series would otherwise fill the memory.
MAX_HELD_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class StudyFile:
    """A file whose header was read.

    `image` is None where the study's files are too large to hold all at once. `copies` have the same
    SOPInstanceUID: the same image in another folder of an export, which counts only if this one is damaged.
    """

    path: Path
    display_name: str
    study_uid: str
    series_id: str
    sop_uid: str
    patient_id: str
    origin: ImageOrigin
    frames: tuple[Frame, ...]
    image: ImageFile | None
    copies: tuple["StudyFile", ...] = ()

    def open(self) -> ImageFile:
        """Returns the file's image, read again where it is not held."""
        return open_image(_read_bytes(self.path)) if self.image is None else self.image


#: Notes a reject: series id, shown file name, reason, message.
RecordReject = Callable[[str, str, RejectReason, str], None]


def open_files(
    study: StudyFiles, table: Mapping[str, Plane | None], rejects: list[Reject]
) -> tuple[list[StudyFile], str]:
    """Returns the files that hold images, and the digest over all that could be read."""
    paths, faults = list_study_files(study)
    rejects.extend(faults)
    files: list[StudyFile] = []
    digests: list[str] = []
    held_bytes = 0
    for path in paths:
        name = display_name(path, study.root)
        try:
            data = _read_bytes(path)
            digests.append(hashlib.sha256(data).hexdigest())
            image = open_image(data)
        except RejectedError as error:
            # A folder's name may hold a patient's; one that a table names as a series does not.
            series_id = path.parent.name if path.parent.name in table else ""
            rejects.append(Reject(study.study_id, series_id, name, error.reason, str(error)))
            continue
        held_bytes += len(data)
        held = image if held_bytes <= MAX_HELD_BYTES else None
        files.append(
            StudyFile(
                path=path,
                display_name=name,
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
            raise RejectedError(RejectReason.TOO_LARGE, message)
        return path.read_bytes()
    except OSError as error:
        raise RejectedError(RejectReason.UNREADABLE, f"cannot be read: {error.strerror}") from None


def _name_series(study: StudyFiles, path: Path, image: ImageFile, table: Mapping[str, Plane | None]) -> str:
    """The competition names a series by its folder, and so do its tables; everybody else by its UID."""
    folder = path.parent.name
    is_competition = study.files is None and path.parent.parent == study.root and is_safe_id(folder)
    return folder if folder in table or is_competition or not image.series_uid else image.series_uid


def drop_other_studies(
    study: StudyFiles, files: Sequence[StudyFile], refuse: RecordReject
) -> list[StudyFile]:
    """Drops files that name another study than theirs: than the study's id or else than most of them."""
    counts = Counter(each.study_uid for each in files if each.study_uid)
    own = study.study_id if study.study_id in counts else max(counts, key=counts.__getitem__, default="")
    kept = []
    for each in files:
        if each.study_uid in ("", own):
            kept.append(each)
            continue
        message = "its StudyInstanceUID is another one than that of the rest of the study"
        refuse(each.series_id, each.display_name, RejectReason.FOREIGN_FILE, message)
    return kept


def merge_copies(files: Iterable[StudyFile]) -> list[StudyFile]:
    """Puts files of one SOPInstanceUID together, in path order; files without one stand alone.

    Files that claim to be one image and lie elsewhere in the patient are no copies.
    """
    copies: dict[tuple[object, ...], list[StudyFile]] = {}
    for place, each in enumerate(files):
        geometry = tuple(frame.geometry for frame in each.frames)
        copies.setdefault((each.sop_uid or place, geometry), []).append(each)
    return [replace(first, copies=tuple(others)) for first, *others in copies.values()]


def read_patient_id(study: StudyFiles) -> str:
    """Returns a study's PatientID from the first header that has one, "" where none has."""
    paths, _ = list_study_files(study)
    with suppress_pydicom_warnings():
        for path in paths:
            try:
                patient_id = open_image(_read_bytes(path)).patient_id
            except RejectedError:
                continue
            if patient_id:
                return patient_id
    return ""
