"""Tables of predicted landmarks, one row per study and finding, in patient space."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, finding_index, parse_row_id, row_id
from lumbar_tf.tables.text_table import read_text_table

_COLUMNS = ("row_id", "x_mm", "y_mm", "z_mm", "spread_mm", "doubt", "fold")

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
