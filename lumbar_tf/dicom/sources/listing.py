"""Files below a folder, and the files that a DICOMDIR lists."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.headers import MAX_HEADER_BYTES, read_dataset_header
from lumbar_tf.dicom.identifiers import display_name
from lumbar_tf.dicom.reasons import Reject, RejectedError, RejectReason
from lumbar_tf.files import open_regular_file

#: Archives inside a folder are not unpacked: nothing shows that they belong to the study.
_ARCHIVE_ENDINGS = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"})


def list_files(folder: Path) -> tuple[list[Path], list[Reject]]:
    """Lists the files below a folder, in path order, without opening any.

    Hidden files and tables (`.csv`) are skipped without a reject. The folder itself may be a symbolic link;
    links below it are never followed.

    Args:
        folder: the folder to search.

    Returns:
        The regular files, and a reject for each link, archive, unlistable folder and entry that is not a
        regular file. The study is not known yet, so the rejects have a blank study id.
    """
    files: list[Path] = []
    rejects: list[Reject] = []

    def reject(path: Path, reason: RejectReason, message: str) -> None:
        rejects.append(Reject("", "", display_name(path, folder), reason, message))

    def reject_folder(error: OSError) -> None:
        path = Path(error.filename or folder)
        reject(path, RejectReason.UNREADABLE, f"the folder cannot be listed: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=reject_folder, followlinks=False):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")]
        # `os.path.islink`, unlike `Path.is_symlink`, is false for a path over the system's limit.
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118
        for name in [*links, *sorted(names)]:
            path = Path(parent, name)
            if is_ignored(path):
                continue
            reason, message = check_entry(path)
            if reason is None:
                files.append(path)
            else:
                reject(path, reason, message)
    return sorted(files), rejects


def is_ignored(path: Path) -> bool:
    """Returns whether a file is skipped without a reject: hidden files and tables."""
    return path.name.startswith(".") or path.suffix.lower() == ".csv"


def check_entry(path: Path) -> tuple[RejectReason | None, str]:
    """Checks a directory entry without opening the file.

    Returns:
        Reason and message for a file that must not be read; (None, "") for any other.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return RejectReason.UNREADABLE, f"cannot be read: {error.strerror}"
    if stat.S_ISLNK(mode):
        return RejectReason.SYMLINK, "a symbolic link; links are not followed"
    if not stat.S_ISREG(mode):
        # Opening a named pipe would block forever.
        return RejectReason.UNREADABLE, "not a regular file"
    if path.suffix.lower() in _ARCHIVE_ENDINGS:
        return RejectReason.NESTED_ARCHIVE, "an archive inside a source is not unpacked"
    return None, ""


def find_absent_files(directory: Path, files: Sequence[Path], root: Path) -> list[Reject]:
    """Compares the files that a DICOMDIR lists (ReferencedFileID) with the files that exist.

    A DICOMDIR is the index of an exported medium. Names are compared without regard to case, because media
    are mounted in upper or lower case.

    Args:
        directory: the DICOMDIR.
        files: every file below the root, without links and archives.
        root: the source.

    Returns:
        A reject for each file that is listed and absent, or one reject if the DICOMDIR cannot be read.
    """
    try:
        listed = list(_listed_files(_read_directory(directory)))
    except OSError as error:
        return [_reject(directory, root, RejectReason.UNREADABLE, f"cannot be read: {error.strerror}")]
    except RejectedError as error:
        return [_reject(directory, root, error.reason, str(error))]
    except Exception as error:  # pydicom parses values on access, and a damaged value may raise anything
        message = f"the DICOMDIR is damaged ({type(error).__name__})"
        return [_reject(directory, root, RejectReason.DAMAGED_HEADER, message)]
    folder = directory.parent
    present = {
        path.relative_to(folder).as_posix().casefold() for path in files if path.is_relative_to(folder)
    }
    message = "the DICOMDIR lists this file, which is absent"
    return [
        _reject(folder / path, root, RejectReason.LISTED_FILE_ABSENT, message)
        for path in listed
        if path.as_posix().casefold() not in present
    ]


def _read_directory(path: Path) -> Dataset:
    with open_regular_file(path) as file:
        data = file.read(MAX_HEADER_BYTES + 1)
    if len(data) > MAX_HEADER_BYTES:
        message = f"a DICOMDIR must have at most {MAX_HEADER_BYTES} bytes"
        raise RejectedError(RejectReason.TOO_LARGE, message)
    return read_dataset_header(data)


def _listed_files(dataset: Dataset) -> Iterator[PurePosixPath]:
    """Yields the path of each directory record that has one (DICOM PS3.3 section F.3.2.2)."""
    for record in dataset.get("DirectoryRecordSequence", None) or ():
        parts = record.get("ReferencedFileID", None) or ()
        if isinstance(parts, str):
            parts = (parts,)
        if parts:
            yield PurePosixPath(*map(str, parts))


def _reject(path: Path, root: Path, reason: RejectReason, message: str) -> Reject:
    return Reject("", "", display_name(path, root), reason, message)
