"""The label table: `train.csv`, one row a study and one column a finding."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.labels import (
    FINDINGS,
    MISSING_LABEL,
    NUM_FINDINGS,
    Finding,
    Severity,
    finding_index,
    parse_condition,
    parse_level,
    parse_severity,
)
from lumbar_tf.tables.csv_rows import open_csv

_STUDY_COLUMN = "study_id"
_SEVERITY_RULE = f"a cell must be blank or one of {', '.join(each.title for each in Severity)}"
_COLUMN = re.compile(r"(?P<condition>.+?)[ _](?P<level>l\d[/_][ls]\d)", re.IGNORECASE)


def _parse_column(name: str, path: Path) -> int:
    """Returns the row, 0 to 24, of `spinal_canal_stenosis_l1_l2` or `Spinal Canal Stenosis L1/L2`."""
    match = _COLUMN.fullmatch(name.strip())
    try:
        if match is None:
            raise ValueError(f"Received: {name!r}.")
        finding = Finding(parse_condition(match["condition"]), parse_level(match["level"]))
    except ValueError as error:
        raise ValueError(
            f"{path}: a column must be {_STUDY_COLUMN} or <condition>_<level>, such as {FINDINGS[0].name}; "
            f"column {name!r} is neither. {error}"
        ) from None
    return finding_index(finding.condition, finding.level)


def _parse_header(header: Sequence[str], path: Path) -> dict[int, int]:
    """Returns column number -> finding's row."""
    if _STUDY_COLUMN not in header:
        raise ValueError(f"{path} must have a column {_STUDY_COLUMN}. Received: {list(header)}.")
    columns = {place: _parse_column(name, path) for place, name in enumerate(header) if name != _STUDY_COLUMN}
    if not columns or len(set(columns.values())) != len(columns):
        raise ValueError(
            f"{path} must have each finding's column once, and one at least. Received: {list(header)}."
        )
    return columns


@dataclass(frozen=True)
class _Fault:
    """A cell or row that breaks a rule.

    Attributes:
        study_id: the row's study, "" where it has none.
        line: its line in the file.
        reason: BAD_LABEL for a cell, BAD_TABLE_ROW for a whole row.
        rule: what is broken, without what came: that can be anything.
        received: what came.
    """

    study_id: str
    line: int
    reason: RejectReason
    rule: str
    received: str


@dataclass(frozen=True, eq=False)
class _Table:
    """What could be read of a table, labels int8 [25] by study id, and what could not."""

    rows: dict[str, NDArray[np.int8]]
    faults: tuple[_Fault, ...]


def _parse_cells(
    cells: Sequence[str], columns: dict[int, int], header: Sequence[str]
) -> tuple[NDArray[np.int8], list[tuple[str, str]]]:
    """Returns a row's labels, missing where a cell is no severity, and (column, cell) of each such cell."""
    labels = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
    bad = []
    for place, finding in columns.items():
        text = cells[place].strip()
        if text:
            try:
                labels[finding] = parse_severity(text)
            except ValueError:
                bad.append((header[place], text))
    return labels, bad


def _parse_rows(lines: Iterable[tuple[int, list[str]]], header: Sequence[str], path: Path) -> _Table:
    columns, study_place = _parse_header(header, path), header.index(_STUDY_COLUMN)
    rows: dict[str, NDArray[np.int8]] = {}
    faults: list[_Fault] = []
    for line, cells in lines:
        study_id = cells[study_place].strip() if study_place < len(cells) else ""
        if len(cells) != len(header):
            rule = f"a row must have {len(header)} cells"
            faults.append(_Fault(study_id, line, RejectReason.BAD_TABLE_ROW, rule, str(len(cells))))
        elif not study_id or study_id in rows:
            rule = f"{_STUDY_COLUMN} must be given, and once"
            faults.append(_Fault(study_id, line, RejectReason.BAD_TABLE_ROW, rule, repr(study_id)))
        else:
            rows[study_id], bad = _parse_cells(cells, columns, header)
            for column, text in bad:
                rule = f"column {column}: {_SEVERITY_RULE}"
                faults.append(_Fault(study_id, line, RejectReason.BAD_LABEL, rule, repr(text)))
    return _Table(rows, tuple(faults))


def _read_table(path: Path) -> _Table:
    """Reads a table as far as it can be read; its header must be sound."""
    with open_csv(path) as (header, lines):
        return _parse_rows(lines, header, path)


def read_labels(path: Path) -> tuple[list[str], NDArray[np.int8]]:
    """Reads a label table in the competition's layout, in either spelling, and takes no faulty one.

    Args:
        path: a CSV with `study_id` and columns `<condition>_<level>`; a finding without a column, and a
            blank cell, is a missing label.

    Returns:
        The study ids in the file's order, and their labels int8 [num_studies, 25], `MISSING_LABEL` where
        nobody graded.

    Raises:
        ValueError: a column is unknown or given twice, a study is given twice or has no id, a row is too
            short or too long, or a cell is no severity; the message names file, line and column.
    """
    table = _read_table(path)
    if table.faults:
        fault = table.faults[0]
        raise ValueError(f"{path}, line {fault.line}, {fault.rule}. Received: {fault.received}.")
    labels = list(table.rows.values())
    return list(table.rows), np.stack(labels) if labels else np.empty((0, NUM_FINDINGS), np.int8)


def read_labels_tolerantly(path: Path) -> tuple[dict[str, NDArray[np.int8]], list[Reject]]:
    """Reads of a label table what can be read, as `read_labels` does, and says what could not.

    Returns:
        Labels int8 [25] by study id, and a reject for each cell that is no severity (its label is missing
        then) and each row that is left out. Rejects hold the rule and the line, never what came: it can be
        anything.

    Raises:
        ValueError: the header is faulty, or the file is no CSV.
    """
    table = _read_table(path)
    rejects = [
        Reject(each.study_id, "", path.name, each.reason, f"line {each.line}, {each.rule}")
        for each in table.faults
    ]
    return table.rows, rejects


def read_label_tables(paths: Sequence[Path]) -> tuple[list[str], NDArray[np.int8]]:
    """Reads several label tables, one below the other, as `read_labels` does one.

    Raises:
        ValueError: also where two tables have one study.
    """
    study_ids: list[str] = []
    parts: list[NDArray[np.int8]] = []
    for path in paths:
        ids, labels = read_labels(path)
        repeated = sorted(set(ids) & set(study_ids))
        if repeated:
            raise ValueError(f"{path}: a study must be in one label table. Received again: {repeated[:5]}.")
        study_ids += ids
        parts.append(labels)
    return study_ids, np.concatenate(parts) if parts else np.empty((0, NUM_FINDINGS), np.int8)
