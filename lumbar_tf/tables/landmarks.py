"""Predicted landmarks: tables with one row per study and finding, in patient space, and their error."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_LEVELS, finding_index, parse_row_id, row_id
from lumbar_tf.tables.text_table import read_text_table

_COLUMNS = ("row_id", "x_mm", "y_mm", "z_mm", "spread_mm", "doubt", "fold")
#: Larger residuals are points on wrong levels, which the jitter of training does not simulate, mm.
_OUTLIER_MM = 10.0

Points = NDArray[np.float32]


@dataclass(frozen=True)
class LandmarkTable:
    """Landmarks of one fold's held-out studies.

    Attributes:
        study_ids: n studies.
        rows: indices of the located findings, 0 to 24.
        points: float32 [n, rows, 3], LPS mm.
        spread_mm: float32 [n, rows].
        doubt: float32 [n, rows], the probability that the point is on another level's disc.
        fold: the held-out fold.
    """

    study_ids: Sequence[str]
    rows: Sequence[int]
    points: Points
    spread_mm: Points
    doubt: Points
    fold: int


def write_landmarks(path: Path, table: LandmarkTable) -> None:
    """Writes a table atomically."""
    measures = np.concatenate(
        [table.points, table.spread_mm[..., np.newaxis], table.doubt[..., np.newaxis]], axis=-1
    )
    rows = [
        [row_id(study, FINDINGS[row]), *(f"{value:.4f}" for value in values), table.fold]
        for study, study_measures in zip(table.study_ids, measures, strict=True)
        for row, values in zip(table.rows, study_measures, strict=True)
    ]
    write_table_atomically(path, _COLUMNS, rows)


def read_landmarks(paths: Iterable[Path], *, folds: Mapping[str, int] | None = None) -> dict[str, Points]:
    """Reads the points of landmark tables.

    Args:
        paths: tables in the format of `write_landmarks`.
        folds: fold by study; a landmark by a localizer of another fold is an error.

    Returns:
        float32 [25, 3] by study, LPS mm, NaN for findings without a landmark.

    Raises:
        ValueError: a column is missing, a cell is not a number, or a study is in another fold. The message
            names file and line.
    """
    measures = _read_measures(paths, folds=folds)
    return {study: table[:, :3] for study, table in measures.items()}


def read_doubt(paths: Iterable[Path]) -> dict[str, Points]:
    """Reads each landmark's doubt: float32 [25] by study, 0 to 1, NaN for findings without a landmark."""
    return {study: table[:, 4] for study, table in _read_measures(paths, folds=None).items()}


def _read_measures(paths: Iterable[Path], *, folds: Mapping[str, int] | None) -> dict[str, Points]:
    """Returns x, y, z, spread and doubt, float32 [25, 5] by study."""
    measures: dict[str, Points] = {}
    for path in paths:
        table = read_text_table(path)
        if tuple(table.columns) != _COLUMNS:
            raise ValueError(f"{path} must have the columns {_COLUMNS}. Received: {table.columns}.")
        for line, (name, *cells, fold) in table.require_sound().rows(_COLUMNS):
            try:
                study, finding = parse_row_id(name)
            except ValueError as error:
                raise table.issue(line, str(error).rstrip("."), column="row_id").to_error() from None
            if folds is not None and str(folds.get(study, fold)) != fold:
                rule = "a landmark must come from the fold that held its study out"
                received = f"study {study}, fold {fold} instead of {folds[study]}"
                raise table.issue(line, rule, received, column="fold").to_error()
            values = measures.setdefault(
                study, np.full((NUM_FINDINGS, len(_COLUMNS) - 2), np.nan, np.float32)
            )
            try:
                values[finding_index(finding.condition, finding.level)] = [float(cell) for cell in cells]
            except ValueError:
                rule = f"the coordinates of {name} must be numbers"
                raise table.issue(line, rule, cells).to_error() from None
    return measures


@dataclass(frozen=True)
class LandmarkAccuracy:
    """Distances between predicted and annotated landmarks.

    Attributes:
        num_points: number of compared points.
        num_withheld: number of annotated points of these studies and conditions without a prediction.
        median_mm: median distance.
        within_10_mm: share of points within 10 mm.
        own_level: share of points nearest to their own level's annotated point.
        sd_mm: standard deviation of the error along x, y, z, without points on wrong levels.
    """

    num_points: int
    num_withheld: int
    median_mm: float
    within_10_mm: float
    own_level: float
    sd_mm: tuple[float, float, float]


