"""Reads CSV files row by row: every table that a person hands in comes through here."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lumbar_tf.dicom.reasons import Reject, RejectReason

#: A row's line in its file, for messages, and its cells.
Row = tuple[int, list[str]]


@contextmanager
def open_csv(path: Path) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Yields a table's header and its rows with their line numbers; empty lines are passed over.

    Raises:
        ValueError: inside the block, where the file turns out to be no CSV in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            yield header, ((reader.line_num, cells) for cells in reader if cells)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a CSV in UTF-8. Received: {type(error).__name__}.") from None


def read_columns(path: Path, columns: Sequence[str]) -> tuple[list[Row], list[Reject]]:
    """Reads named columns as text without blanks around it. An id such as 004003253 is a name.

    Args:
        path: the table.
        columns: their names; others are left alone.

    Returns:
        The rows, their cells in the order of `columns`, and a BAD_TABLE_ROW reject for each row with more
        or fewer cells than the header.

    Raises:
        ValueError: a column is missing, or the file is no CSV.
    """
    rows: list[Row] = []
    rejects: list[Reject] = []
    with open_csv(path) as (header, lines):
        missing = [each for each in columns if each not in header]
        if missing:
            raise ValueError(f"{path.name} must have the columns {list(columns)}. Missing: {missing}.")
        places = [header.index(each) for each in columns]
        for line, cells in lines:
            if len(cells) == len(header):
                rows.append((line, [cells[place].strip() for place in places]))
            else:
                message = f"line {line}: a row must have {len(header)} cells. Received: {len(cells)}"
                rejects.append(Reject("", "", path.name, RejectReason.BAD_TABLE_ROW, message))
    return rows, rejects
