"""CSV tables as text cells: the reader of every table, and the form of its errors."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.files import decode_text, open_regular_file

if TYPE_CHECKING:
    import pandas

#: Cells are text, also `NA` and 007; a row's missing cells, unlike its empty ones, are NaN. The Python engine
#: counts them and limits a cell to 131,072 characters.
_TEXT_OPTIONS: dict[str, Any] = {
    "header": None,
    "index_col": False,
    "dtype": str,
    "keep_default_na": False,
    "skip_blank_lines": False,
    "engine": "python",
}


@dataclass(frozen=True)
class TableIssue:
    """A row or a cell of a table that breaks a rule.

    Attributes:
        path: the table.
        line: the line in the file; the header is line 1.
        rule: the broken rule. It never contains the cell's content, which can be anything.
        received: the content, "" if there is none or it is part of `rule`.
        column: the cell's column, "" for a whole row.
        study_id: the row's study, "" if unknown.
        series_id: the row's series, "" if unknown.
    """

    path: Path
    line: int
    rule: str
    received: str
    column: str = ""
    study_id: str = ""
    series_id: str = ""

    @property
    def place(self) -> str:
        """The line and, for a cell, its column."""
        return f"line {self.line}, column {self.column}" if self.column else f"line {self.line}"

    def to_error(self) -> ValueError:
        """Returns the error of a table that must not contain any issue."""
        received = f" Received: {self.received}." if self.received else ""
        return ValueError(f"{self.path}, {self.place}: {self.rule}.{received}")

    def to_reject(self, reason: RejectReason = RejectReason.BAD_TABLE_ROW) -> Reject:
        """Returns the issue as an entry of the manifest, without the content."""
        return Reject(self.study_id, self.series_id, self.path.name, reason, f"{self.place}: {self.rule}")


@dataclass(frozen=True, eq=False)
class TextTable:
    """A table whose cells are text without surrounding white space; an id such as 004003253 keeps its zeros.

    Attributes:
        path: the file.
        frame: the rows that have as many cells as the header; the index is the line in the file.
        issues: the other rows.
    """

    path: Path
    frame: "pandas.DataFrame"
    issues: tuple[TableIssue, ...]

    @property
    def columns(self) -> list[str]:
        """The header's names."""
        return [str(name) for name in self.frame.columns]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """Yields each row's line and its cells in some columns; a name given twice means the first column."""
        places = [self.columns.index(name) for name in columns]
        for line, *cells in self.frame.iloc[:, places].itertuples(name=None):
            yield int(line), [str(cell) for cell in cells]

    def issue(
        self,
        line: int,
        rule: str,
        received: object = "",
        *,
        column: str = "",
        study_id: str = "",
        series_id: str = "",
    ) -> TableIssue:
        """Returns an issue of this table; see `TableIssue`."""
        return TableIssue(self.path, line, rule, str(received), column, study_id, series_id)

    def require_sound(self) -> "TextTable":
        """Returns the table itself.

        Raises:
            ValueError: a row has more or fewer cells than the header.
        """
        if self.issues:
            raise self.issues[0].to_error()
        return self


def read_text_table(path: Path, columns: Sequence[str] = ()) -> TextTable:
    """Reads a CSV table in UTF-8, with or without a byte order mark. Empty lines are ignored.

    Args:
        path: the table.
        columns: names that the header must contain; others are allowed.

    Raises:
        ValueError: a column is missing, or the file is not a CSV in UTF-8.
    """
    cells = _read_cells(path)
    # Cells beyond a row's last one are NaN, empty cells are "".
    num_cells = cells.notna().sum(axis=1)
    # A quoted cell may contain line ends: then a row is more than one line.
    num_line_ends = sum((cells[name].str.count("\n").fillna(0) for name in cells), start=0 * num_cells)
    cells.index = (num_line_ends + 1).cumsum().astype(int)
    num_cells.index = cells.index
    header = [str(name).strip() for name in cells.iloc[0].dropna()] if len(cells) else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(
            f"{path.name} must have the columns {list(columns)}. Missing: {missing}. Received: {header}."
        )
    cells, num_cells = cells.iloc[1:], num_cells.iloc[1:]
    frame = cells.loc[num_cells == len(header), list(range(len(header)))]
    frame = frame.apply(lambda column: column.str.strip())
    frame.columns = header
    wrong = cells[(num_cells != len(header)) & (num_cells > 0)]
    issues = tuple(_cell_count_issue(path, header, int(line), list(row)) for line, *row in wrong.itertuples())
    return TextTable(path, frame, issues)


def _cell_count_issue(path: Path, header: Sequence[str], line: int, cells: Sequence[object]) -> TableIssue:
    present = [str(cell).strip() for cell in cells if isinstance(cell, str)]
    study_id = dict(zip(header, present, strict=False)).get("study_id", "")
    count = f"{len(present)} or more" if len(present) > len(header) else f"{len(present)}"
    rule = f"a row must have {len(header)} cells. Received: {count}"
    return TableIssue(path, line, rule, "", study_id=study_id)


def _read_cells(path: Path) -> "pandas.DataFrame":
    """Returns all rows, including the header, with one column more than the header has."""
    # Not at the top: importing pandas takes a second, and commands must answer --help without it.
    import pandas

    try:
        with open_regular_file(path) as file:
            text = decode_text(file.read(), f"{path} must be a CSV in UTF-8")
        num_columns = pandas.read_csv(io.StringIO(text), nrows=1, **_TEXT_OPTIONS).shape[1] + 1
        return pandas.read_csv(
            io.StringIO(text),
            names=list(range(num_columns)),
            on_bad_lines=lambda cells: cells[:num_columns],
            **_TEXT_OPTIONS,
        )
    except pandas.errors.EmptyDataError:
        return pandas.DataFrame()
    except pandas.errors.ParserError as error:
        raise ValueError(f"{path} must be a CSV in UTF-8. Received: {type(error).__name__}.") from None
