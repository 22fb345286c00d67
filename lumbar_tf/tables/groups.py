"""Tables of groups of studies, such as site, sex and age: `study_id` and a column for each grouping."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lumbar_tf.tables.text_table import TextTable, read_text_table

#: Numbers of groupings in a table, and of groups in a grouping; more are hard to read, and some group then
#: differs from the others by chance.
MAX_GROUPINGS = 12
MAX_GROUPS = 20
#: A column of numbers with more different values than this is cut into bins.
MAX_NUMBERS = 8
#: Number of the bins: three, each with about a third of the studies.
NUM_BINS = 3

#: Group of the studies without a value.
UNKNOWN = "unknown"
#: Texts that mean that there is no value, in lower case.
_MISSING = frozenset(("", "na", "n/a", "nan", UNKNOWN))
#: Numbers that are quantities. Accession numbers, dates and ids with leading zeros are not.
_QUANTITY = re.compile(r"[+-]?(0|[1-9]\d{0,4})(\.\d+)?")
_NUMBERS_RULE = (
    f"a column of numbers with more than {MAX_NUMBERS} different values must contain no text but NA, and no "
    "numbers of more than five digits"
)
_STUDY_COLUMN = "study_id"


@dataclass(frozen=True)
class Grouping:
    """A partition of the studies.

    Attributes:
        attribute: the attribute that distinguishes the groups, such as the vendor.
        group_of: study id -> name of its group.
        order: names of the groups in the order of the output.
    """

    attribute: str
    group_of: Mapping[str, str]
    order: tuple[str, ...]


@dataclass(frozen=True)
class GroupTable:
    """The groupings of a table for some studies.

    Attributes:
        groupings: a grouping for each column; each contains all of the studies.
        num_ignored: rows of other studies.
        num_absent: studies without a row; their group is `UNKNOWN`.
    """

    groupings: tuple[Grouping, ...]
    num_ignored: int
    num_absent: int


def read_group_table(path: Path, study_ids: Sequence[str]) -> GroupTable:
    """Reads groupings of studies.

    Each value of a column is a group. Empty cells, `NA`, `N/A`, `NaN` and `unknown` are the group `UNKNOWN`.
    A column of numbers with more than `MAX_NUMBERS` different values is cut at the terciles of the table.

    Args:
        path: a CSV with `study_id` and further columns.
        study_ids: the studies to group; rows of other studies are counted and otherwise ignored.

    Raises:
        ValueError: a study has two rows, the table has no column or more than `MAX_GROUPINGS`, or a column
            has more than `MAX_GROUPS` groups, different values for most studies (it would identify them), or
            a text among many numbers. The message names file, line and column, but no value of a study.
    """
    table = read_text_table(path, [_STUDY_COLUMN]).require_sound()
    columns = _grouping_columns(table)
    lines: dict[str, int] = {}
    for line, (study_id,) in table.rows([_STUDY_COLUMN]):
        if not study_id or study_id in lines:
            rule = f"{_STUDY_COLUMN} must be given, and once"
            raise table.issue(line, rule, repr(study_id), column=_STUDY_COLUMN).to_error()
        lines[study_id] = line
    chosen = [study_id for study_id in study_ids if study_id in lines]
    return GroupTable(
        tuple(_read_column(table, column, lines, study_ids) for column in columns),
        num_ignored=len(lines) - len(chosen),
        num_absent=len(study_ids) - len(chosen),
    )


def _grouping_columns(table: TextTable) -> list[str]:
    columns = [name for name in table.columns if name != _STUDY_COLUMN]
    is_named = all(columns) and len(set(table.columns)) == len(table.columns)
    if not is_named or not 1 <= len(columns) <= MAX_GROUPINGS:
        raise ValueError(
            f"{table.path} must have 1 to {MAX_GROUPINGS} columns besides {_STUDY_COLUMN}, each with its own "
            f"name. Received: {table.columns}."
        )
    return columns


def _read_column(
    table: TextTable, column: str, lines: Mapping[str, int], study_ids: Sequence[str]
) -> Grouping:
    """Returns the grouping of a column for some studies."""
    cells = {study: cell for _, (study, cell) in table.rows([_STUDY_COLUMN, column])}
    given = {study: cell for study, cell in cells.items() if cell.lower() not in _MISSING}
    is_quantity = {study: _QUANTITY.fullmatch(cell) is not None for study, cell in given.items()}
    if len(set(given.values())) > MAX_NUMBERS and sum(is_quantity.values()) > len(given) / 2:
        for study in given:
            if not is_quantity[study]:
                raise table.issue(lines[study], _NUMBERS_RULE, column=column).to_error()
        names, order = _cut_numbers({study: float(cell) for study, cell in given.items()})
    else:
        _check_groups(table, column, given)
        names, order = given, tuple(sorted(set(given.values()), key=_sort_key))
    group_of = {study: names.get(study, UNKNOWN) for study in study_ids}
    return Grouping(column, group_of, (*order, UNKNOWN))


def _check_groups(table: TextTable, column: str, given: Mapping[str, str]) -> None:
    """Refuses a column that names studies or patients, or has too many groups."""
    counts = Counter(given.values())
    num_single = sum(count == 1 for count in counts.values())
    if num_single > max(1, len(given) / 2):
        raise ValueError(
            f"{table.path}, column {column}: a grouping must put most studies together with others, but most "
            "values occur once, as names and ids do, and the results would print them. "
            f"Received: {len(counts)} values of {len(given)} studies."
        )
    if len(counts) > MAX_GROUPS:
        raise ValueError(
            f"{table.path}, column {column}: a grouping must have at most {MAX_GROUPS} groups. "
            f"Received: {len(counts)}."
        )


def _cut_numbers(numbers: Mapping[str, float]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns the bin of each study, and the bins in order.

    The cuts are values of the data, so that they have no more digits. The first and the last bin are open, so
    that the names do not contain the lowest and the highest value.
    """
    values = np.array(list(numbers.values()))
    cuts = np.unique(np.quantile(values, np.arange(1, NUM_BINS) / NUM_BINS, method="inverted_cdf"))
    texts = [f"{cut:.10g}" for cut in cuts]
    between = [f"over {low} to {high}" for low, high in pairwise(texts)]
    order = (f"up to {texts[0]}", *between, f"over {texts[-1]}")
    # A value that equals a cut is in the bin below it.
    places = np.searchsorted(cuts, values, side="left")
    return {study: order[place] for study, place in zip(numbers, places, strict=True)}, order


def _sort_key(name: str) -> tuple[int, float, str]:
    return (0, float(name), name) if _QUANTITY.fullmatch(name) else (1, 0.0, name)
