"""Paths as callers give them."""

from collections.abc import Sequence
from os import PathLike as OsPathLike
from pathlib import Path

from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.files import find_paths

#: A file or folder.
PathLike = str | OsPathLike[str]
#: One file, or several.
Paths = PathLike | Sequence[PathLike]


def paths_of(paths: Paths) -> list[Path]:
    """Returns one or several paths as a list."""
    return [Path(paths)] if isinstance(paths, str | OsPathLike) else [Path(path) for path in paths]


def optional_path(path: PathLike | None) -> Path | None:
    """Returns a path, or None."""
    return None if path is None else Path(path)


def existing(path: Path) -> Path:
    """Returns a path that is a file.

    Raises:
        UsageError: (a ValueError) it is none.
    """
    if not path.is_file():
        raise UsageError(f"The file must exist. Received: {path}.")
    return path


def matching(pattern: Paths, name: str) -> list[Path]:
    """Returns the files that a pattern matches, sorted; or files that are given one by one.

    Raises:
        UsageError: (a ValueError) no file matches.
    """
    if not isinstance(pattern, str):
        return paths_of(pattern)
    paths = find_paths(pattern)
    if not paths:
        raise UsageError(f"`{name}` must match a file. Received: {pattern!r}.")
    return paths
