"""Atomic file writing, locks and digests."""

import errno
import glob
import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_READ_BYTES = 1 << 20
#: A temporary file's name; the random part distinguishes processes of several machines.
_TEMPORARY = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.tmp")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` on success and is removed on an exception.

    The data are flushed to disk before the rename, so that after a power failure either the old or the
    new file exists, complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        synchronise(temporary)
        temporary.replace(path)
        synchronise(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text file in UTF-8, atomically.

    Args:
        path: the file.
        text: its content, or an iterable of the parts of a long one.
    """
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines([text] if isinstance(text, str) else text)


def write_json_atomically(path: Path, value: Any, *, allow_nan: bool = True, end: str = "") -> None:
    """Writes a value as JSON with an indent of one space, atomically.

    Args:
        path: the file.
        value: plain values: dictionaries, lists, strings, numbers, booleans and None.
        allow_nan: whether NaN and infinity are written as `NaN` and `Infinity`, which JSON lacks.
        end: text after the value, such as a newline.

    Raises:
        ValueError: `value` contains NaN or infinity, and `allow_nan` is False.
    """
    write_text_atomically(path, json.dumps(value, indent=1, allow_nan=allow_nan) + end)


def open_regular_file(path: Path) -> IO[bytes]:
    """Opens a file for reading and never waits, even if another process has put a named pipe in its place.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def find_paths(pattern: str) -> list[Path]:
    """Returns the paths that match a glob pattern, sorted; `**` matches any number of folders.

    Args:
        pattern: absolute, or relative to the working directory.
    """
    return sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too


def json_safe(value: Any) -> Any:
    """Returns a value in types that JSON has.

    Args:
        value: mappings, lists and tuples of any depth; enumerations become their values, NumPy scalars Python
            numbers, and NaN and infinity None. Values of all other types become text.

    >>> json_safe({"score": float("nan"), "path": Path("out")})
    {'score': None, 'path': 'out'}
    """
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, Enum):
        return json_safe(value.value)
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def write_table_atomically(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV table in UTF-8, with line feeds as line ends, atomically.

    Args:
        path: the file.
        header: column names.
        rows: cells in the order of `header`. Text and integers are written unchanged; format floating-point
            numbers beforehand. None gives an empty cell.
    """
    # Not at the top: importing pandas takes a second, and commands must answer --help without it.
    import pandas

    table = pandas.DataFrame(list(rows), columns=list(header), dtype=object)
    with replace_atomically(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a folder.

    Only names that `replace_atomically` creates are removed. A process that is still writing one of them
    fails.
    """
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def lock_file(path: Path, *, busy_message: str | None = None) -> Iterator[None]:
    """Holds an exclusive lock on a file until the block ends; the end of the process releases it too.

    Args:
        path: the lock file; it is created if absent, and its content is discarded.
        busy_message: the error message if another process holds the lock; None waits for that process.

    Raises:
        ValueError: another process holds the lock, or the platform has no file locks.
    """
    with path.open("w") as file:
        try:
            lock_descriptor(file.fileno(), wait=busy_message is None)
        except BlockingIOError:
            raise ValueError(busy_message) from None
        yield


def lock_descriptor(descriptor: int, *, wait: bool = True) -> None:
    """Locks an open file exclusively until it is closed.

    Args:
        descriptor: of the file.
        wait: whether to wait for another process to release its lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        ValueError: the platform has no file locks.
    """
    if fcntl is None:
        raise ValueError(
            "File locks must be available, so that two processes do not write one folder. Received: a "
            "platform without `fcntl` (Windows). Use Linux, macOS or the Windows Subsystem for Linux."
        )
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def release_cache(file: IO[bytes]) -> None:
    """Starts writing a file's data to disk and drops the written pages from the page cache.

    Otherwise gigabytes that are not read again soon accumulate in memory and are written at once when the
    file is synchronised. Does nothing where the system call is absent (macOS, Windows).
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular_file(path) as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
