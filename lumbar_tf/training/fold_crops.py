"""Landmark tables and jitter of a fold's crops, `runs/<plane>/<member>/fold0/crops.json`.

Localizers of other folds may finish while a fold trains, or before a killed fold resumes. The tables that
exist when a fold starts are therefore recorded, and the fold uses these until it is finished.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.files import file_sha256, write_json_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.training.predicted_points import (
    crop_tables,
    digest_tables,
    landmark_jitter,
    landmark_plane,
    level_jitter,
    level_plane,
    level_tables,
)
from lumbar_tf.training.runs import LOCALIZER, PlaneRun

CROPS_NAME = "crops.json"


@dataclass(frozen=True)
class FoldCrops:
    """Landmark tables and jitter of the crops of one fold, in training and evaluation.

    Attributes:
        plane: plane of the localizer whose error is the jitter.
        jitter_mm: standard deviation of the jitter of training points along x, y, z (LPS).
        tables_sha256: digests of the landmark tables at the start of the fold, by path below the folder of
        all
            runs; of all folds including the held-out one.
    """

    plane: Plane
    jitter_mm: tuple[float, float, float]
    tables_sha256: dict[str, str]

    def tables(self, runs: Path) -> tuple[Path, ...]:
        """Returns the paths of the tables."""
        return tuple(runs / name for name in self.tables_sha256)

    @property
    def content(self) -> dict[str, object]:
        """Content of `crops.json`."""
        return {
            "plane": self.plane.value,
            "jitter_mm": list(self.jitter_mm),
            "tables_sha256": self.tables_sha256,
        }


def grader_crops(run: PlaneRun, backbone: str, fold: int) -> FoldCrops:
    """Returns the crops of a grader's fold: those recorded at its start, or recorded now.

    Raises:
        ValueError: there are no landmarks, or a recorded table is missing or changed.
    """
    tables = crop_tables(run)
    return _recorded_crops(
        run,
        run.fold_directory(backbone, fold),
        [*tables.level, *tables.axial],
        landmark_plane(run),
        lambda: landmark_jitter(run, fold=fold),
    )


def axial_localizer_crops(run: PlaneRun, fold: int, *, factor: float) -> FoldCrops:
    """Returns the crops of an axial localizer's fold; the jitter is the error of level points times `factor`.

    Raises:
        ValueError: as `grader_crops`.
    """
    return _recorded_crops(
        run,
        run.fold_directory(LOCALIZER, fold),
        level_tables(run),
        level_plane(run),
        lambda: level_jitter(run, fold=fold, factor=factor),
    )


def read_fold_crops(directory: Path) -> FoldCrops | None:
    """Reads `crops.json`; returns None if there is none (no start, no crops, or an older version)."""
    path = directory / CROPS_NAME
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    x, y, z = content["jitter_mm"]
    return FoldCrops(Plane(content["plane"]), (x, y, z), content["tables_sha256"])


def _recorded_crops(
    run: PlaneRun,
    directory: Path,
    tables: Sequence[Path],
    plane: Plane,
    measure: Callable[[], tuple[float, float, float]],
) -> FoldCrops:
    recorded = read_fold_crops(directory)
    if recorded is not None:
        _require_unchanged(recorded, directory, run.runs)
        return recorded
    crops = FoldCrops(plane, measure(), digest_tables(run, tables))
    write_json_atomically(directory / CROPS_NAME, crops.content)
    return crops


def _require_unchanged(crops: FoldCrops, directory: Path, runs: Path) -> None:
    """Raises ValueError if a recorded table is missing or changed; newer tables are ignored."""
    for name, digest in crops.tables_sha256.items():
        path = runs / name
        found = file_sha256(path) if path.is_file() else "no file"
        if found != digest:
            raise ValueError(
                f"{directory} must resume with the landmarks of its start: {path} with the SHA-256 {digest}. "
                f"Received: {found}. Restore the table, or remove the folder to start the fold again."
            )
