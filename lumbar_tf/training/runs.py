"""Folder of a training run: file names, origin and folds.

runs/<plane>/config.yaml                     resolved configuration
runs/<plane>/run.json                        digests of configuration, folds, records and label-noise tables
runs/<plane>/localizer/fold0/                weights, fold.json, history, checkpoint, landmarks.csv
runs/<plane>/localizer/error.json            localization error on the held-out folds, for information
runs/axial_t2/level_slices.json              agreement of sagittal level points with the annotators' slices
runs/<plane>/<backbone>/fold0/               weights, fold.json, history, checkpoint, oof.csv, and for what
                                             points cost oof_annotated.csv, oof_annotated_slice.csv
runs/<plane>/<member>/fold0/crops.json       landmark tables and jitter of the fold's crops
runs/<plane>/<backbone>/oof.csv              out-of-fold table of all folds, input of the ensemble; the
                                             other two tables of all folds are beside it
runs/<plane>/<member>/run.json               origin of the member: the plane's run.json and each fold.json
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.config import PlaneConfig, dump_config, load_plane_config
from lumbar_tf.files import file_sha256, find_paths, write_json_atomically, write_text_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    is_synthetic_folder,
    package_versions,
    read_manifest,
)
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds, sample_folds

LOCALIZER = "localizer"
CONFIG_NAME = "config.yaml"
RUN_NAME = "run.json"
#: Key in `run.json`: whether all studies of the records are synthetic. Older runs do not have it.
_SYNTHETIC_KEY = "is_synthetic"
LANDMARKS_NAME = "landmarks.csv"
OOF_NAME = "oof.csv"
ERROR_NAME = "error.json"

#: Packages that influence weights, in addition to those that influence records.
_PACKAGES = ("tensorflow", "keras", "keras-cv")


@dataclass(frozen=True)
class PlaneRun:
    """Training run of one plane: configuration, records, folds and folder.

    Attributes:
        config: the plane's configuration.
        records: folder of the records.
        runs: folder of all planes' runs.
        manifest: manifest of the records.
        folds: fold by study; the run uses these studies only.
    """

    config: PlaneConfig
    records: Path
    runs: Path
    manifest: Manifest
    folds: dict[str, int]

    @property
    def directory(self) -> Path:
        """Folder of the plane."""
        return self.runs / self.config.plane.value

    def member_directory(self, member: str) -> Path:
        """Returns the folder of the localizer or of a backbone."""
        return self.directory / member

    def fold_directory(self, member: str, fold: int) -> Path:
        """Returns the folder of a fold of the localizer or of a backbone."""
        return self.directory / member / f"fold{fold}"

    def member_name(self, member: str) -> str:
        """Returns the member's name in tables, such as `sagittal_t2/mobilenet_v2`."""
        return f"{self.config.plane.value}/{member}"

    def fold_seed(self, fold: int) -> int:
        """Returns the seed of a fold's weights, order and augmentation."""
        return self.config.seed * 1000 + fold

    def is_done(self, member: str, fold: int) -> bool:
        """Returns whether a fold is finished: its table, the last file of a fold, exists."""
        return (self.fold_directory(member, fold) / table_name(member)).is_file()

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """Numbers of all folds, ascending."""
        return tuple(sorted(set(self.folds.values())))

    @property
    def shards(self) -> tuple[Path, ...]:
        """Record files of the plane."""
        return tuple(self.records / shard.file for shard in self.manifest.planes[self.config.plane.value])

    def studies(self, *, held_out: int, is_training: bool) -> tuple[str, ...]:
        """Returns the run's studies with the plane inside (or, for training, outside) a held-out fold."""
        shards = self.manifest.planes[self.config.plane.value]
        present = [study for shard in shards for study in shard.study_ids]
        used = [study for study in present if study in self.folds]
        return tuple(study for study in used if (self.folds[study] != held_out) == is_training)


def open_run(
    config: PlaneConfig,
    *,
    records: Path,
    runs: Path,
    folds_path: Path | None = None,
    num_studies: int | None = None,
) -> PlaneRun:
    """Starts or resumes a plane's run.

    Args:
        config: resolved configuration.
        records: folder with `manifest.json`.
        runs: folder of all planes' runs.
        folds_path: `folds.csv`; that of the records by default.
        num_studies: size of a sample of the studies, see `sample_folds`; None uses all.

    Returns:
        The run; its folder contains `config.yaml` and `run.json`.

    Raises:
        ValueError: there are no records of the plane, label-noise tables are missing, or the folder contains
        a
            run of another configuration, other folds, records or tables.
    """
    manifest = read_manifest(records)
    if not manifest.planes.get(config.plane.value):
        raise ValueError(f"The records in {records} contain no study with the plane {config.plane.value}.")
    folds_path = folds_path or records / FOLDS_NAME
    folds = read_folds(folds_path, manifest.patient_groups)
    if num_studies is not None:
        folds = sample_folds(folds, manifest.patient_groups, num_studies=num_studies)
    run = PlaneRun(config, records, runs, manifest, folds)
    _write_origin(run, _origin(run, folds_path, num_studies))
    return run


