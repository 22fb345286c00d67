"""Studies in a source: the folder of a data set, a PACS export, a single file or a zip archive."""

import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.dicom.files.tolerant_reading import read_file_identity
from lumbar_tf.dicom.identifiers import display_name, display_study_id, is_safe_id
from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.sources.archives import SourceError, UnsafeArchiveError, is_zip, unpack_zip
from lumbar_tf.dicom.sources.listing import check_entry, find_absent_files, is_ignored, list_files

__all__ = [
    "StudySources",
    "StudyFiles",
    "UnsafeArchiveError",
    "is_synthetic_source",
    "list_study_files",
    "read_source",
    "display_name",
]

#: The competition's names of its folders of studies.
IMAGE_FOLDERS = ("train_images", "test_images")
DICOMDIR_NAME = "dicomdir"
#: Table of true grade probabilities, which only a synthetic cohort has beside its label table.
SYNTHETIC_TRUTH_NAME = "truth.csv"
_SAFE_ID_RULE = "an id must be at most 64 characters of 0-9, A-Z, a-z, '.', '_' and '-', without '..'"


@dataclass(frozen=True)
class StudyFiles:
    """Id and files of one study.

    Attributes:
        study_id: name of the folder in the competition's layout, else StudyInstanceUID.
        root: folder that display names of files are relative to.
        files: files of the study; None for every file below the root.
    """

    study_id: str
    root: Path
    files: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class StudySources:
    """Studies of a source, with the tables beside them.

    Attributes:
        studies: studies, sorted by study id.
        labels: `train.csv`, None if absent.
        coordinates: `train_label_coordinates.csv`, None if absent.
        series: `{train,test}_series_descriptions.csv`, None if absent.
        rejects: rejects and notes from before the reading of studies.
    """

    studies: tuple[StudyFiles, ...]
    labels: Path | None = None
    coordinates: Path | None = None
    series: Path | None = None
    rejects: tuple[Reject, ...] = ()


@contextmanager
def read_source(root: Path) -> Iterator[StudySources]:
    """Finds the studies of a source; a zip archive is unpacked inside the `with` block only.

    In the competition's layout the folders are the studies, and no file is read. In any other layout the
    first bytes of every file are read once, and files are grouped by StudyInstanceUID.

    Args:
        root: the competition's unzipped folder (with `train_images` or `test_images` and the tables beside
            it), either of these image folders, any folder of arbitrarily nested DICOM files, one DICOM file,
            a DICOMDIR (for its folder), or a zip archive of any of these.

    Raises:
        UnsafeArchiveError: (a ValueError) a zip archive cannot be unpacked safely.
        SourceError: (a ValueError) the path cannot be read, or is a file of another kind.
        ValueError: the path does not exist, or contains no file.
    """
    try:
        kind = _kind_of(root)
    except OSError as error:
        raise _source_error(root, f"must be readable. Received: {error.strerror}") from None
    if kind is _SourceKind.FOLDER:
        yield _find_studies(root)
    elif kind is _SourceKind.DICOMDIR:
        yield _find_studies(root.parent)
    elif kind is _SourceKind.FILE:
        yield _group_files(root.parent, [root])
    else:
        with tempfile.TemporaryDirectory(prefix="lumbar_tf_") as folder:
            unpacked = Path(folder, root.stem)
            rejects = unpack_zip(root, unpacked)
            source = _find_studies(unpacked)
            yield replace(source, rejects=(*rejects, *source.rejects))


class _SourceKind(Enum):
    FOLDER = "folder"
    DICOMDIR = "dicomdir"
    FILE = "file"
    ZIP = "zip"


