"""Files that appear whole or not at all, and their digests."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_READ_BYTES = 1 << 20
#: A temporary file's name; the random part tells processes of several machines apart.
_TEMPORARY = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.tmp")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Lends a temporary path that replaces `path` when the block ends well, and vanishes otherwise.

    The bytes are on the disk before the name is: after a power cut there is the old file or the new
    one, never half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def release_cache(file: IO[bytes]) -> None:
    """Has the system write a file's bytes to the disk from now on, and forget those that it has written.

    Left to itself it would keep gigabytes of them in memory that nobody reads again soon, and write them
    all at once in the end, while the file is waited for.
    """
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left of files that `replace_atomically` was making in a folder.

    A process that still makes one there fails; files that have their own names stay.
    """
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
