"""Finds the studies in what a person points at: a dataset's folder, a PACS export, a file or a zip."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.dicom.files.tolerant_reading import read_file_identity
from lumbar_tf.dicom.identifiers import display_name, display_study_id, is_safe_id
from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.sources.archives import UnsafeArchiveError, unpack_zip
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

#: The competition's own names for its folders of studies.
IMAGE_FOLDERS = ("train_images", "test_images")
DICOMDIR_NAME = "dicomdir"
#: Table of true grade probabilities, which only a synthetic cohort has beside its label table.
SYNTHETIC_TRUTH_NAME = "truth.csv"
_SAFE_ID_RULE = "an id must be at most 64 characters of 0-9, A-Z, a-z, '.', '_' and '-', without '..'"


@dataclass(frozen=True)
class StudyFiles:
    """One study, the name it goes by, and where its files are.

    Attributes:
        study_id: its folder's name in the competition's layout, else StudyInstanceUID.
        root: the folder that names of files are told from.
        files: the files, None for every file below the root.
    """

    study_id: str
    root: Path
    files: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class StudySources:
    """Studies, and the tables beside them.

    Attributes:
        studies: by study id.
        labels: `train.csv`, None where absent.
        coordinates: `train_label_coordinates.csv`, None where absent.
        series: `{train,test}_series_descriptions.csv`, None where absent.
        rejects: what was left out or noted before any study was read.
    """

    studies: tuple[StudyFiles, ...]
    labels: Path | None = None
    coordinates: Path | None = None
    series: Path | None = None
    rejects: tuple[Reject, ...] = ()


@contextmanager
def read_source(root: Path) -> Iterator[StudySources]:
    """Finds the studies at a path; a zip is unpacked for as long as the block runs.

    In the competition's layout folders are studies and no file is looked at. Anywhere else the head of
    every file is read once, and files are grouped by StudyInstanceUID.

    Args:
        root: the competition's folder as unzipped (with `train_images` or `test_images` and the
            tables beside it), either of those image folders, any folder of DICOM files however they are
            nested, one DICOM file, a DICOMDIR (its folder is meant), or a zip of any of these.

    Raises:
        UnsafeArchiveError: (a ValueError) a zip that is not safe or not possible to unpack.
        ValueError: there is nothing at the path, or no file in it.
    """
    if root.is_dir():
        yield _find_studies(root)
        return
    if not root.is_file():
        raise ValueError(f"A source must be a folder, file or zip. Received: {str(root)!r}, which is absent.")
    if root.name.lower() == DICOMDIR_NAME:
        yield _find_studies(root.parent)
        return
    if read_file_identity(root).is_dicom:
        yield _group_files(root.parent, [root])
        return
    with tempfile.TemporaryDirectory(prefix="lumbar_tf_") as folder:
        unpacked = Path(folder, root.stem)
        unpack_zip(root, unpacked)
        yield _find_studies(unpacked)


def is_synthetic_source(folder: Path) -> bool:
    """Returns whether a folder of studies or label tables was made by `lumbar_tf.synthetic`."""
    return (folder / SYNTHETIC_TRUTH_NAME).is_file()


def list_study_files(study: StudyFiles) -> tuple[list[Path], list[Reject]]:
    """Lists a study's files.

    Returns:
        The files in path order, and a reject, under the study's id, for each link, archive and
        unreadable folder among them, or for a study without any file.
    """
    if study.files is not None:
        return list(study.files), []
    files, rejects = list_files(study.root)
    if not files:
        rejects.append(Reject("", "", "", RejectReason.EMPTY_FOLDER, "the study's folder holds no file"))
    return files, [replace(each, study_id=study.study_id) for each in rejects]


def _find_studies(root: Path) -> StudySources:
    for place in (root, *_only_folder(root)):
        for name in IMAGE_FOLDERS:
            if (place / name).is_dir():
                return _with_tables(place / name)
    if root.name in IMAGE_FOLDERS:
        return _with_tables(root)
    files, rejects = list_files(root)
    if not files and not rejects:
        raise ValueError(f"A source must hold at least one study. Received: {str(root)!r}, with no file.")
    source = _group_files(root, files)
    return replace(source, rejects=(*rejects, *source.rejects))


def _only_folder(root: Path) -> list[Path]:
    """The folder that a zip so often wraps everything in."""
    children = [each for each in root.iterdir() if not each.name.startswith(".")]
    return [each for each in children if len(children) == 1 and each.is_dir() and not each.is_symlink()]


def _with_tables(images: Path) -> StudySources:
    """Reads the competition's layout: a folder a study, whatever its files say."""
    place, kind = images.parent, images.name.removesuffix("_images")

    def table(name: str) -> Path | None:
        return place / name if (place / name).is_file() else None

    source = _list_study_folders(images)
    source = replace(source, series=table(f"{kind}_series_descriptions.csv"))
    if kind == "train":
        source = replace(source, labels=table("train.csv"), coordinates=table("train_label_coordinates.csv"))
    if not source.studies and not source.rejects:
        raise ValueError(f"{str(images)!r} must hold a folder for each study. Received: none.")
    return source


