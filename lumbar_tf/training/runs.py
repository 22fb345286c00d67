"""The folder of a training run: what is where, and what it was made from.

runs/<plane>/config.yaml                     the resolved configuration
runs/<plane>/run.json                        digests of configuration, folds, records and tables of noise
runs/<plane>/localizer/fold0/                weights, fold.json, history, checkpoint, landmarks.csv
runs/<plane>/localizer/error.json            measured on the held-out folds, to be read
runs/axial_t2/level_slices.json              how often sagittal level points lead to the annotator's slice
runs/<plane>/<backbone>/fold0/               weights, fold.json, history, checkpoint, oof.csv
runs/<plane>/<member>/fold0/crops.json       where crops are cut, and how far training moves them
runs/<plane>/<backbone>/oof.csv              all folds, the ensemble's currency
runs/<plane>/<member>/run.json               what made the member: the plane's run.json, and each fold.json
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.config import PlaneConfig, dump_config, load_plane_config
from lumbar_tf.files import file_sha256, write_json_atomically, write_text_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, read_manifest
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
from lumbar_tf.training.dropped_labels import find_noise_tables
from lumbar_tf.training.fitter import WEIGHTS_NAME
from lumbar_tf.training.fold_metadata import training_versions

LOCALIZER = "localizer"
RUN_NAME = "run.json"
LANDMARKS_NAME = "landmarks.csv"
OOF_NAME = "oof.csv"
ERROR_NAME = "error.json"

__all__ = [
    "ERROR_NAME",
    "LANDMARKS_NAME",
    "LOCALIZER",
    "OOF_NAME",
    "RUN_NAME",
    "WEIGHTS_NAME",
    "PlaneRun",
    "find_plane_configs",
    "landmark_tables",
    "open_run",
    "table_name",
]


@dataclass(frozen=True)
class PlaneRun:
    """One plane's training: its records, folds, configuration and folder.

    Attributes:
        config: the plane's configuration.
        records: folder of the records.
        runs: folder of all planes' runs.
        manifest: of the records.
        folds: fold by study.
    """

    config: PlaneConfig
    records: Path
    runs: Path
    manifest: Manifest
    folds: dict[str, int]

    @property
    def directory(self) -> Path:
        """The plane's own folder."""
        return self.runs / self.config.plane.value

    def member_directory(self, member: str) -> Path:
        """The folder of the localizer or of one backbone."""
        return self.directory / member

    def fold_directory(self, member: str, fold: int) -> Path:
        """The folder of one fold of the localizer or of one backbone."""
        return self.directory / member / f"fold{fold}"

    def member_name(self, member: str) -> str:
        """`sagittal_t2/mobilenet_v2`: the member's name in every table."""
        return f"{self.config.plane.value}/{member}"

    def fold_seed(self, fold: int) -> int:
        """The seed of one fold's weights, order and augmentation."""
        return self.config.seed * 1000 + fold

    def is_answered(self, member: str, fold: int) -> bool:
        """Whether a fold's held-out studies have been answered: the last thing that is done for it."""
        return (self.fold_directory(member, fold) / table_name(member)).is_file()

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """All folds, ascending."""
        return tuple(sorted(set(self.folds.values())))

    @property
    def shards(self) -> tuple[Path, ...]:
        """The plane's record files."""
        return tuple(self.records / shard.file for shard in self.manifest.planes[self.config.plane.value])

    def studies(self, *, held_out: int, is_training: bool) -> tuple[str, ...]:
        """The studies that have the plane and are in (or outside) a held-out fold."""
        shards = self.manifest.planes[self.config.plane.value]
        present = [study for shard in shards for study in shard.study_ids]
        return tuple(study for study in present if (self.folds[study] != held_out) == is_training)


def open_run(config: PlaneConfig, *, records: Path, runs: Path, folds_path: Path | None = None) -> PlaneRun:
    """Starts or continues a plane's run.

    Args:
        config: the resolved configuration.
        records: folder with `manifest.json`.
        runs: folder of all runs.
        folds_path: `folds.csv`; the records' own by default.

    Returns:
        The run; its folder holds `config.yaml` and `run.json`.

    Raises:
        ValueError: there are no records of the plane, the tables that labels are judged by are not there, or
            the folder holds a run made from another configuration, other folds, records or tables.
    """
    manifest = read_manifest(records)
    if not manifest.planes.get(config.plane.value):
        raise ValueError(f"The records in {records} hold no study with the plane {config.plane.value}.")
    folds_path = folds_path or records / FOLDS_NAME
    run = PlaneRun(config, records, runs, manifest, read_folds(folds_path, manifest.patient_groups))
    _claim(run, _origin(run, folds_path))
    return run


def _origin(run: PlaneRun, folds_path: Path) -> dict[str, object]:
    noise = run.config.grader.label_noise
    noise_tables = [] if noise is None else find_noise_tables(noise.oof, runs=run.runs)
    return {
        "config_sha256": hashlib.sha256(dump_config(run.config).encode()).hexdigest(),
        "folds_sha256": file_sha256(folds_path),
        "manifest_sha256": file_sha256(run.records / MANIFEST_NAME),
        "noise_tables_sha256": [file_sha256(path) for path in noise_tables],
        "schema_version": run.manifest.schema_version,
        # Whoever starts from these weights must not be tested on what they have seen.
        "studies": sorted(run.folds),
        "packages": training_versions(),
    }


def _claim(run: PlaneRun, origin: dict[str, object]) -> None:
    path = run.directory / RUN_NAME
    # Until a fold was begun nothing depends on the folder: a call that failed may be put right.
    if path.is_file() and any(run.directory.glob("*/fold*")):
        known = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key, value in origin.items() if key.endswith("sha256") and known.get(key) != value]
        if changed:
            names = ", ".join(each.removesuffix("_sha256") for each in changed)
            raise ValueError(
                f"{run.directory} holds a run made from another {names}. "
                "Choose another --runs folder, or remove this one to start afresh."
            )
        return
    write_text_atomically(run.directory / "config.yaml", dump_config(run.config))
    write_json_atomically(path, origin)


def table_name(member: str) -> str:
    """Returns the name of the table that a member writes for each fold."""
    return LANDMARKS_NAME if member == LOCALIZER else OOF_NAME


def find_plane_configs(runs: Path) -> dict[Plane, PlaneConfig]:
    """Returns the configuration of each plane that has a run in the folder."""
    found = {}
    for plane in Plane:
        path = runs / plane.value / "config.yaml"
        if path.is_file():
            found[plane] = load_plane_config(path)
    return found


def landmark_tables(runs: Path, planes: Iterable[Plane]) -> list[Path]:
    """Returns the landmark tables of all folds of the planes' localizers."""
    return [
        path
        for plane in planes
        for path in sorted((runs / plane.value / LOCALIZER).glob(f"fold*/{LANDMARKS_NAME}"))
    ]
