"""Pictures of slices along the patient's axes: resampling, display window, PNG and JPEG encoding."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar_tf.dicom.geometry import (
    SliceGeometry,
    Vector,
    canonical_axes,
    patient_to_pixel,
    pixel_to_patient,
)
from lumbar_tf.dicom.study import Slice

Floats = NDArray[np.float32]

#: Pixel spacing of a resampled slice, mm: slightly finer than lumbar slices are acquired.
PITCH_MM = 0.5
#: Distance assigned to a point whose projection lies outside a slice's image, mm.
_OUTSIDE_MM = 50.0
#: Pixel spacing of a PNG, mm: fine enough to distinguish a disc from its neighbour, while a page with a dozen
#: studies of two sagittal planes and one axial stays at about 7 MB.
_PNG_PITCH_MM = 0.8
#: Grey levels of a PNG: as many as a reader can distinguish; the files are a third smaller than with 256.
_NUM_GREYS = 64
#: Percentiles of the values that are first displayed as black and as white.
DISPLAY_PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True, eq=False)
class ResampledSlice:
    """A rectangle of one slice, resampled in radiological orientation.

    Attributes:
        image: float32 [height, width], NaN outside the stored image.
        centre: patient position of the rectangle's centre, LPS mm [3].
        right: direction of the picture's rows, LPS unit vector [3].
        down: direction of the picture's columns, LPS unit vector [3].
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
        """Returns a patient point as mm right of and mm below the centre, and its signed mm off the slice."""
        offset = np.asarray(point, float) - self.centre
        return float(offset @ self.right), float(offset @ self.down), float(offset @ self.normal)


def choose_slice(slices: Iterable[Slice], points: Floats, *, max_distance_mm: float) -> Slice | None:
    """Returns the slice with the smallest mean distance from a set of points.

    Args:
        slices: slices of one plane, of any series, in any order.
        points: float [n, 3], LPS mm; rows with NaN are ignored.
        max_distance_mm: at least one point must lie within this distance of the slice, and inside its image.

    Returns:
        The slice; None if none is near enough.
    """
    known = points[np.isfinite(points).all(axis=-1)]
    best, best_cost = None, np.inf
    for candidate in slices:
        distances = [_distance_mm(candidate.geometry, point) for point in known]
        if distances and min(distances) <= max_distance_mm and np.mean(distances) < best_cost:
            best, best_cost = candidate, float(np.mean(distances))
    return best


def _distance_mm(geometry: SliceGeometry, point: Vector) -> float:
    column, row, distance = patient_to_pixel(geometry, point.tolist())
    inside = -0.5 <= column <= geometry.columns - 0.5 and -0.5 <= row <= geometry.rows - 0.5
    return min(abs(distance), _OUTSIDE_MM) if inside else _OUTSIDE_MM


def resample_slice(
    source: Slice, around: Vector, *, size_mm: tuple[float, float], is_sagittal: bool
) -> ResampledSlice:
    """Resamples a rectangle of a slice along the patient's axes, with bilinear interpolation.

    Args:
        source: the slice.
        around: LPS mm [3]; its orthogonal projection on the slice is the rectangle's centre.
        size_mm: width and height.
        is_sagittal: orientation of the slice, which determines the axes; see `geometry.canonical_axes`.
    """
    geometry = source.geometry
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
    return ResampledSlice(sample_bilinear(source.pixels, column, row), centre, right, down, normal, size_mm)


def sample_bilinear(pixels: Floats, column: Vector, row: Vector) -> Floats:
    """Interpolates an image at fractional pixel coordinates.

    Args:
        pixels: float32 [rows, columns].
        column: array of any shape; pixel centres are at whole numbers.
        row: array of the same shape.

    Returns:
        float32 of the same shape; NaN more than half a pixel outside the outer pixel centres.

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


def turn_upright(source: Slice, *, is_sagittal: bool) -> Slice:
    """Rotates a slice by quarter turns and flips it, towards the axes of `geometry.canonical_axes`.

    Pixels are not interpolated: an oblique slice keeps its remaining tilt of less than 45 degrees.

    Args:
        source: the slice.
        is_sagittal: orientation of the slice, which determines the axes.

    Returns:
        The same pixels at the same patient positions. Sagittal: anterior at the left, head at the top.
        Axial: the patient's right at the left, anterior at the top.
    """
    old, pixels = source.geometry, source.pixels
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
    return Slice(old, pixels, source.series_id, source.instance_number)


def _triple(vector: Vector) -> tuple[float, float, float]:
    x, y, z = (float(value) + 0.0 for value in vector)
    return x, y, z


def display_window(image: Floats) -> tuple[float, float]:
    """Returns the values displayed as black and as white: 1st and 99.5th percentile of the finite values.

    (0, 1) if there is no finite value.
    """
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, DISPLAY_PERCENTILES)
    return float(low), float(high)


def encode_png(image: Floats, size_mm: tuple[float, float], *, pitch_mm: float = _PNG_PITCH_MM) -> bytes:
    """Encodes an image as a PNG with 64 grey levels, in its `display_window`; NaN becomes black.

    Args:
        image: float32 [height, width].
        size_mm: width and height.
        pitch_mm: pixel spacing of the PNG.
    """
    low, high = display_window(image)
    grey = Image.fromarray(_to_uint8(np.nan_to_num(image, nan=low), low, high))
    width, height = (round(size / pitch_mm) for size in size_mm)
    small = np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float32)
    levels = np.round(np.round(small / 255 * (_NUM_GREYS - 1)) * 255 / (_NUM_GREYS - 1))
    buffer = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def encode_jpeg(
    pixels: NDArray[np.generic], bounds: tuple[float, float], *, max_edge_px: int, quality: int
) -> bytes:
    """Encodes an image as a grey JPEG, reduced if its longer edge exceeds `max_edge_px`.

    Args:
        pixels: [rows, columns], any real dtype.
        bounds: values that become 0 and 255.
        max_edge_px: upper limit of the longer edge.
        quality: JPEG quality, 1 to 95.
    """
    image = Image.fromarray(_to_uint8(pixels.astype(np.float32), *bounds))
    longest = max(image.size)
    if longest > max_edge_px:
        width, height = (max(1, round(edge * max_edge_px / longest)) for edge in image.size)
        # Area averaging keeps the outer edges of the reduced picture where they were.
        image = image.resize((width, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _to_uint8(image: Floats, low: float, high: float) -> NDArray[np.uint8]:
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return np.round(scaled * 255).astype(np.uint8)
