"""Arguments that the public functions share: paths and progress."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike as OsPathLike
from pathlib import Path

from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.cli.progress import ProgressMaker, progress_bar, show_activity, silent_progress
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


def progress_of(title: str, *, verbose: bool, unit: str = "study") -> ProgressMaker:
    """Returns a progress bar on stderr, or one that shows nothing."""
    return partial(progress_bar, title, unit=unit) if verbose else silent_progress


@contextmanager
def activity_of(title: str, *, verbose: bool) -> Iterator[None]:
    """Shows on stderr that something of unknown length is running, if requested."""
    if not verbose:
        yield
        return
    with show_activity(title):
        yield
