"""Geometry and rescale of a frame."""

import math
from collections.abc import Sequence
from operator import mul

from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.values import find_value, read_numbers
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: Allowed deviation of ImageOrientationPatient from two perpendicular unit vectors. Scanners write 6 or more
#: digits; 0.01 still accepts rounding to two digits.
_DIRECTION_TOLERANCE = 0.01
#: mm. Micro-coils have 0.03 and spectroscopic grids 20; the limits include a margin.
_SMALLEST_SPACING_MM, _LARGEST_SPACING_MM = 0.01, 100.0
#: mm. A scanner's table moves 2 m; the float32 of the records has a precision of 0.01 mm at this limit.
_LARGEST_POSITION_MM = 100_000.0
#: Rescaled values are float32; 65,535 times this, plus this, is still finite.
_LARGEST_RESCALE = 1e30

_Direction = tuple[float, float, float]


def read_geometry(dataset: Dataset, layout: PixelLayout, frame: int, *, in_groups: bool) -> SliceGeometry:
    """Reads the geometry of a frame.

    Args:
        dataset: header of the file.
        layout: rows and columns.
        frame: index of the frame, from 0.
        in_groups: whether only the functional groups are read, as in a file of several frames, where values
            at the top level belong to no particular frame.

    Raises:
        RejectedError: BAD_FRAMES, BAD_POSITION, BAD_ORIENTATION or BAD_SPACING.
    """
    position = find_value(dataset, "ImagePositionPatient", frame, top_level=not in_groups)
    if in_groups and position is None:
        message = "every frame of a multi-frame file must have a position in its functional groups"
        raise RejectedError(RejectReason.BAD_FRAMES, message)
    orientation = find_value(dataset, "ImageOrientationPatient", frame, top_level=not in_groups)
    spacing = find_value(dataset, "PixelSpacing", frame, top_level=not in_groups)
    row_direction, column_direction = _check_orientation(orientation)
    row_spacing_mm, column_spacing_mm = _check_spacing(spacing)
    return SliceGeometry(
        position=_check_position(position),
        row_direction=row_direction,
        column_direction=column_direction,
        row_spacing_mm=row_spacing_mm,
        column_spacing_mm=column_spacing_mm,
        rows=layout.rows,
        columns=layout.columns,
    )


def _check_position(value: object) -> _Direction:
    x, y, z = read_numbers(value, 3, "ImagePositionPatient", RejectReason.BAD_POSITION)
    if max(abs(x), abs(y), abs(z)) > _LARGEST_POSITION_MM:
        message = (
            f"ImagePositionPatient must be within {_LARGEST_POSITION_MM:.0f} mm. Received: {x}, {y}, {z}"
        )
        raise RejectedError(RejectReason.BAD_POSITION, message)
    return x, y, z


def _check_orientation(value: object) -> tuple[_Direction, _Direction]:
    """Returns the unit vectors of rows and columns."""
    numbers = read_numbers(value, 6, "ImageOrientationPatient", RejectReason.BAD_ORIENTATION)
    row, column = numbers[:3], numbers[3:]
    faults = (math.hypot(*row) - 1, math.hypot(*column) - 1, sum(map(mul, row, column)))
    if max(map(abs, faults)) > _DIRECTION_TOLERANCE:
        message = "ImageOrientationPatient must be two perpendicular unit vectors"
        raise RejectedError(RejectReason.BAD_ORIENTATION, message)
    return _unit(row), _unit(column)


def _unit(vector: Sequence[float]) -> _Direction:
    length = math.hypot(*vector)
    x, y, z = (component / length for component in vector)
    return x, y, z


def _check_spacing(value: object) -> tuple[float, float]:
    row_mm, column_mm = read_numbers(value, 2, "PixelSpacing", RejectReason.BAD_SPACING)
    if not all(_SMALLEST_SPACING_MM <= value_mm <= _LARGEST_SPACING_MM for value_mm in (row_mm, column_mm)):
        message = (
            f"PixelSpacing must be in [{_SMALLEST_SPACING_MM}, {_LARGEST_SPACING_MM}] mm. "
            f"Received: {row_mm} x {column_mm}"
        )
        raise RejectedError(RejectReason.BAD_SPACING, message)
    return row_mm, column_mm


def read_rescale(dataset: Dataset, frame: int, *, in_groups: bool) -> tuple[float, float]:
    """Returns slope and intercept of a frame; 1 and 0 if absent.

    Raises:
        RejectedError: BAD_RESCALE if they are not finite, the slope is 0, or there is a lookup table instead.
    """
    if "ModalityLUTSequence" in dataset:
        raise RejectedError(
            RejectReason.BAD_RESCALE,
            "a Modality LUT must be given by slope and intercept. Received: a lookup table",
        )
    slope = find_value(dataset, "RescaleSlope", frame, top_level=not in_groups)
    intercept = find_value(dataset, "RescaleIntercept", frame, top_level=not in_groups)
    (slope,) = read_numbers(1.0 if slope is None else slope, 1, "RescaleSlope", RejectReason.BAD_RESCALE)
    (intercept,) = read_numbers(
        0.0 if intercept is None else intercept, 1, "RescaleIntercept", RejectReason.BAD_RESCALE
    )
    if slope == 0 or max(abs(slope), abs(intercept)) > _LARGEST_RESCALE:
        message = f"RescaleSlope must be a number other than 0. Received: {slope}, intercept {intercept}"
        raise RejectedError(RejectReason.BAD_RESCALE, message)
    return slope, intercept
