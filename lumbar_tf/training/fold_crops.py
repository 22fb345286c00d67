"""`runs/<plane>/<member>/fold0/crops.json`: where one fold's crops are cut and how far training moves them.

Other folds' localizers may end while this one trains, or between a kill and the second start. So what there
is when a fold begins is written down, and whatever goes on with the fold keeps to it.
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
    """What the crops of one fold are cut at, in training and in answering.

    Attributes:
        plane: whose localizer the jitter was measured of.
        jitter_mm: standard deviation of the jitter of training points along x, y, z (LPS).
        tables_sha256: digest of each landmark table that there was when the fold began, by its path below
            the folder of all runs; of all folds, the held-out one included.
    """

    plane: Plane
    jitter_mm: tuple[float, float, float]
    tables_sha256: dict[str, str]

    def tables(self, runs: Path) -> tuple[Path, ...]:
        """The tables themselves."""
        return tuple(runs / each for each in self.tables_sha256)

    @property
    def content(self) -> dict[str, object]:
        """As JSON holds it."""
        return {
            "plane": self.plane.value,
            "jitter_mm": list(self.jitter_mm),
            "tables_sha256": self.tables_sha256,
        }


def grader_crops(run: PlaneRun, backbone: str, fold: int) -> FoldCrops:
    """Returns what a grader's fold began with, or writes down what there is where it begins now.

    Raises:
        ValueError: there are no landmarks, or not any more those that the fold began with.
    """
    tables = crop_tables(run)
    return _begin(
        run,
        run.fold_directory(backbone, fold),
        [*tables.level, *tables.axial],
        landmark_plane(run),
        lambda: landmark_jitter(run, fold=fold),
    )


def search_crops(run: PlaneRun, fold: int, *, factor: float) -> FoldCrops:
    """Returns the same of the axial localizer; its jitter is the error of level points times a factor.

    Raises:
        ValueError: as `grader_crops`.
    """
    return _begin(
        run,
        run.fold_directory(LOCALIZER, fold),
        level_tables(run),
        level_plane(run),
        lambda: level_jitter(run, fold=fold, factor=factor),
    )


def read_fold_crops(directory: Path) -> FoldCrops | None:
    """Reads a fold's `crops.json`; None where it is not begun, cuts none, or is older than the file."""
    path = directory / CROPS_NAME
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    x, y, z = content["jitter_mm"]
    return FoldCrops(Plane(content["plane"]), (x, y, z), content["tables_sha256"])


def _begin(
    run: PlaneRun,
    directory: Path,
    tables: Sequence[Path],
    plane: Plane,
    measure: Callable[[], tuple[float, float, float]],
) -> FoldCrops:
    known = read_fold_crops(directory)
    if known is not None:
        _require_unchanged(known, directory, run.runs)
        return known
    crops = FoldCrops(plane, measure(), digest_tables(run, tables))
    write_json_atomically(directory / CROPS_NAME, crops.content)
    return crops


def _require_unchanged(crops: FoldCrops, directory: Path, runs: Path) -> None:
    """Refuses tables that were lost or written anew; those that came since are passed over."""
    for name, digest in crops.tables_sha256.items():
        path = runs / name
        found = file_sha256(path) if path.is_file() else "no file"
        if found != digest:
            raise ValueError(
                f"{directory} must go on with the landmarks that it began with: {path} with the SHA-256 "
                f"{digest}. Received: {found}. Put the table back, or remove the folder to begin the fold "
                "afresh."
            )
