"""Identifiers and display names that are safe in a path, a table, a URL or a log."""

import hashlib
import os
import re
from pathlib import Path

#: A UID has at most 64 characters (DICOM PS3.5 section 9.1). The competition's are plain numbers, and folder
#: names may contain letters; any other character would be dangerous in a path or a table.
_SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")

#: Words that scanners, archives and data sets put before a number. The list is closed, so that names such as
#: `Kim_19500312` do not pass.
_PREFIXES = (
    "[a-z]|ax|case|cor|ct|dcm|dicom|im|image|images|img|mr|mre|msk|pa|pat|patient|pt|sag|scan|se|ser|series"
    "|slice|sr|st|stu|study|sub|subject"
)
_PLAIN_NAME = re.compile(
    rf"[a-z]|dicomdir|(?:{_PREFIXES})?[-_.]?[0-9]+(?:[-_.]?(?:{_PREFIXES})?[-_.]?[0-9]+)*", re.IGNORECASE
)
_PLAIN_ENDINGS = frozenset({".dcm", ".dicom", ".ima", ".img", ".dc3", ".zip"})
_DIGEST_CHARACTERS = 12


def is_safe_id(text: str) -> bool:
    """Returns whether an id is safe in a path, a table or a log: `[0-9A-Za-z._-]`, at most 64, no `..`.

    >>> is_safe_id("1.2.840.7"), is_safe_id("../1"), is_safe_id("1..2")
    (True, False, False)
    """
    return _SAFE_ID.fullmatch(text) is not None and ".." not in text


def check_study_uid(study_uid: str) -> None:
    """Raises an error for a StudyInstanceUID that is not safe in a path or a URL.

    Raises:
        ValueError: `is_safe_id` is false for the UID.
    """
    if not is_safe_id(study_uid):
        raise ValueError(f"A StudyInstanceUID must consist of 0-9 and '.'. Received: {study_uid!r}.")


def display_name(path: Path, root: Path) -> str:
    """Returns the name of a file for manifests and messages, without a patient's name.

    Hospitals put patients' names into file names. Names that consist of numbers, UIDs and a short prefix are
    kept; any other becomes `file-` and the first 12 hex digits of the SHA-256 of the path below the root.

    >>> display_name(Path("x/SE0/IM000001"), Path("x")), display_name(Path("x/1.2.840.7.dcm"), Path("x"))
    ('IM000001', '1.2.840.7.dcm')
    >>> display_name(Path("x/Doe Jane.dcm"), Path("x"))
    'file-4e0586eb30ad'
    """
    if is_plain_name(path.name):
        return path.name
    relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return f"file-{_short_digest(relative.as_posix())}"


def display_study_id(name: str) -> str:
    """Returns the study id for a folder's name: the name if it is plain, else `study-` and a digest."""
    return name if is_plain_name(name) else f"study-{_short_digest(name)}"


def is_plain_name(name: str) -> bool:
    """Returns whether a name consists of numbers, a UID or a short prefix, and so cannot be a person's.

    >>> [is_plain_name(name) for name in ("IM0001", "7.dcm", "DICOMDIR", "MillerA")]
    [True, True, True, False]
    """
    stem, dot, ending = name.rpartition(".")
    if dot and f".{ending.lower()}" in _PLAIN_ENDINGS:
        name = stem
    return bool(name) and _PLAIN_NAME.fullmatch(name) is not None


def _short_digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:_DIGEST_CHARACTERS]
