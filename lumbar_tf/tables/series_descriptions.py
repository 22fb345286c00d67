"""Reads `*_series_descriptions.csv` and `--series-map`: which plane each series is, or none."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.labels import Plane, parse_plane
from lumbar_tf.tables.csv_rows import read_columns

_COLUMNS = ["study_id", "series_id", "series_description"]
#: How a table says that a series is to be left out.
_LEAVE_OUT = "none"

#: The plane of each series of one study, None where the series is to be left out.
SeriesPlanes = dict[str, Plane | None]


def read_series_table(path: Path) -> tuple[dict[str, SeriesPlanes], list[Reject]]:
    """Reads the plane of each series.

    Args:
        path: a CSV with study_id, series_id, series_description; `Sagittal T2/STIR` and `sagittal_t2`
            are both read, and `none` means that the series is to be left out.

    Returns:
        Planes by study id, and a reject for each row whose description is no plane, that lacks an id, or
        that contradicts an earlier row of the same series, which then counts.

    Raises:
        ValueError: a column is missing, or the file is no CSV.
    """
    table: dict[str, SeriesPlanes] = {}
    rows, rejects = read_columns(path, _COLUMNS)
    for line, (study_id, series_id, description) in rows:
        rule = _add_row(table, study_id, series_id, description)
        if rule:
            message = f"line {line}: {rule}"
            rejects.append(Reject(study_id, series_id, path.name, RejectReason.BAD_TABLE_ROW, message))
    return table, rejects


def _add_row(table: dict[str, SeriesPlanes], study_id: str, series_id: str, description: str) -> str:
    """Adds a row; returns the rule that it breaks, "" where it is sound."""
    try:
        plane = None if description.lower() == _LEAVE_OUT else parse_plane(description)
    except ValueError:
        # What the cell holds instead can be anything, and is not repeated.
        allowed = ", ".join([*(each.series_description for each in Plane), _LEAVE_OUT])
        return f"series_description must be one of {allowed}"
    if not study_id or not series_id:
        return "study_id and series_id must be given"
    if table.setdefault(study_id, {}).setdefault(series_id, plane) is not plane:
        return "an earlier row gives the series another description"
    return ""


def merge_series_tables(
    table: Mapping[str, Mapping[str, Plane | None]], overrides: Mapping[str, Mapping[str, Plane | None]]
) -> dict[str, SeriesPlanes]:
    """Returns a table in which the rows of another one count first, series by series.

    >>> merge_series_tables({"1": {"a": Plane.AXIAL_T2, "b": None}}, {"1": {"a": None}})
    {'1': {'a': None, 'b': None}}
    """
    study_ids = [*table, *(each for each in overrides if each not in table)]
    return {each: {**table.get(each, {}), **overrides.get(each, {})} for each in study_ids}


def absent_series(
    study_id: str, table: Mapping[str, Plane | None], found_series_ids: Collection[str]
) -> list[Reject]:
    """Returns a reject for each series that a study's rows name and that is not there."""
    message = "a table names this series, of which no readable file is there"
    return [
        Reject(study_id, series_id, "", RejectReason.ABSENT_SERIES, message)
        for series_id in sorted(table)
        if series_id not in found_series_ids
    ]


def absent_studies(path: Path, named: Iterable[str], found: Collection[str]) -> list[Reject]:
    """Returns one note, with their number, of the studies that a table names and that are not there.

    Args:
        path: the table.
        named: the study ids in it.
        found: the study ids of the source.
    """
    num_absent = len(set(named) - set(found))
    message = f"{num_absent} studies of the table are not in the source"
    return [Reject("", "", path.name, RejectReason.ABSENT_STUDY, message)] if num_absent else []
