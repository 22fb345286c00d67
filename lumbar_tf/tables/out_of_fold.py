"""Out-of-fold tables: predictions of ensemble members for studies that they were not trained on.

A table is a CSV with the submission's columns `row_id,normal_mild,moderate,severe`; tables of this package
also have `fold` and `model`. The model of a foreign table is named after its file. A model may be spread over
several files (one per fold), and a file may hold several models; a duplicate row is an error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import (
    FINDINGS,
    NUM_FINDINGS,
    NUM_SEVERITIES,
    Plane,
    Severity,
    finding_index,
    parse_plane,
    parse_row_id,
    row_id,
)
from lumbar_tf.tables.text_table import TextTable, read_text_table

Floats = NDArray[np.float64]

PROBABILITY_COLUMNS: tuple[str, ...] = tuple(severity.column for severity in Severity)
#: Tolerance of a row's sum of 1, for tables rounded to two decimals; rows are divided by their sum.
SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class OutOfFoldTable:
    """Out-of-fold predictions of a member.

    Attributes:
        model: the member's name: `<plane>/<backbone>` for ours, the file's stem for a foreign table.
        rows: study id -> float64 [25, 3], NaN where the table has no row.
        folds: study id -> the held-out fold; empty for a table without folds.
    """

    model: str
    rows: dict[str, Floats]
    folds: dict[str, int]

    @property
    def source(self) -> str:
        """The member's input: its plane, or the member itself for a foreign table."""
        return source_of(self.model)


@dataclass(frozen=True)
class Members:
    """Several tables aligned to one list of studies.

    Attributes:
        names: the members' names, sorted, [num_members].
        sources: their inputs, see `OutOfFoldTable.source`, [num_members].
        probabilities: float64 [num_members, num_studies, 25, 3], NaN where a member has no row.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    probabilities: Floats


def source_of(model: str) -> str:
    """Returns the plane before the slash, or the model's own name if there is none.

    >>> source_of("sagittal_t2/mobilenet_v2"), source_of("other_team")
    ('sagittal_t2', 'other_team')
    """
    plane, slash, _ = model.partition("/")
    if not slash:
        return model
    try:
        return parse_plane(plane).value
    except ValueError:
        return model


def _parse_probabilities(table: TextTable, line: int, name: str, cells: Sequence[str]) -> Floats:
    """Returns one row's three probabilities, divided by their sum."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        rule = f"the probabilities of {name} must be numbers"
        raise table.issue(line, rule, list(cells)).to_error() from None
    if not all(math.isfinite(value) and value >= 0 for value in values):
        rule = f"the probabilities of {name} must be finite and not negative"
        raise table.issue(line, rule, values).to_error()
    total = sum(values)
    if abs(total - 1.0) > SUM_TOLERANCE:
        rule = f"the probabilities of {name} must sum to 1 within {SUM_TOLERANCE}"
        raise table.issue(line, rule, f"{values}, sum {total:.4f}").to_error()
    return np.array([value / total for value in values])


