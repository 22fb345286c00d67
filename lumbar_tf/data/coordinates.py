"""Reads `train_label_coordinates.csv` and places its points in patient space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.data.series_table import read_columns
from lumbar_tf.imaging.geometry import pixel_to_patient
from lumbar_tf.imaging.study import Reject, RejectReason, Slice
from lumbar_tf.labels import NUM_FINDINGS, Plane, finding_index, parse_condition, parse_level

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
        ValueError: a column is missing.
    """
    points: dict[str, list[Coordinate]] = {}
    rejects: list[Reject] = []
    for row in read_columns(path, _COLUMNS).itertuples(index=False):
        study_id, series_id, instance_number, condition, level, x, y = map(str, row)
        try:
            column_px, row_px = float(x), float(y)
            if not (np.isfinite(column_px) and np.isfinite(row_px)):
                raise ValueError(f"x and y must be finite. Received: {x}, {y}.")
            finding = finding_index(parse_condition(condition), parse_level(level))
            # Some tools write whole numbers as 8.0.
            point = Coordinate(series_id, int(float(instance_number)), finding, column_px, row_px)
            points.setdefault(study_id, []).append(point)
        except (ValueError, OverflowError) as error:
            rejects.append(Reject(study_id, series_id, path.name, RejectReason.BAD_TABLE_ROW, str(error)))
    return points, rejects


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
        is absent or that lies outside its image.
    """
    points = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    slices = {(each.series_id, each.instance_number): each for members in planes.values() for each in members}
    rejects: list[Reject] = []
    for each in coordinates:
        found = slices.get((each.series_id, each.instance_number))
        if found is None:
            message = f"a point names instance {each.instance_number}, which is not there"
            rejects.append(Reject(study_id, each.series_id, "", RejectReason.NO_SUCH_SLICE, message))
            continue
        rows, columns = found.pixels.shape
        if not (-0.5 <= each.column <= columns - 0.5 and -0.5 <= each.row <= rows - 0.5):
            message = f"a point at ({each.column:g}, {each.row:g}) lies outside {columns} x {rows} pixels"
            rejects.append(Reject(study_id, each.series_id, "", RejectReason.BAD_TABLE_ROW, message))
            continue
        points[each.finding] = pixel_to_patient(found.geometry, (each.column, each.row))
    return points, rejects
