"""Atomic file writing, locks and digests."""

import codecs
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
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Characters with which spreadsheets begin a formula.
_FORMULA_STARTS = ("=", "+", "-", "@")
#: Control characters and line ends.
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: A temporary file's name; the random part distinguishes processes of several machines.
_TEMPORARY = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.tmp")


@contextmanager
def private_files() -> Iterator[None]:
    """Gives the files and folders that are created in a block to their owner only: modes 0600 and 0700.

    The mask belongs to the process, threads included.
    """
    mask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(mask)


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
    # Paths that are not UTF-8 have characters that cannot be encoded.
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
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


def check_writable(path: Path, *, is_folder: bool = True) -> None:
    """Checks that an output can be written, without leaving anything behind.

    Args:
        path: a file or folder, which need not exist; its folders are created when it is written.
        is_folder: whether it is a folder.

    Raises:
        OSError: it cannot be written; `strerror` is the reason.
    """
    if path.exists() and path.is_dir() != is_folder:
        code = errno.ENOTDIR if is_folder else errno.EISDIR
        raise OSError(code, os.strerror(code), str(path))
    if path.is_file():
        os.close(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)))
    folder = path if path.is_dir() else path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    probe = folder / f".lumbar_tf.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with probe.open("xb"):
            pass
    finally:
        probe.unlink(missing_ok=True)


def decode_text(data: bytes, rule: str) -> str:
    """Returns the text of a file in UTF-8, with or without a byte order mark.

    Args:
        data: the file's content.
        rule: start of the error message, such as "train.csv must be a CSV in UTF-8".

    Raises:
        ValueError: the content is in another encoding.
    """
    if data.startswith(_UTF_16_MARKS) or b"\0" in data[:_READ_BYTES]:
        raise ValueError(f"{rule}. Received: UTF-16, or no text; save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{rule}. Received: another encoding in line {line}; save it as UTF-8.") from None


def decode_secret(data: bytes) -> bytes:
    """Returns a secret as it was typed, without the marks of the editor that saved it.

    A byte order mark and UTF-16, which programs on Windows write, are no part of a secret. Content that is
    not text is returned unchanged.

    Args:
        data: content of a file with a key or password.

    Returns:
        The secret in UTF-8, without surrounding white space.
    """
    if data.startswith(codecs.BOM_UTF8):
        return data.removeprefix(codecs.BOM_UTF8).strip()
    encoding = "utf-16" if data.startswith(_UTF_16_MARKS) else ""
    if not encoding and len(data) > 1 and len(data) % 2 == 0:
        encoding = "" if any(data[1::2]) else "utf-16-le"
        encoding = encoding or ("" if any(data[::2]) else "utf-16-be")
    try:
        text = data.decode(encoding).strip() if encoding else ""
    except UnicodeDecodeError:
        text = ""
    return text.encode() if text and text.isprintable() else data.strip()


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
        rows: cells in the order of `header`. Integers are written unchanged, and text as `harmless_cell`
            returns it; format floating-point numbers beforehand. None gives an empty cell.
    """
    # Not at the top: importing pandas takes a second, and commands must answer --help without it.
    import pandas

    cells = [[harmless_cell(cell) for cell in row] for row in rows]
    table = pandas.DataFrame(cells, columns=[harmless_cell(name) for name in header], dtype=object)
    with replace_atomically(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", errors="backslashreplace")


def harmless_cell(cell: object) -> object:
    r"""Returns a cell that a spreadsheet shows as text and does not evaluate.

    Text that begins like a formula and is not a number gets an apostrophe, as spreadsheets themselves mark
    text, and control characters become spaces.

    >>> [harmless_cell(cell) for cell in ("=HYPERLINK(1)", "-0.25", "@x", "a\tb", 7, None)]
    ["'=HYPERLINK(1)", '-0.25', "'@x", 'a b', 7, None]
    """
    if not isinstance(cell, str):
        return cell
    text = _UNSAFE_CHARACTERS.sub(" ", cell)
    if not text.lstrip().startswith(_FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


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


def find_changed_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Returns the names of files that are absent or have another SHA-256.

    Args:
        folder: the folder.
        digests: SHA-256 by path relative to the folder.
    """
    return [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or file_sha256(folder / name) != digest
    ]
