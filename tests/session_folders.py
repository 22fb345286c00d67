"""Folders that are expensive to make: made by one worker, shared by all, kept for later runs."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from lumbar_tf.files import lock_file

REPOSITORY = Path(__file__).resolve().parents[1]
#: Ignored by git; `make clean` removes it.
CACHE = REPOSITORY / ".pytest_cache" / "made"
_PACKAGES = ("keras", "keras-cv", "numpy", "pydicom", "scikit-learn", "tensorflow")
#: Folders of earlier sources that are kept beside the current one, for switching between branches.
_MAX_KEPT = 2


def sources_digest(more: Iterable[Path] = ()) -> str:
    """Returns a digest of the package, the configurations, `more` files and the packages' versions."""
    folders = (REPOSITORY / "lumbar_tf", REPOSITORY / "configs")
    # Tests do not use the pretrained ensemble.
    pretrained = REPOSITORY / "lumbar_tf" / "pretrained"
    paths = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and pretrained not in path.parents
    }
    digest = hashlib.sha256()
    for path in sorted(paths.union(more)):
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    for name in _PACKAGES:
        digest.update(f"{name}=={version(name)}\0".encode())
    return digest.hexdigest()[:16]


def make_once(name: str, make: Callable[[Path], object], *, sources: Iterable[Path] = ()) -> Path:
    """Returns a folder, made on first use by whichever process comes first while the others wait.

    Tests must not change its content.

    Args:
        name: of the kind of folder.
        make: writes the content to a path that does not exist yet.
        sources: test files that the content depends on, in addition to the package.
    """
    root = CACHE / name
    root.mkdir(parents=True, exist_ok=True)
    folder = root / sources_digest(sources)
    with lock_file(root / "lock"):
        done = folder / "done"
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder / "content")
            done.touch()
        os.utime(folder)
        _remove_old(root)
    return folder / "content"


def _remove_old(root: Path) -> None:
    folders = sorted(
        (path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for folder in folders[: -1 - _MAX_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
