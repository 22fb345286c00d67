"""Pictures of slices along the patient's axes, whatever way round the scanner stored them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import (
    SliceGeometry,
    Vector,
    canonical_axes,
    patient_to_pixel,
    pixel_to_patient,
)
from lumbar_tf.dicom.study import Slice

Floats = NDArray[np.float32]

#: Distance between the picture's pixels: a little finer than lumbar slices are stored, mm.
PITCH_MM = 0.5
#: Where a point misses a slice's image altogether it counts as this far from it, mm.
_OUTSIDE_MM = 50.0


@dataclass(frozen=True, eq=False)
class View:
    """A rectangle of one slice as a radiologist sees it.

    Attributes:
        image: float32 [height, width], NaN outside the stored image.
        centre: patient position of the rectangle's centre, LPS mm [3].
        right: the picture's way right, LPS unit vector [3].
        down: the picture's way down, LPS unit vector [3].
        normal: the slice's canonical normal, LPS unit vector [3].
        size_mm: width and height.
    """

    image: Floats
    centre: Vector
    right: Vector
    down: Vector
    normal: Vector
    size_mm: tuple[float, float]

    def place(self, point: Sequence[float] | Floats | Vector) -> tuple[float, float, float]:
        """Returns where a patient point lies: mm right and mm down of the centre, and mm off the slice."""
        offset = np.asarray(point, float) - self.centre
        return float(offset @ self.right), float(offset @ self.down), float(offset @ self.normal)


def choose_slice(slices: Iterable[Slice], points: Floats, *, max_distance_mm: float) -> Slice | None:
    """Chooses the slice that passes nearest to some points.

    Args:
        slices: slices of one plane, of any series, in any order.
        points: float [n, 3], LPS mm; rows with NaN are passed over.
        max_distance_mm: at least one point must lie this near to the slice, and within its image.

    Returns:
        The slice with the smallest mean distance; None where there is none near enough.
    """
    known = points[np.isfinite(points).all(axis=-1)]
    best, best_cost = None, np.inf
    for each in slices:
        distances = [_distance_mm(each.geometry, point) for point in known]
        if distances and min(distances) <= max_distance_mm and np.mean(distances) < best_cost:
            best, best_cost = each, float(np.mean(distances))
    return best


def _distance_mm(geometry: SliceGeometry, point: Vector) -> float:
    column, row, distance = patient_to_pixel(geometry, point.tolist())
    inside = -0.5 <= column <= geometry.columns - 0.5 and -0.5 <= row <= geometry.rows - 0.5
    return min(abs(distance), _OUTSIDE_MM) if inside else _OUTSIDE_MM


def cut_view(each: Slice, around: Vector, *, size_mm: tuple[float, float], is_sagittal: bool) -> View:
    """Cuts a rectangle out of a slice, along the patient's axes.

    Args:
        each: the slice.
        around: LPS mm; the centre is its foot on the slice's plane.
        size_mm: width and height.
        is_sagittal: tells the axes, see `geometry.canonical_axes`.

    Returns:
        The picture, bilinearly interpolated.
    """
    geometry = each.geometry
    normal = geometry.normal
    right, down = canonical_axes(normal, is_sagittal=is_sagittal)
    centre = around - normal * ((around - np.asarray(geometry.position)) @ normal)
    width, height = (round(size / PITCH_MM) for size in size_mm)
    across = (np.arange(width) - (width - 1) / 2) * PITCH_MM
    along = (np.arange(height) - (height - 1) / 2) * PITCH_MM
    # DICOM PS3.3 equation C.7.6.2.1-1 solved for the pixel, for a whole grid at once.
    offset = (centre - np.asarray(geometry.position)) + across[:, None] * right + along[:, None, None] * down
    column = offset @ np.asarray(geometry.row_direction) / geometry.column_spacing_mm
    row = offset @ np.asarray(geometry.column_direction) / geometry.row_spacing_mm
    return View(sample_bilinear(each.pixels, column, row), centre, right, down, normal, size_mm)


def sample_bilinear(pixels: Floats, column: Vector, row: Vector) -> Floats:
    """Interpolates an image at fractional pixels.

    Args:
        pixels: float32 [rows, columns].
        column: of any shape, pixel centres at whole numbers.
        row: of the same shape.

    Returns:
        float32 of that shape, NaN more than half a pixel outside.

    >>> sample_bilinear(np.array([[0, 4], [8, 12]], np.float32), np.array([0.5]), np.array([0.25])).tolist()
    [4.0]
    """
    rows, columns = pixels.shape
    inside = (column >= -0.5) & (column <= columns - 0.5) & (row >= -0.5) & (row <= rows - 0.5)
    column, row = np.clip(column, 0, columns - 1), np.clip(row, 0, rows - 1)
    left = np.minimum(column.astype(int), max(columns - 2, 0))
    top = np.minimum(row.astype(int), max(rows - 2, 0))
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    across, along = column - left, row - top
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return np.where(inside, upper * (1 - along) + lower * along, np.nan).astype(np.float32)


def turn_upright(each: Slice, *, is_sagittal: bool) -> Slice:
    """Turns and flips a slice by quarter turns, so that it lies as `geometry.canonical_axes` say.

    No pixel is interpolated: a slice that the scanner tilted stays tilted by what is left, under 45 degrees.

    Args:
        each: the slice.
        is_sagittal: tells the axes.

    Returns:
        The same pixels at the same places of the patient, the front (sagittal) or the patient's right (axial)
        at the left and the head or the front above.
    """
    old, pixels = each.geometry, each.pixels
    right, down = canonical_axes(old.normal, is_sagittal=is_sagittal)
    along_row, along_column = np.asarray(old.row_direction), np.asarray(old.column_direction)
    if abs(along_row @ right) + abs(along_column @ down) < abs(along_row @ down) + abs(along_column @ right):
        pixels = pixels.T
        old = replace(
            old,
            row_direction=old.column_direction,
            column_direction=old.row_direction,
            row_spacing_mm=old.column_spacing_mm,
            column_spacing_mm=old.row_spacing_mm,
            rows=old.columns,
            columns=old.rows,
        )
    if np.asarray(old.row_direction) @ right < 0:
        pixels = pixels[:, ::-1]
        corner = pixel_to_patient(old, (old.columns - 1, 0))
        old = replace(old, position=_triple(corner), row_direction=_triple(-np.asarray(old.row_direction)))
    if np.asarray(old.column_direction) @ down < 0:
        pixels = pixels[::-1]
        corner = pixel_to_patient(old, (0, old.rows - 1))
        turned = _triple(-np.asarray(old.column_direction))
        old = replace(old, position=_triple(corner), column_direction=turned)
    return Slice(old, pixels, each.series_id, each.instance_number)


def _triple(vector: Vector) -> tuple[float, float, float]:
    x, y, z = (float(value) + 0.0 for value in vector)
    return x, y, z
