"""Folder for the images that a command fetches, which does not outlive a killed command for long."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lumbar_tf.files import lock_file

_LOCK = "lock"


@contextmanager
def fetch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Provides an empty folder, mode 0700, that is removed when the block ends.

    Folders that killed programs left are removed at the start. The folder of a running program is locked, and
    the lock ends with the program.

    Args:
        parent: folder for temporary files; the system's by default.

    Raises:
        PermissionError: another user has created the folder of this one.
    """
    root = (parent or Path(tempfile.gettempdir())) / f"lumbar_tf-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{root} must be a folder of this user with mode 0700. Remove it.")
    with ExitStack() as stack:
        # Another program must not remove the folder between its creation and its lock.
        with lock_file(root / _LOCK):
            _remove_abandoned(root)
            name = stack.enter_context(tempfile.TemporaryDirectory(dir=root))
            stack.enter_context(lock_file(Path(name) / _LOCK))
        folder = Path(name) / "images"
        folder.mkdir(mode=0o700)
        yield folder


def _remove_abandoned(root: Path) -> None:
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        try:
            with lock_file(folder / _LOCK, busy_message="in use"):
                shutil.rmtree(folder)
        except ValueError:
            continue
