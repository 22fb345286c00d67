"""Severity labels: tables with one row per study and one column per finding (`train.csv`).

`labels.csv` beside records holds the labels in the records, in the same layout. Later commands read it as
`--labels`; records under pseudonyms have no other table with their ids.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.files import write_table_atomically
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
from lumbar_tf.tables.text_table import TableIssue, read_text_table

#: The labels beside records.
LABELS_NAME = "labels.csv"
_STUDY_COLUMN = "study_id"
_SEVERITY_RULE = f"a cell must be blank or one of {', '.join(severity.title for severity in Severity)}"
_COLUMN = re.compile(r"(?P<condition>.+?)[ _](?P<level>l\d[/_][ls]\d)", re.IGNORECASE)


def _parse_column(name: str, path: Path) -> int:
    """Returns the finding's index of `spinal_canal_stenosis_l1_l2` or `Spinal Canal Stenosis L1/L2`."""
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


def _parse_header(header: Sequence[str], path: Path) -> dict[str, int]:
    """Returns the finding's index by column name."""
    if _STUDY_COLUMN not in header:
        raise ValueError(f"{path} must have a column {_STUDY_COLUMN}. Received: {list(header)}.")
    names = [name for name in header if name != _STUDY_COLUMN]
    findings = [_parse_column(name, path) for name in names]
    if not findings or len(set(findings)) != len(findings):
        raise ValueError(
            f"{path} must have at least one column of a finding, and none twice. Received: {list(header)}."
        )
    return dict(zip(names, findings, strict=True))


@dataclass(frozen=True, eq=False)
class _LabelTable:
    """The valid rows of a table, labels int8 [25] by study id, and the issues of the others."""

    rows: dict[str, NDArray[np.int8]]
    issues: tuple[TableIssue, ...]


def _read_table(path: Path) -> _LabelTable:
    """Reads the valid rows of a table; its header must be valid."""
    table = read_text_table(path)
    findings = _parse_header(table.columns, path)
    rows: dict[str, NDArray[np.int8]] = {}
    issues = list(table.issues)
    for line, (study_id, *cells) in table.rows([_STUDY_COLUMN, *findings]):
        if not study_id or study_id in rows:
            rule = f"{_STUDY_COLUMN} must be given, and once"
            issues.append(table.issue(line, rule, repr(study_id), study_id=study_id))
            continue
        labels = rows[study_id] = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
        for (column, finding), text in zip(findings.items(), cells, strict=True):
            try:
                labels[finding] = parse_severity(text) if text else MISSING_LABEL
            except ValueError:
                issues.append(table.issue(line, _SEVERITY_RULE, repr(text), column=column, study_id=study_id))
    # In the order of lines; rows of a wrong length were found first.
    return _LabelTable(rows, tuple(sorted(issues, key=lambda issue: issue.line)))


def read_labels(path: Path) -> tuple[list[str], NDArray[np.int8]]:
    """Reads a label table in the competition's layout, in either spelling of its columns.

    Args:
        path: a CSV with `study_id` and columns `<condition>_<level>`. A finding without a column and a
            blank cell are missing labels.

    Returns:
        The study ids in the file's order, and their labels int8 [num_studies, 25], `MISSING_LABEL` for a
        missing label.

    Raises:
        ValueError: a column is unknown or given twice, a study is given twice or has no id, a row is too
            short or too long, or a cell is not a severity. The message names file, line and column.
    """
    table = _read_table(path)
    if table.issues:
        raise table.issues[0].to_error()
    labels = list(table.rows.values())
    return list(table.rows), np.stack(labels) if labels else np.empty((0, NUM_FINDINGS), np.int8)


def read_labels_tolerantly(path: Path) -> tuple[dict[str, NDArray[np.int8]], list[Reject]]:
    """Reads the valid rows and cells of a label table; see `read_labels`.

    Returns:
        Labels int8 [25] by study id, and a reject for each cell that is not a severity (its label is then
        missing) and each row that is left out. Rejects hold the line and the rule, but not the content,
        which can be anything.

    Raises:
        ValueError: the header is invalid, or the file is not a CSV.
    """
    table = _read_table(path)
    rejects = [
        issue.to_reject(RejectReason.BAD_LABEL if issue.column else RejectReason.BAD_TABLE_ROW)
        for issue in table.issues
    ]
    return table.rows, rejects


def read_label_tables(paths: Sequence[Path]) -> tuple[list[str], NDArray[np.int8]]:
    """Reads and concatenates several label tables; see `read_labels`.

    Raises:
        ValueError: a table is invalid, or two tables contain the same study.
    """
    study_ids: list[str] = []
    parts: list[NDArray[np.int8]] = []
    for path in paths:
        ids, labels = read_labels(path)
        repeated = sorted(set(ids) & set(study_ids))
        if repeated:
            raise ValueError(
                f"{path}: a study must be in one label table only. Received again: {repeated[:5]}."
            )
        study_ids += ids
        parts.append(labels)
    return study_ids, np.concatenate(parts) if parts else np.empty((0, NUM_FINDINGS), np.int8)


def write_record_labels(folder: Path, labels: Mapping[str, NDArray[np.int8]]) -> None:
    """Writes `labels.csv` beside records, atomically.

    Args:
        folder: the records.
        labels: int8 [25] by study id; a missing label gives a blank cell.
    """
    rows = [
        [study_id, *("" if label == MISSING_LABEL else Severity(label).title for label in row.tolist())]
        for study_id, row in sorted(labels.items())
    ]
    write_table_atomically(
        folder / LABELS_NAME, [_STUDY_COLUMN, *(finding.name for finding in FINDINGS)], rows
    )


def read_record_labels(folder: Path) -> dict[str, NDArray[np.int8]]:
    """Reads `labels.csv` beside records: int8 [25] by study id; a study without labels has no row.

    Raises:
        ValueError: the file is damaged.
    """
    study_ids, labels = read_labels(folder / LABELS_NAME)
    return dict(zip(study_ids, labels, strict=True))
