"""Folders of exported ensembles: numbered versions, and the description in each."""

import json
from pathlib import Path
from typing import Any

from lumbar_tf.serving.contract import parse_coverage
from lumbar_tf.serving.training_data import parse_training

#: Folder of a version that TensorFlow Serving does not read, except for the warm-up requests.
EXTRA = "assets.extra"
DESCRIPTION_NAME = "ensemble.json"
#: Relative paths of the manifest and of its signature, which is optional.
MANIFEST = f"{EXTRA}/{DESCRIPTION_NAME}"
SIGNATURE = f"{MANIFEST}.sig"
#: Larger manifests are not read; that of the demo's ensemble has 20 kB.
MAX_DESCRIPTION_BYTES = 16 << 20
#: Name that TensorFlow Serving prescribes.
WARMUP_NAME = "tf_serving_warmup_requests"
PARITY_NAME = "parity_requests.tfrecord"
CARD_NAME = "model_card.md"
STACKER_NAME = "stacker.json"
MODEL_NAME = "saved_model.pb"


def next_version(models: Path) -> int:
    """Returns one more than the largest numbered version in a folder, at least 1."""
    versions = [int(path.name) for path in models.glob("*") if path.is_dir() and path.name.isdecimal()]
    return max(versions, default=0) + 1


def find_version(path: Path) -> Path:
    """Returns the folder of a version: the path itself, or the newest version in it.

    Raises:
        ValueError: there is no SavedModel.
    """
    newest = path if (path / MODEL_NAME).is_file() else path / str(next_version(path) - 1)
    if not (newest / MODEL_NAME).is_file():
        raise ValueError(f"The model must be an exported version or a folder of versions. Received: {path}.")
    return newest


def has_version(path: Path) -> bool:
    """Returns whether a path is a version's folder or contains one; see `find_version`."""
    try:
        find_version(path)
    except ValueError:
        return False
    return True


def read_ensemble_json(path: Path) -> dict[str, Any]:
    """Reads the `ensemble.json` of a version.

    Raises:
        ValueError: the file is absent, too large, or does not describe an ensemble.
    """
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        raise ValueError(f"A bundle must contain {MANIFEST}. Received: {path} without it.")
    if file.stat().st_size > MAX_DESCRIPTION_BYTES:
        raise ValueError(
            f"A bundle's {MANIFEST} must have at most {MAX_DESCRIPTION_BYTES} bytes. Received: {path}."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise ValueError(f"A bundle's {MANIFEST} must be JSON. Received: {path} ({error}).") from error
    members = content.get("members") if isinstance(content, dict) else None
    if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
        raise ValueError(f"A bundle's {MANIFEST} must hold an object with its members. Received: {path}.")
    try:
        parse_training(content)
        parse_coverage(content)
    except ValueError as error:
        raise ValueError(f"A bundle's {MANIFEST} must be valid. Received: {path}: {error}") from error
    description: dict[str, Any] = content
    return description
