"""Which ids are fit to stand in a path, a table or a log."""

import re

#: A UID has at most 64 characters (DICOM PS3.5 section 9.1). The competition's are plain numbers and folder
#: names may hold letters; anything else would be dangerous in a path or a table.
_SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


def is_safe_id(text: str) -> bool:
    """Whether an id can stand in a path, a table or a log: `[0-9A-Za-z._-]`, at most 64, no `..`.

    >>> is_safe_id("1.2.840.7"), is_safe_id("../1"), is_safe_id("1..2")
    (True, False, False)
    """
    return _SAFE_ID.fullmatch(text) is not None and ".." not in text


def check_study_uid(study_uid: str) -> None:
    """Refuses a StudyInstanceUID that is not fit to stand in a path or a URL.

    Raises:
        ValueError: it is not.
    """
    if not is_safe_id(study_uid):
        raise ValueError(f"A StudyInstanceUID must be of 0-9 and '.'. Received: {study_uid!r}.")