def _parse_fold(table: TextTable, line: int, text: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise table.issue(line, "must be a whole number", repr(text), column="fold").to_error() from None


class _Collector:
    """Rows of several files by model."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Floats]] = {}
        self.folds: dict[str, dict[str, int]] = {}

    def add_file(self, path: Path) -> None:
        columns = ["row_id", *PROBABILITY_COLUMNS]
        table = read_text_table(path, columns).require_sound()
        if table.frame.empty:
            raise ValueError(f"{path} must have a row below its header. Received: none.")
        extra = [name for name in ("fold", "model") if name in table.columns]
        for line, cells in table.rows([*columns, *extra]):
            name, *probabilities = cells[: len(columns)]
            values = _parse_probabilities(table, line, name, probabilities)
            options = dict(zip(extra, cells[len(columns) :], strict=True))
            fold = _parse_fold(table, line, options.get("fold", ""))
            self._add_row(table, line, options.get("model") or path.stem, name, values, fold)

    def _add_row(
        self, table: TextTable, line: int, model: str, name: str, values: Floats, fold: int | None
    ) -> None:
        try:
            study_id, finding = parse_row_id(name)
        except ValueError as error:
            raise table.issue(line, str(error).rstrip("."), column="row_id").to_error() from None
        studies = self.rows.setdefault(model, {})
        if study_id not in studies:
            studies[study_id] = np.full((NUM_FINDINGS, NUM_SEVERITIES), np.nan)
        row = studies[study_id][finding_index(finding.condition, finding.level)]
        if not math.isnan(row[0]):
            rule = "a row must be given once per model"
            raise table.issue(line, rule, f"{name!r} again for {model!r}").to_error()
        row[:] = values
        if fold is not None:
            first_fold = self.folds.setdefault(model, {}).setdefault(study_id, fold)
            if first_fold != fold:
                rule = "a study must be in one fold"
                raise table.issue(line, rule, f"{study_id} in {first_fold} and {fold}").to_error()


def read_out_of_fold_tables(paths: Iterable[Path]) -> tuple[OutOfFoldTable, ...]:
    """Reads out-of-fold tables, and returns one `OutOfFoldTable` per model, sorted by the model's name.

    Raises:
        ValueError: a column is absent; a row id is malformed or given twice for a model; a probability is
            not finite or negative; a row's sum differs from 1 by more than `SUM_TOLERANCE`; a study is in
            two folds. The message names file, line and row.
    """
    collector = _Collector()
    for path in paths:
        collector.add_file(path)
    return tuple(
        OutOfFoldTable(model, collector.rows[model], collector.folds.get(model, {}))
        for model in sorted(collector.rows)
    )


def placement_tables(path: Path) -> tuple[Path, Path, Path]:
    """Returns the tables of a grader at three places, whose losses show what points cost.

    Args:
        path: its out-of-fold table, at predicted points.

    Returns:
        The tables at annotated points, at predicted points in the annotated slice, and at predicted points.

    >>> [table.name for table in placement_tables(Path("oof.csv"))]
    ['oof_annotated.csv', 'oof_annotated_slice.csv', 'oof.csv']
    """
    return path.with_stem(f"{path.stem}_annotated"), path.with_stem(f"{path.stem}_annotated_slice"), path


def restrict_studies(tables: Sequence[OutOfFoldTable], study_ids: Iterable[str]) -> list[OutOfFoldTable]:
    """Returns the tables reduced to the rows of some studies."""
    wanted = set(study_ids)
    return [
        replace(table, rows={study: rows for study, rows in table.rows.items() if study in wanted})
        for table in tables
    ]


def align_members(tables: Sequence[OutOfFoldTable], study_ids: Sequence[str]) -> Members:
    """Aligns tables to a list of studies.

    Args:
        tables: one per member.
        study_ids: the studies of the result, in its order.

    Raises:
        ValueError: a table has a study that is not in the list, or two tables have the same model name.
    """
    names = [table.model for table in tables]
    if len(set(names)) != len(names):
        raise ValueError(f"The tables must have different models. Received: {names}.")
    index_of = {study_id: index for index, study_id in enumerate(study_ids)}
    shape = (len(tables), len(study_ids), NUM_FINDINGS, NUM_SEVERITIES)
    probabilities = np.full(shape, np.nan)
    for table, target in zip(tables, probabilities, strict=True):
        for study_id, rows in table.rows.items():
            if study_id not in index_of:
                finding = FINDINGS[int(np.argmax(~np.isnan(rows[:, 0])))]
                raise ValueError(
                    "Every row must belong to a study in the label table. "
                    f"Received: {row_id(study_id, finding)!r} of model {table.model!r}."
                )
            target[index_of[study_id]] = rows
    return Members(tuple(names), tuple(table.source for table in tables), probabilities)


def arrange_members(tables: Sequence[OutOfFoldTable], names: Sequence[str]) -> tuple[list[str], Floats]:
    """Arranges tables in the order of an ensemble's members, some of which may have none.

    Args:
        tables: predictions of members.
        names: the members' names.

    Returns:
        The studies of the tables, sorted, and float64 [num_members, num_studies, 25, 3], NaN where missing.

    Raises:
        ValueError: a table is of none of the members.
    """
    given = {table.model: table for table in tables}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"Tables must be of {', '.join(names)}. Received: {', '.join(unknown)}.")
    study_ids = sorted({study_id for table in tables for study_id in table.rows})
    aligned = [given.get(name, OutOfFoldTable(name, {}, {})) for name in names]
    return study_ids, align_members(aligned, study_ids).probabilities


def merge_sources(members: Members, limit: int) -> Members:
    """Merges sources of foreign members until their number is within a limit.

    Each step merges the two foreign sources that are most often present, or missing, together. Merging tables
    that cover the same studies and conditions loses nothing.

    Args:
        members: the members.
        limit: number of sources, at least one more than the number of planes.
    """
    sources = list(members.sources)
    is_present = np.isfinite(members.probabilities).all(axis=-1).reshape(len(sources), -1)
    planes = {plane.value for plane in Plane}
    while len(set(sources)) > limit:
        foreign = [name for name in dict.fromkeys(sources) if name not in planes]
        known = np.stack([is_present[[source == name for source in sources]].any(axis=0) for name in foreign])
        # Agreement of two sources: rows that both or neither have.
        agreement = known @ known.T.astype(np.float64) + ~known @ (~known).T.astype(np.float64)
        np.fill_diagonal(agreement, -1.0)
        first, second = sorted(np.unravel_index(np.argmax(agreement), agreement.shape))
        joined = f"{foreign[first]}+{foreign[second]}"
        sources = [joined if source in (foreign[first], foreign[second]) else source for source in sources]
    return Members(members.names, tuple(sources), members.probabilities)


def covered_studies(tables: Sequence[OutOfFoldTable], study_ids: Sequence[str]) -> list[str]:
    """Returns the studies with a row in at least one table, in their order."""
    known = {study_id for table in tables for study_id in table.rows}
    return [study_id for study_id in study_ids if study_id in known]


def merge_folds(tables: Sequence[OutOfFoldTable], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns the folds of tables and, optionally, of a folds file by study id.

    Args:
        tables: the members.
        given: the folds file's content, which the tables must agree with.

    Raises:
        ValueError: two of them have different folds of a study; then some prediction was not out of fold.
    """
    merged = dict(given or {})
    for table in tables:
        for study_id, fold in table.folds.items():
            known = merged.setdefault(study_id, fold)
            if known != fold:
                raise ValueError(
                    "All members and the folds file must have the same fold of a study. "
                    f"Received: study {study_id!r}, fold {fold} of model {table.model!r} against {known}."
                )
    return merged


def write_out_of_fold_table(
    path: Path,
    study_ids: Sequence[str],
    probabilities: Floats,
    *,
    folds: Sequence[int] | NDArray[np.integer] | None = None,
    model: str | None = None,
) -> None:
    """Writes predictions as a table, atomically, without rows of NaN.

    Args:
        path: the CSV.
        study_ids: [num_studies].
        probabilities: float64 [num_studies, 25, 3].
        folds: the held-out fold of each study, [num_studies], or None for no such column.
        model: the member's name, or None for no such column.
    """
    header = ["row_id", *PROBABILITY_COLUMNS]
    header += [name for name, value in (("fold", folds), ("model", model)) if value is not None]
    rows: list[list[object]] = []
    for index, study_id in enumerate(study_ids):
        extra = [] if folds is None else [int(folds[index])]
        extra_model = [] if model is None else [model]
        for finding, values in zip(FINDINGS, probabilities[index], strict=True):
            if not np.isnan(values).any():
                numbers = [f"{value:.9g}" for value in values]
                rows.append([row_id(study_id, finding), *numbers, *extra, *extra_model])
    write_table_atomically(path, header, rows)