def _list_study_folders(images: Path) -> StudySources:
    """Takes each folder for a study; files beside the folders go by what they say."""
    studies: list[StudyFiles] = []
    loose: list[Path] = []
    rejects: list[Reject] = []
    for each in sorted(images.iterdir()):
        if is_ignored(each):
            continue
        is_folder = each.is_dir() and not each.is_symlink()
        reason, message = (None, "") if is_folder else check_entry(each)
        if is_folder and not is_safe_id(each.name):
            reason, message = RejectReason.BAD_UID, f"a study's folder: {_SAFE_ID_RULE}"
        if reason is not None:
            rejects.append(Reject("", "", display_name(each, images), reason, message))
        elif is_folder:
            studies.append(StudyFiles(each.name, each))
        else:
            loose.append(each)
    beside = _group_files(images, loose)
    studies = sorted((*studies, *beside.studies), key=lambda each: each.study_id)
    return StudySources(tuple(studies), rejects=(*rejects, *beside.rejects))


def _group_files(root: Path, files: Sequence[Path]) -> StudySources:
    """Groups files by StudyInstanceUID; what cannot be any study's becomes a reject."""
    study_of: dict[Path, str] = {}
    lost: list[Path] = []
    rejects: list[Reject] = []

    def refuse(path: Path, reason: RejectReason, message: str) -> None:
        rejects.append(Reject("", "", display_name(path, root), reason, message))

    with suppress_pydicom_warnings():
        for path in files:
            try:
                head = read_file_identity(path)
            except OSError as error:
                refuse(path, RejectReason.UNREADABLE, f"cannot be read: {error.strerror}")
                continue
            if path.name.lower() == DICOMDIR_NAME:
                refuse(path, RejectReason.DICOMDIR, "an index of files; every file is looked at anyway")
                rejects.extend(find_absent_files(path, files, root))
            elif not head.is_dicom:
                refuse(path, RejectReason.NOT_DICOM, "not a DICOM file")
            elif head.study_uid is None:
                lost.append(path)
            elif is_safe_id(head.study_uid or _folder_study(path, root)):
                study_of[path] = head.study_uid or _folder_study(path, root)
            else:
                refuse(path, RejectReason.BAD_UID, f"StudyInstanceUID: {_SAFE_ID_RULE}")
    homes = _find_homes(lost, study_of, root)
    for path in lost:
        if path not in homes:
            message = "StudyInstanceUID cannot be read, and the file lies among several studies"
            refuse(path, RejectReason.DAMAGED_HEADER, message)
    studies = _collect(root, {**study_of, **homes})
    return StudySources(studies, rejects=(*rejects, *_note_shared_folders(study_of)))


def _folder_study(path: Path, root: Path) -> str:
    """The study of a file that names none: its top folder below the root, or the root."""
    parts = path.relative_to(root).parts
    return display_study_id(parts[0] if len(parts) > 1 else root.resolve().name)


def _find_homes(lost: Sequence[Path], study_of: Mapping[Path, str], root: Path) -> dict[Path, str]:
    """Says of damaged files which study is told of them: the only one in the nearest folder with any.

    They are only named there. A reader that can read such a file after all still sees its true UID.
    """
    if not lost:
        return {}
    studies_below: dict[Path, set[str]] = defaultdict(set)
    for path, study_id in study_of.items():
        for parent in path.parents:
            studies_below[parent].add(study_id)
            if parent == root:
                break
    homes: dict[Path, str] = {}
    for path in lost:
        found = next((studies_below[each] for each in path.parents if each in studies_below), set())
        if len(found) == 1:
            homes[path] = next(iter(found))
        elif not found:
            homes[path] = _folder_study(path, root)
    return homes


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
    shared = sorted({study_id for each in studies.values() if len(each) > 1 for study_id in each})
    message = "a folder holds files of this study and of others; files go by their StudyInstanceUID"
    return [Reject(study_id, "", "", RejectReason.SEVERAL_STUDIES, message) for study_id in shared]
