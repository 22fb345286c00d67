"""Checks a DICOMDIR, the index on exported media, against the files that are really there."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.headers import MAX_HEADER_BYTES, parse_dataset
from lumbar_tf.dicom.reasons import RefusedError, Reject, RejectReason
from lumbar_tf.dicom.sources.listing import shown_name


def find_absent_files(directory: Path, files: Sequence[Path], root: Path) -> list[Reject]:
    """Compares the files that a DICOMDIR names (ReferencedFileID) with those that are there.

    Args:
        directory: the DICOMDIR.
        files: every file below the root, links and archives left out.
        root: the source.

    Returns:
        A reject for each file that is named and absent, and one where the DICOMDIR cannot be read.
        Upper and lower case are one: media are mounted in either.
    """
    try:
        named = list(_named_files(_read_directory(directory)))
    except OSError as error:
        return [_reject(directory, root, RejectReason.UNREADABLE, f"cannot be read: {error.strerror}")]
    except RefusedError as error:
        return [_reject(directory, root, error.reason, str(error))]
    except Exception as error:  # values are parsed when they are asked for, and may be anything
        message = f"the DICOMDIR is damaged ({type(error).__name__})"
        return [_reject(directory, root, RejectReason.DAMAGED_HEADER, message)]
    folder = directory.parent
    there = {each.relative_to(folder).as_posix().casefold() for each in files if each.is_relative_to(folder)}
    message = "the DICOMDIR names this file, which is absent"
    return [
        _reject(folder / each, root, RejectReason.LISTED_FILE_ABSENT, message)
        for each in named
        if each.as_posix().casefold() not in there
    ]


def _read_directory(path: Path) -> Dataset:
    if path.stat().st_size > MAX_HEADER_BYTES:
        message = f"a DICOMDIR must have at most {MAX_HEADER_BYTES} bytes"
        raise RefusedError(RejectReason.TOO_LARGE, message)
    return parse_dataset(path.read_bytes())


def _named_files(dataset: Dataset) -> Iterator[PurePosixPath]:
    """Yields the path of each record that names one (DICOM PS3.3 F.3.2.2)."""
    for record in dataset.get("DirectoryRecordSequence", None) or ():
        parts = record.get("ReferencedFileID", None) or ()
        if isinstance(parts, str):
            parts = (parts,)
        if parts:
            yield PurePosixPath(*map(str, parts))


def _reject(path: Path, root: Path, reason: RejectReason, message: str) -> Reject:
    return Reject("", "", shown_name(path, root), reason, message)
