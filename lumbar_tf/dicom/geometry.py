"""Slice geometry in patient space.

Patient space is DICOM's LPS: +x to the patient's left, +y to the back, +z to the head, in
millimetres. Pixel coordinates are (column, row), both zero-based, and integers are pixel CENTRES, as in
DICOM PS3.3 C.7.6.2.1.1: pixel (0, 0) is centred on ImagePositionPatient.

The stored axes of a slice may point in any direction, such as left to right or right to left. Crops use
`canonical_axes` instead, which follow the patient, so a crop looks the same for every storage order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

#: Normals closer than this (0.99985 = 1 degree) belong to one orientation group. Scanner tilt between
#: the blocks of one axial lumbar series is 5 degrees and more; within a block it is exactly 0.
SAME_ORIENTATION_COSINE = 0.99985
#: A normal more than 60 degrees from the patient's axis is not an oblique of that axis.
_OBLIQUE_COSINE = 0.5
#: A projected axis that is shorter than this has no reliable direction.
_NO_DIRECTION = 1e-3


@dataclass(frozen=True)
class SliceGeometry:
    """Position of the pixels of a slice in patient space.

    Attributes:
        position: ImagePositionPatient, LPS mm, the centre of pixel (column 0, row 0).
        row_direction: unit vector along which the COLUMN index increases (first three values of
            ImageOrientationPatient).
        column_direction: unit vector along which the ROW index increases (last three values).
        row_spacing_mm: distance between rows (first value of PixelSpacing).
        column_spacing_mm: distance between columns (second value of PixelSpacing).
        rows: number of rows, the image's height.
        columns: number of columns, the image's width.
    """

    position: tuple[float, float, float]
    row_direction: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    row_spacing_mm: float
    column_spacing_mm: float
    rows: int
    columns: int

    @cached_property
    def normal(self) -> Vector:
        """Unit normal, oriented to the nearest of left (+x), back (+y) and head (+z)."""
        return canonical_normal(self.row_direction, self.column_direction)

    @cached_property
    def centre(self) -> Vector:
        """Patient position of the middle of the image, LPS mm."""
        return pixel_to_patient(self, ((self.columns - 1) / 2, (self.rows - 1) / 2))

    @property
    def sort_key(self) -> tuple[object, ...]:
        """All attributes; `dataclasses.astuple` takes ten times as long, because it copies them."""
        return (
            self.position,
            self.row_direction,
            self.column_direction,
            self.row_spacing_mm,
            self.column_spacing_mm,
            self.rows,
            self.columns,
        )


def canonical_normal(row_direction: Sequence[float], column_direction: Sequence[float]) -> Vector:
    """Returns the plane's unit normal with its largest component positive.

    >>> canonical_normal((0, 1, 0), (0, 0, -1)).tolist()
    [1.0, 0.0, 0.0]
    """
    (a, b, c), (d, e, f) = row_direction, column_direction
    # The cross product written out: NumPy's takes ten times as long, and every slice needs one.
    normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d], np.float64)
    normal = normal / np.linalg.norm(normal)
    if normal[np.argmax(np.abs(normal))] < 0:
        normal = -normal
    return normal + 0.0  # turns -0.0 into 0.0


def canonical_axes(normal: Vector, *, is_sagittal: bool) -> tuple[Vector, Vector]:
    """Returns the in-plane axes (right, down) in which crops are cut, LPS unit vectors [3].

    An axial crop is seen from the feet, the radiological convention: patient left (+x) to the right and back
    (+y) down. A sagittal crop shows back (+y) to the right and feet (-z) down. The second axis is the
    patient's direction projected into the plane; the first is perpendicular to it.

    >>> right, down = canonical_axes(np.array([0.0, 0.0, 1.0]), is_sagittal=False)
    >>> right.tolist(), down.tolist()
    ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    """
    down_hint = np.array([0.0, 0.0, -1.0]) if is_sagittal else np.array([0.0, 1.0, 0.0])
    right_hint = np.array([0.0, 1.0, 0.0]) if is_sagittal else np.array([1.0, 0.0, 0.0])
    down = down_hint - normal * (down_hint @ normal)
    if np.linalg.norm(down) < _NO_DIRECTION:
        # For example a coronal slice that a table lists as axial: any upright view is acceptable.
        down_hint = np.array([0.0, 1.0, 0.0]) if is_sagittal else np.array([0.0, 0.0, -1.0])
        down = down_hint - normal * (down_hint @ normal)
    down = down / np.linalg.norm(down)
    right = np.cross(down, normal)
    if right @ right_hint < 0:
        right = -right
    return right + 0.0, down + 0.0


def is_sagittal(geometry: SliceGeometry) -> bool | None:
    """Returns whether a slice is sagittal (True) or axial (False), including obliques; None for neither.

    >>> is_sagittal(SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4))
    True
    """
    x, _, z = np.abs(geometry.normal)
    if max(x, z) < _OBLIQUE_COSINE or x == z:
        return None
    return bool(x > z)


def pixel_to_patient(geometry: SliceGeometry, pixel: Sequence[float]) -> Vector:
    """Maps (column, row) to LPS millimetres (DICOM PS3.3 equation C.7.6.2.1-1).

    Args:
        geometry: the slice.
        pixel: (column, row), pixel centres at whole numbers.

    Returns:
        The patient position, shape [3], LPS mm.
    """
    column, row = pixel
    return (
        np.asarray(geometry.position)
        + np.asarray(geometry.row_direction) * (column * geometry.column_spacing_mm)
        + np.asarray(geometry.column_direction) * (row * geometry.row_spacing_mm)
    )


def patient_to_pixel(geometry: SliceGeometry, point: Sequence[float]) -> tuple[float, float, float]:
    """Maps LPS millimetres to (column, row, distance).

    Args:
        geometry: the slice.
        point: LPS mm, shape [3].

    Returns:
        column and row of the point's projection onto the slice plane (not clipped to the image), and the
        signed distance from the plane along `geometry.normal` in mm.
    """
    offset = np.asarray(point, float) - np.asarray(geometry.position)
    column = offset @ np.asarray(geometry.row_direction) / geometry.column_spacing_mm
    row = offset @ np.asarray(geometry.column_direction) / geometry.row_spacing_mm
    return float(column), float(row), float(offset @ geometry.normal)


def mirror_geometry(geometry: SliceGeometry) -> SliceGeometry:
    """Returns the geometry of the same pixels in the mirrored patient (x becomes -x)."""

    def flip(vector: tuple[float, float, float]) -> tuple[float, float, float]:
        return (0.0 - vector[0], vector[1], vector[2])

    return SliceGeometry(
        position=flip(geometry.position),
        row_direction=flip(geometry.row_direction),
        column_direction=flip(geometry.column_direction),
        row_spacing_mm=geometry.row_spacing_mm,
        column_spacing_mm=geometry.column_spacing_mm,
        rows=geometry.rows,
        columns=geometry.columns,
    )


def order_slices(geometries: Sequence[SliceGeometry]) -> list[list[int]]:
    """Groups slices by orientation and sorts each group along its normal.

    File names and InstanceNumber are not used: both contradict the geometry in real data.

    Args:
        geometries: the slices of ONE series.

    Returns:
        Groups of indices into `geometries`. Groups are ordered by their mean position along the patient's
        axis nearest to their normal (axial: feet to head; sagittal: right to left), slices within a group by
        their position along the normal.
    """
    groups: list[list[int]] = []
    for index, geometry in enumerate(geometries):
        for group in groups:
            if geometry.normal @ geometries[group[0]].normal > SAME_ORIENTATION_COSINE:
                group.append(index)
                break
        else:
            groups.append([index])

    def along_normal(index: int, normal: Vector) -> float:
        return float(np.asarray(geometries[index].position) @ normal)

    def sort_key(group: list[int]) -> tuple[int, float]:
        axis = int(np.argmax(np.abs(geometries[group[0]].normal)))
        return axis, float(np.mean([geometries[index].centre[axis] for index in group]))

    for group in groups:
        normal = geometries[group[0]].normal
        group.sort(key=lambda index: along_normal(index, normal))
    return sorted(groups, key=sort_key)
