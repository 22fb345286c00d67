"""The label table: `train.csv`, one row a study and one column a finding."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import (
    FINDINGS,
    MISSING_LABEL,
    NUM_FINDINGS,
    Finding,
    finding_index,
    parse_condition,
    parse_level,
    parse_severity,
)

_STUDY_COLUMN = "study_id"
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


def _parse_row(
    cells: Sequence[str], columns: dict[int, int], header: Sequence[str], where: str
) -> NDArray[np.int8]:
    if len(cells) != len(header):
        raise ValueError(f"{where}: a row must have {len(header)} cells. Received: {len(cells)}.")
    labels = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
    for place, finding in columns.items():
        text = cells[place].strip()
        if text:
            try:
                labels[finding] = parse_severity(text)
            except ValueError as error:
                raise ValueError(f"{where}, column {header[place]}: {error}") from None
    return labels


def read_labels(path: Path) -> tuple[list[str], NDArray[np.int8]]:
    """Reads a label table in the competition's layout, in either spelling.

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
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        columns = _parse_header(header, path)
        study_place = header.index(_STUDY_COLUMN)
        rows: dict[str, NDArray[np.int8]] = {}
        for cells in reader:
            if not cells:
                continue
            where = f"{path}, line {reader.line_num}"
            labels = _parse_row(cells, columns, header, where)
            study_id = cells[study_place].strip()
            if not study_id or study_id in rows:
                raise ValueError(f"{where}: {_STUDY_COLUMN} must be given, and once. Received: {study_id!r}.")
            rows[study_id] = labels
    stacked = np.stack(list(rows.values())) if rows else np.empty((0, NUM_FINDINGS), np.int8)
    return list(rows), stacked


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
