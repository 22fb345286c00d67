"""Planes of series: `*_series_descriptions.csv` and `--series-map`."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.labels import Plane, parse_plane
from lumbar_tf.tables.text_table import read_text_table

_COLUMNS = ["study_id", "series_id", "series_description"]
#: The description of a series that is to be left out.
_LEAVE_OUT = "none"

#: The plane of each series of one study, None where the series is to be left out.
SeriesPlanes = dict[str, Plane | None]


def read_series_descriptions(path: Path) -> tuple[dict[str, SeriesPlanes], list[Reject]]:
    """Reads the plane of each series.

    Args:
        path: a CSV with study_id, series_id, series_description; both `Sagittal T2/STIR` and `sagittal_t2`
            are accepted, and `none` means that the series is to be left out.

    Returns:
        Planes by study id, and a reject for each row whose description is not a plane, that lacks an id, or
        that contradicts an earlier row of the same series. The earlier row is used.

    Raises:
        ValueError: a column is missing, or the file is not a CSV.
    """
    planes: dict[str, SeriesPlanes] = {}
    table = read_text_table(path, _COLUMNS)
    rejects = [issue.to_reject() for issue in table.issues]
    for line, (study_id, series_id, description) in table.rows(_COLUMNS):
        rule = _add_row(planes, study_id, series_id, description)
        if rule:
            rejects.append(table.issue(line, rule, study_id=study_id, series_id=series_id).to_reject())
    return planes, rejects


def _add_row(planes: dict[str, SeriesPlanes], study_id: str, series_id: str, description: str) -> str:
    """Adds a row, and returns the rule that it breaks, "" if it is valid."""
    try:
        plane = None if description.lower() == _LEAVE_OUT else parse_plane(description)
    except ValueError:
        # The message must not repeat the cell, which can contain anything.
        allowed = ", ".join([*(plane.series_description for plane in Plane), _LEAVE_OUT])
        return f"series_description must be one of {allowed}"
    if not study_id or not series_id:
        return "study_id and series_id must be given"
    if planes.setdefault(study_id, {}).setdefault(series_id, plane) is not plane:
        return "an earlier row gives the series another description"
    return ""


def merge_series_tables(
    table: Mapping[str, Mapping[str, Plane | None]], overrides: Mapping[str, Mapping[str, Plane | None]]
) -> dict[str, SeriesPlanes]:
    """Returns a table with the overrides' rows replacing those of the same series.

    >>> merge_series_tables({"1": {"a": Plane.AXIAL_T2, "b": None}}, {"1": {"a": None}})
    {'1': {'a': None, 'b': None}}
    """
    study_ids = dict.fromkeys([*table, *overrides])
    return {study_id: {**table.get(study_id, {}), **overrides.get(study_id, {})} for study_id in study_ids}


def absent_series(
    study_id: str, table: Mapping[str, Plane | None], found_series_ids: Collection[str]
) -> list[Reject]:
    """Returns a reject for each series in a study's rows that has no readable file."""
    message = "a table names this series, but it has no readable file"
    return [
        Reject(study_id, series_id, "", RejectReason.ABSENT_SERIES, message)
        for series_id in sorted(table)
        if series_id not in found_series_ids
    ]


def absent_studies(path: Path, named: Iterable[str], found: Collection[str]) -> list[Reject]:
    """Returns one reject with the number of a table's studies that are absent from the source, if any.

    Args:
        path: the table.
        named: the study ids in it.
        found: the study ids of the source.
    """
    num_absent = len(set(named) - set(found))
    message = f"{num_absent} studies of the table are not in the source"
    return [Reject("", "", path.name, RejectReason.ABSENT_STUDY, message)] if num_absent else []
