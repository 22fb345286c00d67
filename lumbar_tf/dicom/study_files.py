"""Image files of one study, without duplicates and without files of other studies.

A file that cannot be opened becomes a `Reject` with a reason, and reading continues.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.fragments import read_frame_bytes
from lumbar_tf.dicom.files.frames import Frame, ImageFile, open_image
from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES, suppress_pydicom_warnings
from lumbar_tf.dicom.identifiers import display_name, is_safe_id
from lumbar_tf.dicom.reasons import Reject, RejectedError, RejectReason
from lumbar_tf.dicom.series.header import SeriesHeader, read_frame_headers
from lumbar_tf.dicom.sources.study_source import StudyFiles, list_study_files
from lumbar_tf.dicom.study import ImageOrigin, read_optional_text
from lumbar_tf.files import open_regular_file
from lumbar_tf.labels import Plane

#: Files are kept in memory up to this total until the series are selected, and read again beyond it. It is
#: ten times a lumbar examination; functional series in an archive would otherwise fill the memory.
MAX_KEPT_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class StudyFile:
    """An image file whose header has been read.

    Attributes:
        path: path of the file.
        display_name: name for manifests, see `identifiers.display_name`.
        study_uid: StudyInstanceUID, "" if absent.
        series_id: id of the series: folder name or SeriesInstanceUID.
        sop_uid: SOPInstanceUID, "" if absent.
        patient_id: PatientID, "" if absent. It must not be written anywhere.
        origin: UIDs of the image, for results that refer to it.
        frames: frames of the file.
        headers: attributes of each frame.
        acquisition_time: AcquisitionDateTime, or AcquisitionDate and AcquisitionTime; "" if absent.
        image: the opened file; None if the study's files are too large to keep in memory.
        copies: files with the same SOPInstanceUID, such as the same image in another folder of an export.
            They are used only if this file is damaged.
    """

    path: Path
    display_name: str
    study_uid: str
    series_id: str
    sop_uid: str
    patient_id: str
    origin: ImageOrigin
    frames: tuple[Frame, ...]
    headers: tuple[SeriesHeader, ...]
    acquisition_time: str
    image: ImageFile | None
    copies: tuple["StudyFile", ...] = ()

    def open(self) -> ImageFile:
        """Returns the opened file, which is read again if it is not kept in memory."""
        return open_image(_read_bytes(self.path)) if self.image is None else self.image


#: Records a reject: series id, display name of the file, reason, message.
RecordReject = Callable[[str, str, RejectReason, str], None]


def open_files(
    study: StudyFiles, table: Mapping[str, Plane | None], rejects: list[Reject]
) -> tuple[list[StudyFile], str]:
    """Opens the files of a study.

    Args:
        study: the study.
        table: plane by series id.
        rejects: list that unreadable files are appended to.

    Returns:
        The files that contain images, and the SHA-256 over the digests of all readable files.
    """
    paths, faults = list_study_files(study)
    rejects.extend(faults)
    files: list[StudyFile] = []
    digests: list[str] = []
    kept_bytes = 0
    for path in paths:
        name = display_name(path, study.root)
        try:
            data = _read_bytes(path)
            digests.append(hashlib.sha256(data).hexdigest())
            image = open_image(data)
        except RejectedError as error:
            # A folder name may contain a patient's name, unless a table lists it as a series.
            series_id = path.parent.name if path.parent.name in table else ""
            rejects.append(Reject(study.study_id, series_id, name, error.reason, str(error)))
            continue
        series_id = _series_id(study, path, image, table)
        rejects.extend(
            Reject(study.study_id, series_id, name, RejectReason.UNUSUAL_ENCODING, note)
            for note in image.notes
        )
        kept_bytes += len(data)
        kept = image if kept_bytes <= MAX_KEPT_BYTES else None
        files.append(
            StudyFile(
                path=path,
                display_name=name,
                study_uid=image.study_uid,
                series_id=series_id,
                sop_uid=image.sop_uid,
                patient_id=image.patient_id,
                origin=image.origin,
                frames=image.frames,
                headers=read_frame_headers(image.dataset, len(image.frames)),
                acquisition_time=_read_acquisition_time(image.dataset),
                image=kept,
            )
        )
    return files, hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _read_acquisition_time(dataset: Dataset) -> str:
    moment = read_optional_text(dataset, "AcquisitionDateTime")
    day, time = (read_optional_text(dataset, f"Acquisition{name}") for name in ("Date", "Time"))
    return moment or day + time


def _read_bytes(path: Path) -> bytes:
    try:
        with open_regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                message = f"a file must have at most {MAX_FILE_BYTES} bytes. Received: {size}"
                raise RejectedError(RejectReason.TOO_LARGE, message)
            return file.read(size)
    except OSError as error:
        raise RejectedError(RejectReason.UNREADABLE, f"cannot be read: {error.strerror}") from None


def _series_id(study: StudyFiles, path: Path, image: ImageFile, table: Mapping[str, Plane | None]) -> str:
    """Returns the folder name in the competition's layout and tables, and the SeriesInstanceUID otherwise."""
    folder = path.parent.name
    is_competition = study.files is None and path.parent.parent == study.root and is_safe_id(folder)
    return folder if folder in table or is_competition or not image.series_uid else image.series_uid


def drop_other_studies(
    study: StudyFiles, files: Sequence[StudyFile], reject: RecordReject
) -> list[StudyFile]:
    """Drops files whose StudyInstanceUID differs from the study id or, failing that, from most files."""
    counts = Counter(file.study_uid for file in files if file.study_uid)
    most = max(counts, key=lambda uid: (counts[uid], uid), default="")
    own = study.study_id if study.study_id in counts else most
    kept = []
    for file in files:
        if file.study_uid in ("", own):
            kept.append(file)
            continue
        message = "its StudyInstanceUID differs from that of the rest of the study"
        reject(file.series_id, file.display_name, RejectReason.FOREIGN_FILE, message)
    return kept


def merge_copies(files: Iterable[StudyFile]) -> list[StudyFile]:
    """Merges files with the same SOPInstanceUID; files without a UID are kept separate.

    Files with the same UID but another geometry or contrast are not copies. The order of copies depends on
    their pixels, not on their paths.
    """
    copies: dict[tuple[object, ...], list[StudyFile]] = {}
    for index, file in enumerate(files):
        geometry = tuple(frame.geometry for frame in file.frames)
        copies.setdefault((file.sop_uid or index, geometry, file.headers), []).append(file)
    merged = []
    for group in copies.values():
        if len(group) > 1:
            group = sorted(group, key=lambda file: (image_digest(file), file.series_id))
        first, *others = group
        merged.append(replace(first, copies=tuple(others)))
    return merged


def image_digest(file: StudyFile, frame_index: int | None = None) -> str:
    """Returns the SHA-256 of the stored pixels of a file, or of one frame; "" if it cannot be read."""
    try:
        image = file.open()
    except RejectedError:
        return ""
    ranges = image.pixel_ranges if frame_index is None else image.pixel_ranges[frame_index : frame_index + 1]
    digest = hashlib.sha256()
    for frame_ranges in ranges:
        digest.update(read_frame_bytes(image.body, frame_ranges))
    return digest.hexdigest()


def read_patient_id(study: StudyFiles) -> str:
    """Returns the PatientID of a study from the first header that has one, "" if none has."""
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