def _kind_of(root: Path) -> _SourceKind:
    """Returns the kind of a source.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not exist, or is a file of another kind.
    """
    if stat.S_ISDIR(_mode_of(root)):
        return _SourceKind.FOLDER
    if not stat.S_ISREG(_mode_of(root)):
        absent = "which is absent" if not _mode_of(root) else "which is a pipe or a device"
        raise ValueError(f"A source must be a folder, file or zip. Received: {str(root)!r}, {absent}.")
    if root.name.lower() == DICOMDIR_NAME:
        return _SourceKind.DICOMDIR
    with suppress_pydicom_warnings():
        if read_file_identity(root).is_dicom:
            return _SourceKind.FILE
    if not is_zip(root):
        raise _source_error(
            root,
            "must be a folder, a DICOM file or a zip archive. Received: a file of another kind, or damaged",
        )
    return _SourceKind.ZIP


def _mode_of(path: Path) -> int:
    """Returns the mode of a file or folder, 0 if it is absent."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _source_error(path: Path, rule: str) -> SourceError:
    name = display_name(path, path.parent)
    error = SourceError(f"The source {name} {rule}.")
    error.display_name = name
    return error


def is_synthetic_source(folder: Path) -> bool:
    """Returns whether a folder of studies or label tables was written by `lumbar_tf.synthetic`."""
    return (folder / SYNTHETIC_TRUTH_NAME).is_file()


def list_study_files(study: StudyFiles) -> tuple[list[Path], list[Reject]]:
    """Lists a study's files.

    Returns:
        The files in path order, and a reject with the study's id for each link, archive and unreadable folder
        among them, or for a study without files.
    """
    if study.files is not None:
        return list(study.files), []
    files, rejects = list_files(study.root)
    if not files:
        rejects.append(
            Reject("", "", "", RejectReason.EMPTY_FOLDER, "the folder of the study contains no file")
        )
    return files, [replace(reject, study_id=study.study_id) for reject in rejects]


def _find_studies(root: Path) -> StudySources:
    for folder in (root, *_only_folder(root)):
        for name in IMAGE_FOLDERS:
            if (folder / name).is_dir():
                return _read_competition_layout(folder / name)
    if root.name in IMAGE_FOLDERS:
        return _read_competition_layout(root)
    files, rejects = list_files(root)
    if not files and not rejects:
        raise ValueError(f"A source must contain at least one study. Received: {str(root)!r}, without files.")
    source = _group_files(root, files)
    return replace(source, rejects=(*rejects, *source.rejects))


def _only_folder(root: Path) -> list[Path]:
    """Returns the only subfolder, common at the top level of zip archives; empty if there is none."""
    children = [path for path in root.iterdir() if not path.name.startswith(".")]
    return [path for path in children if len(children) == 1 and path.is_dir() and not path.is_symlink()]


def _read_competition_layout(images: Path) -> StudySources:
    """Reads the competition's layout: one folder per study, regardless of the UIDs of its files."""
    folder, kind = images.parent, images.name.removesuffix("_images")

    def table(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    source = _list_study_folders(images)
    source = replace(source, series=table(f"{kind}_series_descriptions.csv"))
    if kind == "train":
        source = replace(source, labels=table("train.csv"), coordinates=table("train_label_coordinates.csv"))
    if not source.studies and not source.rejects:
        raise ValueError(f"{str(images)!r} must contain one folder per study. Received: none.")
    return source


def _list_study_folders(images: Path) -> StudySources:
    """Takes every folder as a study; files beside the folders are grouped by StudyInstanceUID."""
    studies: list[StudyFiles] = []
    loose: list[Path] = []
    rejects: list[Reject] = []
    for path in sorted(images.iterdir()):
        if is_ignored(path):
            continue
        is_folder = path.is_dir() and not path.is_symlink()
        reason, message = (None, "") if is_folder else check_entry(path)
        if is_folder and not is_safe_id(path.name):
            reason, message = RejectReason.BAD_UID, f"name of the study's folder: {_SAFE_ID_RULE}"
        if reason is not None:
            rejects.append(Reject("", "", display_name(path, images), reason, message))
        elif is_folder:
            studies.append(StudyFiles(path.name, path))
        else:
            loose.append(path)
    beside = _group_files(images, loose)
    studies = sorted((*studies, *beside.studies), key=lambda study: study.study_id)
    return StudySources(tuple(studies), rejects=(*rejects, *beside.rejects))


def _group_files(root: Path, files: Sequence[Path]) -> StudySources:
    """Groups files by StudyInstanceUID; files that cannot belong to any study become rejects."""
    study_of: dict[Path, str] = {}
    unidentified: list[Path] = []
    rejects: list[Reject] = []

    def reject(path: Path, reason: RejectReason, message: str) -> None:
        rejects.append(Reject("", "", display_name(path, root), reason, message))

    with suppress_pydicom_warnings():
        for path in files:
            try:
                identity = read_file_identity(path)
            except OSError as error:
                reject(path, RejectReason.UNREADABLE, f"cannot be read: {error.strerror}")
                continue
            if path.name.lower() == DICOMDIR_NAME:
                reject(path, RejectReason.DICOMDIR, "an index of files; all files are read regardless of it")
                rejects.extend(find_absent_files(path, files, root))
            elif not identity.is_dicom:
                reject(path, RejectReason.NOT_DICOM, "not a DICOM file")
            elif identity.study_uid is None:
                unidentified.append(path)
            elif is_safe_id(identity.study_uid or _folder_study(path, root)):
                study_of[path] = identity.study_uid or _folder_study(path, root)
            else:
                reject(path, RejectReason.BAD_UID, f"StudyInstanceUID: {_SAFE_ID_RULE}")
    assigned = _assign_unidentified(unidentified, study_of, root)
    for path in unidentified:
        if path not in assigned:
            message = "StudyInstanceUID cannot be read, and the nearest folder contains several studies"
            reject(path, RejectReason.DAMAGED_HEADER, message)
    studies = _collect(root, {**study_of, **assigned})
    return StudySources(studies, rejects=(*rejects, *_note_shared_folders(study_of)))


def _folder_study(path: Path, root: Path) -> str:
    """Returns the study id of a file without a UID: from its top folder below the root, or the root."""
    parts = path.relative_to(root).parts
    return display_study_id(parts[0] if len(parts) > 1 else root.resolve().name)


def _assign_unidentified(
    unidentified: Sequence[Path], study_of: Mapping[Path, str], root: Path
) -> dict[Path, str]:
    """Assigns damaged files to the only study of the nearest folder that contains studies.

    The assignment decides which study reports the file. If the file turns out to be readable, its own UID is
    still checked.
    """
    if not unidentified:
        return {}
    studies_below: dict[Path, set[str]] = defaultdict(set)
    for path, study_id in study_of.items():
        for parent in path.parents:
            studies_below[parent].add(study_id)
            if parent == root:
                break
    assigned: dict[Path, str] = {}
    for path in unidentified:
        found = next((studies_below[parent] for parent in path.parents if parent in studies_below), set())
        if len(found) == 1:
            assigned[path] = next(iter(found))
        elif not found:
            assigned[path] = _folder_study(path, root)
    return assigned


def _collect(root: Path, study_of: Mapping[Path, str]) -> tuple[StudyFiles, ...]:
    files: dict[str, list[Path]] = defaultdict(list)
    for path, study_id in study_of.items():
        files[study_id].append(path)
    return tuple(StudyFiles(study_id, root, tuple(sorted(files[study_id]))) for study_id in sorted(files))


def _note_shared_folders(study_of: Mapping[Path, str]) -> list[Reject]:
    """Notes each study that shares a folder with another."""
    studies: dict[Path, set[str]] = defaultdict(set)
    for path, study_id in study_of.items():
        studies[path.parent].add(study_id)
    shared = sorted({study_id for group in studies.values() if len(group) > 1 for study_id in group})
    message = "a folder contains files of this study and of others; files are grouped by StudyInstanceUID"
    return [Reject(study_id, "", "", RejectReason.SEVERAL_STUDIES, message) for study_id in shared]
