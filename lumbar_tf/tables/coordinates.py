"""Reads `train_label_coordinates.csv` and places its points in patient space."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, pixel_to_patient
from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import NUM_FINDINGS, Plane, finding_index, parse_condition, parse_level
from lumbar_tf.tables.csv_rows import read_columns

_COLUMNS = ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"]


@dataclass(frozen=True)
class Coordinate:
    """Where an annotator put a finding.

    Attributes:
        series_id: the series that was annotated.
        instance_number: the slice's InstanceNumber.
        finding: the finding's row, 0 to 24.
        column: x, pixels, the first pixel's centre at 0.
        row: y, pixels.
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
            of conditions and levels are read, and further columns (`fix`) are left alone.

    Returns:
        Points by study id, in the table's order, and a reject for each row that makes no sense.

    Raises:
        ValueError: a column is missing, or the file is no CSV.
    """
    points: dict[str, list[Coordinate]] = {}
    rows, rejects = read_columns(path, _COLUMNS)
    for line, (study_id, series_id, *cells) in rows:
        try:
            point = _parse_point(series_id, *cells)
        except _BadCellError as error:
            message = f"line {line}: {error}"
            rejects.append(Reject(study_id, series_id, path.name, RejectReason.BAD_TABLE_ROW, message))
        else:
            points.setdefault(study_id, []).append(point)
    return points, rejects


class _BadCellError(Exception):
    """A cell breaks the rule that the message names; what it holds can be anything, and is not repeated."""


def _parse_point(series_id: str, instance: str, condition: str, level: str, x: str, y: str) -> Coordinate:
    try:
        finding = finding_index(parse_condition(condition), parse_level(level))
    except ValueError:
        raise _BadCellError("condition and level must be a graded condition and L1/L2 to L5/S1") from None
    # Some tools write whole numbers as 8.0.
    number, column_px, row_px = _parse_number(instance), _parse_number(x), _parse_number(y)
    if not number.is_integer() or not (np.isfinite(column_px) and np.isfinite(row_px)):
        raise _BadCellError("instance_number must be a whole number, x and y finite numbers")
    return Coordinate(series_id, int(number), finding, column_px, row_px)


def _parse_number(text: str) -> float:
    """Returns a cell's number, NaN where it holds none."""
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
        coordinates: its points. Of two for one finding the later one counts.

    Returns:
        LPS mm, float32 [25, 3], NaN where there is no point; and a reject for each point whose slice
        is absent or not the only one of its number, or that lies outside its image.
    """
    points = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    members = [each for slices in planes.values() for each in slices]
    geometries = {(each.series_id, each.instance_number): each.geometry for each in members}
    counts = Counter((each.series_id, each.instance_number) for each in members)
    rejects: list[Reject] = []
    for each in coordinates:
        key = (each.series_id, each.instance_number)
        reason, message = _judge_point(each, geometries.get(key), counts[key])
        if reason is None:
            points[each.finding] = pixel_to_patient(geometries[key], (each.column, each.row))
        else:
            rejects.append(Reject(study_id, each.series_id, "", reason, message))
    return points, rejects


def _judge_point(
    point: Coordinate, geometry: SliceGeometry | None, num_slices: int
) -> tuple[RejectReason | None, str]:
    """Says why a point cannot be placed; (None, "") where it can."""
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
