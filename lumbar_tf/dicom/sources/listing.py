"""Lists the files below a folder, and names them without naming a patient."""

import hashlib
import os
import re
import stat
from pathlib import Path

from lumbar_tf.dicom.reasons import Reject, RejectReason

#: What is packed inside a folder is not unpacked: nobody said that it belongs to the study.
_ARCHIVE_ENDINGS = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"})

#: What scanners, archives and data sets put before a number. A closed list: `Kim_19500312` must not pass.
_PREFIXES = (
    "[a-z]|ax|case|cor|ct|dcm|dicom|im|image|images|img|mr|mre|msk|pa|pat|patient|pt|sag|scan|se|ser|series"
    "|slice|sr|st|stu|study|sub|subject"
)
_PLAIN_NAME = re.compile(
    rf"[a-z]|dicomdir|(?:{_PREFIXES})?[-_.]?[0-9]+(?:[-_.]?(?:{_PREFIXES})?[-_.]?[0-9]+)*", re.IGNORECASE
)
_PLAIN_ENDINGS = frozenset({".dcm", ".dicom", ".ima", ".img", ".dc3", ".zip"})
_DIGEST_CHARACTERS = 12


def list_files(folder: Path) -> tuple[list[Path], list[Reject]]:
    """Lists the files below a folder, in path order, without opening any.

    Hidden files and tables (`.csv`) are passed over without a word. The folder itself may be a link;
    links below it are never followed.

    Args:
        folder: where to look.

    Returns:
        The regular files, and a reject for each link, archive, folder that cannot be listed and thing
        that is no regular file. Their study is not known here and left blank.
    """
    files: list[Path] = []
    rejects: list[Reject] = []

    def refuse(path: Path, reason: RejectReason, message: str) -> None:
        rejects.append(Reject("", "", shown_name(path, folder), reason, message))

    def refuse_folder(error: OSError) -> None:
        path = Path(error.filename or folder)
        refuse(path, RejectReason.UNREADABLE, f"the folder cannot be listed: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=refuse_folder, followlinks=False):
        folders.sort()
        folders[:] = [each for each in folders if not each.startswith(".")]
        for name in [*(each for each in folders if Path(parent, each).is_symlink()), *sorted(names)]:
            path = Path(parent, name)
            if is_passed_over(path):
                continue
            reason, message = judge_entry(path)
            if reason is None:
                files.append(path)
            else:
                refuse(path, reason, message)
    return sorted(files), rejects


def is_passed_over(path: Path) -> bool:
    """Whether a file says nothing of any study: hidden ones and tables."""
    return path.name.startswith(".") or path.suffix.lower() == ".csv"


def judge_entry(path: Path) -> tuple[RejectReason | None, str]:
    """Says from the directory entry alone why a file is not to be read; (None, "") where it is."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return RejectReason.UNREADABLE, f"cannot be read: {error.strerror}"
    if stat.S_ISLNK(mode):
        return RejectReason.SYMLINK, "a symbolic link; links are not followed"
    if not stat.S_ISREG(mode):
        # Opening a pipe would wait for ever.
        return RejectReason.UNREADABLE, "not a regular file"
    if path.suffix.lower() in _ARCHIVE_ENDINGS:
        return RejectReason.NESTED_ARCHIVE, "an archive inside a source is not unpacked"
    return None, ""


def shown_name(path: Path, root: Path) -> str:
    """Returns the name by which a manifest may speak of a file.

    Hospitals put patients' names into file names. Names made of numbers, UIDs and a short prefix stay;
    any other becomes `file-` and the first 12 hex digits of the SHA-256 of the path below the root.

    >>> shown_name(Path("x/SE0/IM000001"), Path("x")), shown_name(Path("x/1.2.840.7.dcm"), Path("x"))
    ('IM000001', '1.2.840.7.dcm')
    >>> shown_name(Path("x/Doe Jane.dcm"), Path("x"))
    'file-4e0586eb30ad'
    """
    if is_plain_name(path.name):
        return path.name
    place = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return f"file-{_short_digest(place.as_posix())}"


def shown_study(name: str) -> str:
    """Returns the study id for a folder's name: the name where it is plain, else `study-` and a digest."""
    return name if is_plain_name(name) else f"study-{_short_digest(name)}"


def is_plain_name(name: str) -> bool:
    """Whether a name is made of numbers, a UID or a short prefix, and so cannot be a person's.

    >>> [is_plain_name(each) for each in ("IM0001", "7.dcm", "DICOMDIR", "MillerA")]
    [True, True, True, False]
    """
    stem, dot, ending = name.rpartition(".")
    if dot and f".{ending.lower()}" in _PLAIN_ENDINGS:
        name = stem
    return bool(name) and _PLAIN_NAME.fullmatch(name) is not None


def _short_digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:_DIGEST_CHARACTERS]
