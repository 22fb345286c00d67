"""What a fold's training was: beside its weights, for whoever finds them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import keras

from lumbar_tf.files import file_sha256, write_json_atomically
from lumbar_tf.records.manifest import package_versions
from lumbar_tf.training.devices import describe_device

FOLD_RECORD_NAME = "fold.json"

#: The packages whose versions can change weights, beside those that make the records.
_PACKAGES = ("tensorflow", "keras", "keras-cv")


@dataclass(frozen=True)
class FoldMetadata:
    """One fold's training.

    Attributes:
        seed: of weights, order, augmentation and dropout.
        epochs: that were trained.
        best_epoch: whose weights were kept; the last one without early stopping.
        finished_at: when the last epoch was done, UTC, ISO 8601.
        num_replicas: devices that shared each batch.
        precision: Keras' dtype policy.
        device: what computed the last epoch.
        packages: installed versions there.
        weights_sha256: by file name.
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


def training_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that make weights."""
    return package_versions(*_PACKAGES)


def write_fold_metadata(
    directory: Path, weights: Sequence[Path], *, seed: int, epochs: int, best_epoch: int, num_replicas: int
) -> None:
    """Writes `fold.json` for weights that have just been written."""
    record = FoldMetadata(
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
    write_json_atomically(directory / FOLD_RECORD_NAME, asdict(record))


def read_fold_metadata(directory: Path) -> FoldMetadata | None:
    """Reads `fold.json`; None where the fold was trained before there was one, or not at all."""
    path = directory / FOLD_RECORD_NAME
    if not path.is_file():
        return None
    return FoldMetadata(**json.loads(path.read_text(encoding="utf-8")))
