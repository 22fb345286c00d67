"""Annotated points: `train_label_coordinates.csv` and their positions in patient space."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, pixel_to_patient
from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import NUM_FINDINGS, Plane, finding_index, parse_condition, parse_level
from lumbar_tf.tables.text_table import TextTable, read_text_table

_COLUMNS = ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"]


@dataclass(frozen=True)
class Coordinate:
    """An annotator's point of a finding.

    Attributes:
        series_id: the annotated series.
        instance_number: the slice's InstanceNumber.
        finding: the finding's index, 0 to 24.
        column: x in pixels; the centre of the first pixel is 0.
        row: y in pixels; likewise.
    """

    series_id: str
    instance_number: int
    finding: int
    column: float
    row: float


def read_coordinates(path: Path) -> tuple[dict[str, list[Coordinate]], list[Reject]]:
    """Reads the annotated points of every study.

    Args:
        path: a CSV with study_id, series_id, instance_number, condition, level, x, y. Both spellings
            of conditions and levels are accepted, and other columns (`fix`) are ignored.

    Returns:
        Points by study id, in the table's order, and a reject for each invalid row. Of a finding that is
        given several times with other coordinates, no row is valid.

    Raises:
        ValueError: a column is missing, or the file is not a CSV.
    """
    points: dict[tuple[str, int], dict[Coordinate, list[int]]] = {}
    table = read_text_table(path, _COLUMNS)
    rejects = [issue.to_reject() for issue in table.issues]
    for line, (study_id, series_id, *cells) in table.rows(_COLUMNS):
        try:
            point = _parse_point(series_id, *cells)
        except _InvalidCellError as error:
            issue = table.issue(line, str(error), study_id=study_id, series_id=series_id)
            rejects.append(issue.to_reject())
        else:
            points.setdefault((study_id, point.finding), {}).setdefault(point, []).append(line)
    found: dict[str, list[Coordinate]] = {}
    for (study_id, _), lines in points.items():
        if len(lines) == 1:
            found.setdefault(study_id, []).extend(lines)
        else:
            rejects.extend(_contradictions(table, study_id, lines))
    return found, rejects


def _contradictions(
    table: TextTable, study_id: str, lines: Mapping[Coordinate, Sequence[int]]
) -> Iterator[Reject]:
    """Yields a reject for each row of a finding with contradictory coordinates."""
    places = sorted(line for group in lines.values() for line in group)
    rule = f"a finding must have one point. Lines {', '.join(map(str, places))} give it several"
    for point, group in lines.items():
        for line in group:
            yield table.issue(line, rule, study_id=study_id, series_id=point.series_id).to_reject()


class _InvalidCellError(Exception):
    """A cell breaks the rule in the message, which does not contain the cell's content."""


def _parse_point(series_id: str, instance: str, condition: str, level: str, x: str, y: str) -> Coordinate:
    try:
        finding = finding_index(parse_condition(condition), parse_level(level))
    except ValueError:
        raise _InvalidCellError("condition and level must be a graded condition and L1/L2 to L5/S1") from None
    # Some tools write whole numbers as 8.0.
    number, column_px, row_px = _parse_number(instance), _parse_number(x), _parse_number(y)
    if not number.is_integer() or not (np.isfinite(column_px) and np.isfinite(row_px)):
        raise _InvalidCellError("instance_number must be a whole number, x and y finite numbers")
    return Coordinate(series_id, int(number), finding, column_px, row_px)


def _parse_number(text: str) -> float:
    """Returns a cell's number, NaN if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def place_points(
    study_id: str, planes: Mapping[Plane, Sequence[Slice]], coordinates: Sequence[Coordinate]
) -> tuple[NDArray[np.float32], list[Reject]]:
    """Maps a study's annotated pixels to patient space.

    Args:
        study_id: the study, for messages.
        planes: its slices.
        coordinates: its points, one for each finding.

    Returns:
        LPS mm, float32 [25, 3], NaN for a finding without a point; and a reject for each point whose slice
        is absent or shares its InstanceNumber with another slice, or that lies outside the image.
    """
    points = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    all_slices = [plane_slice for slices in planes.values() for plane_slice in slices]
    numbers = [(plane_slice.series_id, plane_slice.instance_number) for plane_slice in all_slices]
    geometries = {
        number: plane_slice.geometry for number, plane_slice in zip(numbers, all_slices, strict=True)
    }
    counts = Counter(numbers)
    rejects: list[Reject] = []
    for point in coordinates:
        number = (point.series_id, point.instance_number)
        reason, message = _check_placement(point, geometries.get(number), counts[number])
        if reason is None:
            points[point.finding] = pixel_to_patient(geometries[number], (point.column, point.row))
        else:
            rejects.append(Reject(study_id, point.series_id, "", reason, message))
    return points, rejects


def _check_placement(
    point: Coordinate, geometry: SliceGeometry | None, num_slices: int
) -> tuple[RejectReason | None, str]:
    """Returns the reason and message why a point cannot be placed; (None, "") if it can."""
    if geometry is None:
        return RejectReason.NO_SUCH_SLICE, f"a point names instance {point.instance_number}, which is absent"
    if num_slices > 1:
        message = f"a point names instance {point.instance_number}, which {num_slices} slices are"
        return RejectReason.AMBIGUOUS_SLICE, message
    rows, columns = geometry.rows, geometry.columns
    # The outermost pixels reach half a pixel beyond their centres.
    if not (-0.5 <= point.column <= columns - 0.5 and -0.5 <= point.row <= rows - 0.5):
        message = f"a point at ({point.column:g}, {point.row:g}) lies outside {columns} x {rows} pixels"
        return RejectReason.POINT_OUTSIDE_IMAGE, message
    return None, ""
