"""Metadata of trained weights: `fold.json` of a fold and `run.json` of a member."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from lumbar_tf.ensemble.loss_attribution import LossAttribution, mean_attribution, read_attribution
from lumbar_tf.files import file_sha256, write_json_atomically
from lumbar_tf.training.devices import describe_device
from lumbar_tf.training.fold_crops import read_fold_crops
from lumbar_tf.training.runs import RUN_NAME, PlaneRun, table_name, training_versions

FOLD_METADATA_NAME = "fold.json"


@dataclass(frozen=True)
class FoldMetadata:
    """Training of one fold.

    Attributes:
        seed: seed of weights, order, augmentation and dropout.
        epochs: finished epochs.
        best_epoch: epoch of the final weights; the last epoch without early stopping.
        finished_at: end of the last epoch, UTC, ISO 8601.
        num_replicas: number of devices that shared each batch.
        precision: Keras' dtype policy.
        device: device of the last epoch.
        packages: installed versions at the last epoch.
        weights_sha256: digests by file name.
        loss_attribution: a grader's `LossAttribution` on the held-out fold; None for a localizer, and where
            no finding has an annotated and a predicted point.
    """

    seed: int
    epochs: int
    best_epoch: int
    finished_at: str
    num_replicas: int
    precision: str
    device: str
    packages: dict[str, str] = field(default_factory=dict)
    weights_sha256: dict[str, str] = field(default_factory=dict)
    loss_attribution: dict[str, Any] | None = None


def write_fold_metadata(
    directory: Path, weights: Sequence[Path], *, seed: int, epochs: int, best_epoch: int, num_replicas: int
) -> None:
    """Writes `fold.json` for weights that have just been written."""
    metadata = FoldMetadata(
        seed=seed,
        epochs=epochs,
        best_epoch=best_epoch,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        num_replicas=num_replicas,
        precision=keras.config.dtype_policy().name,
        device=describe_device(),
        packages=training_versions(),
        weights_sha256={path.name: file_sha256(path) for path in weights},
    )
    write_json_atomically(directory / FOLD_METADATA_NAME, asdict(metadata))


def write_loss_attribution(directory: Path, attribution: LossAttribution | None) -> None:
    """Adds the attribution of the held-out loss to a finished fold's `fold.json`."""
    metadata = read_fold_metadata(directory)
    if metadata is not None and attribution is not None:
        changed = replace(metadata, loss_attribution=asdict(attribution))
        write_json_atomically(directory / FOLD_METADATA_NAME, asdict(changed))


def member_attribution(run: PlaneRun, member: str) -> LossAttribution | None:
    """Returns the attribution of a grader's held-out loss over its finished folds; None if there is none."""
    folds = [read_fold_metadata(run.fold_directory(member, fold)) for fold in run.fold_numbers]
    return mean_attribution(
        [read_attribution(fold.loss_attribution) for fold in folds if fold and fold.loss_attribution]
    )


def read_fold_metadata(directory: Path) -> FoldMetadata | None:
    """Reads `fold.json`; returns None if the fold is not finished, or older than this file."""
    path = directory / FOLD_METADATA_NAME
    if not path.is_file():
        return None
    return FoldMetadata(**json.loads(path.read_text(encoding="utf-8")))


def member_metadata(run: PlaneRun, member: str) -> dict[str, Any]:
    """Returns the metadata of a member.

    Returns:
        `member`; `seed`; `origin`: the plane's `run.json` (digests of configuration, folds and records,
        package versions); `folds`: by number, the `fold.json` of each finished fold (seed, epochs, time,
        device, package versions, digests of weights) with the digest of its table, and `crops`: its
        `crops.json`, or None for a network without crops; `is_complete`: whether every fold is finished.
    """
    folds = {}
    for fold in run.fold_numbers:
        directory = run.fold_directory(member, fold)
        metadata = read_fold_metadata(directory)
        table = directory / table_name(member)
        if metadata is not None and table.is_file():
            crops = read_fold_crops(directory)
            folds[str(fold)] = asdict(metadata) | {
                "table_sha256": file_sha256(table),
                "crops": crops.content if crops is not None else None,
            }
    origin = json.loads((run.directory / RUN_NAME).read_text(encoding="utf-8"))
    return {
        "member": run.member_name(member),
        "seed": run.config.seed,
        "origin": origin,
        "folds": folds,
        "is_complete": len(folds) == len(run.fold_numbers),
    }


def write_member_metadata(run: PlaneRun, member: str) -> None:
    """Writes the member's `run.json`."""
    write_json_atomically(run.member_directory(member) / RUN_NAME, member_metadata(run, member))
