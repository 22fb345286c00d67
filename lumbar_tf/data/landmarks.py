"""Predicted landmarks on disk: one CSV row a study and finding, in patient space."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_LEVELS, finding_index, parse_row_id, row_id

_COLUMNS = ("row_id", "x_mm", "y_mm", "z_mm", "spread_mm", "fold")
#: Residuals beyond this are wrong levels, not noise, and are no model for the jitter of training, mm.
_OUTLIER_MM = 10.0

Points = NDArray[np.float32]


@dataclass(frozen=True)
class LandmarkTable:
    """Landmarks of one fold's held-out studies.

    Attributes:
        study_ids: n studies.
        rows: the findings pointed at, as rows of the 25.
        points: float32 [n, rows, 3], LPS mm.
        spread_mm: float32 [n, rows].
        fold: the fold that was held out.
    """

    study_ids: Sequence[str]
    rows: Sequence[int]
    points: Points
    spread_mm: Points
    fold: int


def write_landmarks(path: Path, table: LandmarkTable) -> None:
    """Writes a table atomically."""
    with replace_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for study, points, spreads in zip(table.study_ids, table.points, table.spread_mm, strict=True):
            for row, point, spread in zip(table.rows, points, spreads, strict=True):
                numbers = [f"{value:.4f}" for value in (*point, spread)]
                writer.writerow([row_id(study, FINDINGS[row]), *numbers, table.fold])


def read_landmarks(paths: Iterable[Path], *, folds: Mapping[str, int] | None = None) -> dict[str, Points]:
    """Reads tables and lays them into the 25 rows.

    Args:
        paths: tables as `write_landmarks` writes them.
        folds: fold by study; a landmark found by a localizer of another fold is refused.

    Returns:
        float32 [25, 3] by study, LPS mm, NaN where no table points.

    Raises:
        ValueError: a column is missing, a number is none, or a study is in another fold; names file and row.
    """
    points: dict[str, Points] = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise ValueError(f"{path} must have the columns {_COLUMNS}. Received: {reader.fieldnames}.")
            for row in reader:
                study, finding = parse_row_id(row["row_id"])
                if folds is not None and str(folds.get(study, row["fold"])) != row["fold"]:
                    raise ValueError(
                        f"{path}: a landmark must come from the fold that held its study out. Received: "
                        f"study {study}, fold {row['fold']} against {folds[study]}."
                    )
                table = points.setdefault(study, np.full((NUM_FINDINGS, 3), np.nan, np.float32))
                try:
                    table[finding_index(finding.condition, finding.level)] = [
                        float(row[name]) for name in _COLUMNS[1:4]
                    ]
                except ValueError as error:
                    raise ValueError(
                        f"{path}, row {row['row_id']}: coordinates must be numbers. {error}"
                    ) from error
    return points


@dataclass(frozen=True)
class LandmarkError:
    """How far predicted landmarks lie from annotated ones.

    Attributes:
        num_points: compared.
        median_mm: median distance.
        within_10_mm: share of points within 10 mm.
        own_level: share of points nearest to their own level's annotated point.
        sd_mm: standard deviation of the error along x, y, z, wrong levels left out.
    """

    num_points: int
    median_mm: float
    within_10_mm: float
    own_level: float
    sd_mm: tuple[float, float, float]


def measure_error(predicted: Mapping[str, Points], annotated: Mapping[str, Points]) -> LandmarkError:
    """Compares landmarks.

    Args:
        predicted: float32 [25, 3] by study.
        annotated: likewise; studies and points in only one of the two are left out.

    Returns:
        The error; with no point in common, NaN and a standard deviation of 0.
    """
    pairs = [(predicted[study], annotated[study]) for study in predicted if study in annotated]
    if not pairs:
        return LandmarkError(0, float("nan"), float("nan"), float("nan"), (0.0, 0.0, 0.0))
    guess, truth = (np.stack(each).astype(np.float64) for each in zip(*pairs, strict=True))
    known = np.isfinite(guess).all(-1) & np.isfinite(truth).all(-1)
    if not known.any():
        return LandmarkError(0, float("nan"), float("nan"), float("nan"), (0.0, 0.0, 0.0))
    residual = (guess - truth)[known]
    distance = np.linalg.norm(residual, axis=-1)
    near = residual[distance <= _OUTLIER_MM]
    deviation = np.sqrt(np.mean(near**2, axis=0)) if len(near) else np.zeros(3)
    return LandmarkError(
        num_points=len(distance),
        median_mm=float(np.median(distance)),
        within_10_mm=float(np.mean(distance <= _OUTLIER_MM)),
        own_level=float(np.mean(_is_own_level(guess, truth)[known])),
        sd_mm=(float(deviation[0]), float(deviation[1]), float(deviation[2])),
    )


def _is_own_level(guess: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each point is nearest to its own level among its condition's five annotated points."""
    by_condition = (len(guess), NUM_FINDINGS // NUM_LEVELS, NUM_LEVELS, 3)
    guess, truth = guess.reshape(by_condition), truth.reshape(by_condition)
    distance = np.linalg.norm(guess[:, :, :, None] - truth[:, :, None], axis=-1)
    nearest = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=-1)
    own: NDArray[np.bool_] = nearest == np.arange(NUM_LEVELS)
    return own.reshape(len(guess), NUM_FINDINGS)