def measure_landmark_accuracy(
    predicted: Mapping[str, Points], annotated: Mapping[str, Points]
) -> LandmarkAccuracy:
    """Compares predicted with annotated landmarks.

    Args:
        predicted: float32 [25, 3] by study, LPS mm.
        annotated: likewise. Studies and points in only one of the two are ignored.

    Returns:
        The error. Without common points the distances are NaN and the standard deviations 0.
    """
    pairs = [(predicted[study], annotated[study]) for study in predicted if study in annotated]
    if not pairs:
        return LandmarkAccuracy(0, 0, float("nan"), float("nan"), float("nan"), (0.0, 0.0, 0.0))
    guess, truth = (np.stack(points).astype(np.float64) for points in zip(*pairs, strict=True))
    is_annotated, is_found = np.isfinite(truth).all(-1), np.isfinite(guess).all(-1)
    known = is_annotated & is_found
    # A condition without a point in any study is not a target of this localizer.
    is_target = is_found.reshape(len(guess), -1, NUM_LEVELS).any(axis=(0, 2)).repeat(NUM_LEVELS)
    num_withheld = int((is_annotated & ~is_found & is_target).sum())
    if not known.any():
        return LandmarkAccuracy(0, num_withheld, float("nan"), float("nan"), float("nan"), (0.0, 0.0, 0.0))
    residual = (guess - truth)[known]
    distance = np.linalg.norm(residual, axis=-1)
    near = residual[distance <= _OUTLIER_MM]
    deviation = np.sqrt(np.mean(near**2, axis=0)) if len(near) else np.zeros(3)
    return LandmarkAccuracy(
        num_points=len(distance),
        num_withheld=num_withheld,
        median_mm=float(np.median(distance)),
        within_10_mm=float(np.mean(distance <= _OUTLIER_MM)),
        own_level=float(np.mean(_is_own_level(guess, truth)[known])),
        sd_mm=(float(deviation[0]), float(deviation[1]), float(deviation[2])),
    )


def _is_own_level(guess: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether each point is nearest to its own level among its condition's five annotated points."""
    by_condition = (len(guess), NUM_FINDINGS // NUM_LEVELS, NUM_LEVELS, 3)
    guess, truth = guess.reshape(by_condition), truth.reshape(by_condition)
    distance = np.linalg.norm(guess[:, :, :, None] - truth[:, :, None], axis=-1)
    nearest = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=-1)
    own: NDArray[np.bool_] = nearest == np.arange(NUM_LEVELS)
    return own.reshape(len(guess), NUM_FINDINGS)


@dataclass(frozen=True)
class LevelShiftCounts:
    """Detection by doubt of studies whose levels are shifted.

    Attributes:
        num_studies: number of studies with annotated and predicted points.
        num_shifted: number of these with at least two points nearest to another level's annotated point.
        num_flagged: number of these with at least one point whose doubt exceeds the threshold.
        num_caught: number of shifted studies that are flagged.
    """

    num_studies: int
    num_shifted: int
    num_flagged: int
    num_caught: int


def count_level_shifts(
    predicted: Mapping[str, Points],
    doubt: Mapping[str, Points],
    annotated: Mapping[str, Points],
    *,
    threshold: float,
) -> LevelShiftCounts:
    """Counts shifted studies and studies flagged by doubt.

    Args:
        predicted: float32 [25, 3] by study, LPS mm.
        doubt: float32 [25] by study, 0 to 1.
        annotated: float32 [25, 3] by study; studies without a point in both are ignored.
        threshold: doubt above it flags a study.
    """
    shifted, flagged = [], []
    for study in sorted(set(predicted) & set(annotated)):
        guess, truth = predicted[study][np.newaxis], annotated[study][np.newaxis]
        known = (np.isfinite(guess) & np.isfinite(truth)).all(axis=-1)
        if known.any():
            shifted.append(int((~_is_own_level(guess, truth))[known].sum()) >= 2)
            flagged.append(bool(((doubt[study] > threshold) & np.isfinite(guess[0]).all(axis=-1)).any()))
    return LevelShiftCounts(len(shifted), sum(shifted), sum(flagged), sum(map(min, shifted, flagged)))
