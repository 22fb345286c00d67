"""Tables of prediction sets: which grades are in the set of each finding.

A table is a CSV `row_id,normal_mild,moderate,severe,coverage` with 1 for a grade that is in the set and 0 for
one that is not. Findings without a set have no row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import (
    FINDINGS,
    NUM_FINDINGS,
    NUM_SEVERITIES,
    Severity,
    finding_index,
    parse_row_id,
    row_id,
)
from lumbar_tf.tables.text_table import TextTable, read_text_table

Bools = NDArray[np.bool_]

#: Name of the table beside the tables of probabilities that `stack` and `predict` write.
SETS_NAME = "prediction_sets.csv"
_GRADES = tuple(severity.column for severity in Severity)
_COLUMNS = ("row_id", *_GRADES, "coverage")


@dataclass(frozen=True, eq=False)
class SetTable:
    """Prediction sets of studies.

    Attributes:
        coverage: probability that a set contains the reader's grade; NaN where unknown.
        rows: study id -> which grades are in the set, bool [25, 3]; none in a finding without a set.
    """

    coverage: float
    rows: dict[str, Bools]

    def align(self, study_ids: Sequence[str]) -> Bools:
        """Returns the sets of some studies, bool [num_studies, 25, 3]."""
        nothing = np.zeros((NUM_FINDINGS, NUM_SEVERITIES), np.bool_)
        return np.array([self.rows.get(study_id, nothing) for study_id in study_ids]).reshape(
            -1, NUM_FINDINGS, NUM_SEVERITIES
        )


def write_set_table(path: Path, study_ids: Sequence[str], sets: Bools, *, coverage: float) -> None:
    """Writes prediction sets, atomically.

    Args:
        path: the CSV file.
        study_ids: [num_studies].
        sets: which grades are in the sets, bool [num_studies, 25, 3].
        coverage: probability that a set contains the reader's grade; NaN, a blank cell, where unknown.
    """
    text = "" if math.isnan(coverage) else f"{coverage:g}"
    rows = (
        [row_id(study_id, finding), *map(int, inside), text]
        for study_id, own in zip(study_ids, sets, strict=True)
        for finding, inside in zip(FINDINGS, own, strict=True)
        if inside.any()
    )
    write_table_atomically(path, list(_COLUMNS), rows)


def read_set_table(path: Path) -> SetTable:
    """Reads the result of `write_set_table`.

    Raises:
        ValueError: a column is absent; a row id is malformed or given twice; a grade is neither 0 nor 1; a
            set is empty or has a gap; or `coverage` is not between 0 and 1 or differs between rows.
    """
    table = read_text_table(path, _COLUMNS).require_sound()
    rows: dict[str, Bools] = {}
    coverages: set[str] = set()
    for line, (name, *grades, coverage) in table.rows(_COLUMNS):
        inside = _parse_set(table, line, grades)
        try:
            study_id, finding = parse_row_id(name)
        except ValueError as error:
            raise table.issue(line, str(error).rstrip("."), column="row_id").to_error() from None
        study = rows.setdefault(study_id, np.zeros((NUM_FINDINGS, NUM_SEVERITIES), np.bool_))
        own = study[finding_index(finding.condition, finding.level)]
        if own.any():
            raise table.issue(line, "a row must be given once", f"{name!r} again").to_error()
        own[:] = inside
        coverages.add(coverage)
        if len(coverages) > 1:
            rule = "all rows must have the same coverage"
            raise table.issue(line, rule, sorted(coverages), column="coverage").to_error()
    return SetTable(_parse_coverage(table, coverages.pop() if coverages else ""), rows)


def _parse_set(table: TextTable, line: int, cells: Sequence[str]) -> Bools:
    if any(cell not in ("0", "1") for cell in cells):
        raise table.issue(line, "grades must be 0 or 1", list(cells)).to_error()
    inside = np.array([cell == "1" for cell in cells])
    if not inside.any() or "101" in "".join(cells):
        raise table.issue(line, "a set must hold one grade or several without a gap", list(cells)).to_error()
    return inside


def _parse_coverage(table: TextTable, text: str) -> float:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or 0 < value < 1):
        raise ValueError(f"{table.path} must have a coverage between 0 and 1. Received: {text!r}.")
    return value
