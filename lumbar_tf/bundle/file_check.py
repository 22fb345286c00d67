"""Check of a bundle's files against its manifest, `ensemble.json`, before any of them is loaded."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lumbar_tf.files import find_changed_files
from lumbar_tf.models.bundle_folder import DESCRIPTION_NAME, EXTRA, MANIFEST, SIGNATURE, read_ensemble_json

#: Key of the manifest with the digest of everything else in it.
DESCRIPTION_DIGEST = "description_sha256"
#: Files that TensorFlow writes into a SavedModel, and those of this package. A loader reads files with other
#: names if it finds them, such as other forms of the graph.
_NAME = re.compile(
    r"saved_model\.pb|fingerprint\.pb|variables/variables\.(index|data-[0-9]{5}-of-[0-9]{5})"
    rf"|{re.escape(EXTRA)}/[A-Za-z0-9_-][A-Za-z0-9_.-]*"
)
#: `assets` is empty; TensorFlow creates it.
_FOLDERS = ("assets", EXTRA, "variables")
_MAX_FILES = 1000


def seal_description(description: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of a manifest: the description, the digests of all files, and its own digest.

    Args:
        description: from `exporting.describe_ensemble`.
        digests: SHA-256 of all files but the manifest, by path relative to the bundle.
    """
    content = {**description, "files": dict(digests)}
    return {**content, DESCRIPTION_DIGEST: _content_sha256(content)}


def _content_sha256(content: Mapping[str, Any]) -> str:
    others = {key: value for key, value in content.items() if key != DESCRIPTION_DIGEST}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find_file_faults(path: Path) -> list[str]:
    """Returns the faults of a bundle's files, one sentence each.

    The manifest must list every file of the bundle, and its own digest must be right; bundles that were
    exported without such a digest need none. No file may be a link, absent, additional, or other than the
    exported one.

    Args:
        path: the version's folder.
    """
    content = read_ensemble_json(path)
    faults = []
    if content.get(DESCRIPTION_DIGEST, "") not in ("", _content_sha256(content)):
        faults.append(f"{MANIFEST} is not the description that was exported (its SHA-256 differs)")
    digests = content.get("files")
    if not isinstance(digests, dict) or not digests:
        return [*faults, f"{MANIFEST} must list the SHA-256 of every file under `files`"]
    found: set[str] = set()
    for name, is_regular in _walk(path):
        found.add(name)
        if len(found) > _MAX_FILES:
            return [*faults, f"the folder has more than {_MAX_FILES} files"]
        if not is_regular:
            faults.append(f"{name!r} must be a file, and not a link or a folder of another name")
        elif not _NAME.fullmatch(name):
            faults.append(f"{name!r} is not the name of a bundle's file")
        elif name not in digests and name not in (MANIFEST, SIGNATURE):
            faults.append(f"{name} is not listed in `files` of {DESCRIPTION_NAME}")
    faults += [f"{name} is absent" for name in sorted(set(digests) - found)]
    # Only the files of the bundle are read.
    return faults or [
        f"{name} is not the file that was exported (its SHA-256 differs)"
        for name in find_changed_files(path, digests)
    ]


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yields the relative names of files and of unexpected entries, and whether it is a regular file."""
    for entry in sorted(folder.iterdir()):
        name = f"{prefix}{entry.name}"
        if entry.is_symlink():
            yield name, False
        elif name in _FOLDERS and entry.is_dir():
            yield from _walk(entry, f"{name}/")
        else:
            yield name, entry.is_file()