def _origin(run: PlaneRun, folds_path: Path, num_studies: int | None) -> dict[str, object]:
    noise = run.config.grader.label_noise
    noise_tables = [] if noise is None else find_noise_tables(noise.oof, runs=run.runs)
    return {
        "config_sha256": hashlib.sha256(dump_config(run.config).encode()).hexdigest(),
        "folds_sha256": file_sha256(folds_path)
        + ("" if num_studies is None else f" of {num_studies} studies"),
        "manifest_sha256": file_sha256(run.records / MANIFEST_NAME),
        "noise_tables_sha256": [file_sha256(path) for path in noise_tables],
        "schema_version": run.manifest.schema_version,
        _SYNTHETIC_KEY: run.manifest.is_synthetic,
        # A run that starts from these weights must not be evaluated on these studies.
        "studies": sorted(run.folds),
        "packages": training_versions(),
    }


def _write_origin(run: PlaneRun, origin: dict[str, object]) -> None:
    """Writes `config.yaml` and `run.json`, or compares them with those of a run that has started."""
    path = run.directory / RUN_NAME
    # Until the first fold starts nothing depends on the folder, so a failed call can be corrected.
    if path.is_file() and any(run.directory.glob("*/fold*")):
        known = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key, value in origin.items() if key.endswith("sha256") and known.get(key) != value]
        if changed:
            names = ", ".join(key.removesuffix("_sha256") for key in changed)
            raise ValueError(
                f"{run.directory} contains a run with another {names}. "
                "Choose another --runs folder, or remove this one to start again."
            )
        return
    write_text_atomically(run.directory / CONFIG_NAME, dump_config(run.config))
    write_json_atomically(path, origin)


def table_name(member: str) -> str:
    """Returns the name of the table of a member's fold."""
    return LANDMARKS_NAME if member == LOCALIZER else OOF_NAME


def find_plane_configs(runs: Path) -> dict[Plane, PlaneConfig]:
    """Returns the configuration of each plane with a run in the folder."""
    found = {}
    for plane in Plane:
        path = runs / plane.value / CONFIG_NAME
        if path.is_file():
            found[plane] = load_plane_config(path)
    return found


def has_synthetic_studies(runs: Path, planes: Iterable[Plane], records: Path) -> bool:
    """Returns whether networks of any of the planes were trained on synthetic studies.

    Args:
        runs: folder of all planes' runs.
        planes: planes of the networks.
        records: records that decide for runs which are too old to contain it; may be absent.
    """
    paths = [runs / plane.value / RUN_NAME for plane in planes]
    origins = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    found = [origin.get(_SYNTHETIC_KEY) for origin in origins]
    is_decided = len(found) == len(paths) and None not in found
    return any(found) or (not is_decided and is_synthetic_folder(records))


def landmark_tables(runs: Path, planes: Iterable[Plane]) -> list[Path]:
    """Returns the landmark tables of all finished folds of the planes' localizers."""
    return [
        path
        for plane in planes
        for path in sorted((runs / plane.value / LOCALIZER).glob(f"fold*/{LANDMARKS_NAME}"))
    ]


def find_noise_tables(pattern: str, *, runs: Path) -> list[Path]:
    """Returns the out-of-fold tables that a glob pattern matches, sorted.

    Args:
        pattern: such as `before/*/*/oof.csv`.
        runs: folder of the run that starts. Its own tables are refused: they would differ on resuming.

    Raises:
        ValueError: no table matches, or one lies below `runs`.
    """
    paths = find_paths(pattern)
    if not paths:
        raise ValueError(f"A pattern of out-of-fold tables must match a file. Received: {pattern!r}.")
    own = [path for path in paths if path.resolve().is_relative_to(runs.resolve())]
    if own:
        raise ValueError(
            "Label noise must be estimated from the tables of an earlier run, in another folder. "
            f"Received: {own[0]}, below {runs}."
        )
    return paths


def training_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that influence weights."""
    return package_versions(*_PACKAGES)
