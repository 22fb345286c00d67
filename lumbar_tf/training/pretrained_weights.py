"""Initial weights of the pretrained ensemble: a run's folders with what a warm start reads.

weights/manifest.json                              SHA-256 of the other files
weights/<plane>/config.yaml, run.json              as in a run, for the checks of `warm_start`
weights/<plane>/<member>/fold0/weights.weights.h5  of the localizer and of each backbone, one fold
"""

import json
import shutil
from pathlib import Path

from lumbar_tf.files import file_sha256, write_json_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.models.pretrained import WEIGHTS_FOLDER, describe_no_weights, pretrained_folder
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.runs import LOCALIZER, RUN_NAME

CONFIG_NAME = "config.yaml"
_MANIFEST_NAME = "manifest.json"


def copy_weights(runs: Path, out: Path) -> None:
    """Copies the first fold of each network of a run.

    Args:
        runs: folder of all planes' runs.
        out: gets the files; must not exist.
    """
    for plane in Plane:
        folder = runs / plane.value
        if not (folder / RUN_NAME).is_file():
            continue
        paths = sorted(folder.glob(f"*/fold*/{WEIGHTS_NAME}"), reverse=True)
        first = {path.parents[1].name: path for path in paths}
        files = [folder / CONFIG_NAME, folder / RUN_NAME, *first.values()]
        for path in files:
            copied = out / path.relative_to(runs)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
    digests = {
        path.relative_to(out).as_posix(): file_sha256(path)
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
    write_json_atomically(out / _MANIFEST_NAME, digests)


def find_weights_folder() -> Path:
    """Returns the folder with the initial weights of the pretrained ensemble.

    Raises:
        ValueError: it is absent, or a file is not the one that was installed.
    """
    folder = pretrained_folder() / WEIGHTS_FOLDER
    if not (folder / _MANIFEST_NAME).is_file():
        raise ValueError(
            "init_from=pretrained needs the initial weights of the pretrained ensemble. "
            f"{describe_no_weights()}"
        )
    digests = json.loads((folder / _MANIFEST_NAME).read_text(encoding="utf-8"))
    changed = [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or file_sha256(folder / name) != digest
    ]
    if changed:
        raise ValueError(
            f"Pretrained weights must be the files that were installed. Received: {folder} with another "
            f"{changed[0]}."
        )
    return folder


def list_backbones(folder: Path, plane: Plane, localizer_backbone: str | None) -> str:
    """Returns the backbones of a plane with initial weights, as text for a message.

    Args:
        folder: from `find_weights_folder`.
        plane: plane of the networks.
        localizer_backbone: backbone of its localizer, if it has one.
    """
    members = sorted(path.parents[1].name for path in (folder / plane.value).glob(f"*/fold*/{WEIGHTS_NAME}"))
    graders = [name for name in members if name != LOCALIZER]
    localizer = f"; localizer: {localizer_backbone}" if LOCALIZER in members else ""
    return f"graders: {', '.join(graders) or 'none'}{localizer}"
