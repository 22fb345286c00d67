"""Stacks of slices through one analytic scene, records of them, and a small cohort as files."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, mirror_geometry, pixel_to_patient
from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import parse_example
from lumbar_tf.records.schema import encode_plane


def _rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    first, second = [number for number in range(3) if number != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def _scene(point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the brightness at patient points [..., 3], which differs between all positions and sides."""
    x, y, z = np.moveaxis(point, -1, 0)
    waves = 130 * np.sin(x / 11 + 0.4) + 110 * np.cos(y / 8 + x / 40) + 90 * np.sin(z / 9 - 0.7 + y / 50)
    return np.rint(500 + waves)


def _stack(
    plane: Plane, *, series_id: str = "1", tilt: float = 0.0, size: int = 48, count: int = 7
) -> list[Slice]:
    """Slices 4 mm apart about the patient's origin, in-plane spacing 1.3 by 1.1 mm."""
    turn = _rotation(2, tilt / 2) @ _rotation(0 if plane is Plane.AXIAL_T2 else 1, tilt)
    if plane is Plane.AXIAL_T2:
        row, column, normal = (turn @ np.eye(3)).T
    else:
        row, column, normal = (turn @ np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])).T
    slices = []
    for number in range(count):
        corner = normal * (4.0 * (number - (count - 1) / 2)) - (row * 1.1 + column * 1.3) * (size - 1) / 2
        geometry = SliceGeometry(tuple(corner), tuple(row), tuple(column), 1.3, 1.1, size, size)
        offset = np.arange(size)
        grid = corner + offset[:, None, None] * 1.3 * column + offset[:, None] * 1.1 * row
        slices.append(Slice(geometry, _scene(grid).astype(np.float32), series_id, number + 1))
    return slices


def _store(image_slice: Slice, order: str) -> Slice:
    """Returns the same image of the same patient in another storage order."""
    geometry, pixels = image_slice.geometry, image_slice.pixels
    if order == "columns":
        corner = pixel_to_patient(geometry, (geometry.columns - 1, 0))
        direction = tuple(-value for value in geometry.row_direction)
        geometry = replace(geometry, position=tuple(corner), row_direction=direction)
        pixels = pixels[:, ::-1]
    elif order == "rows":
        corner = pixel_to_patient(geometry, (0, geometry.rows - 1))
        direction = tuple(-value for value in geometry.column_direction)
        geometry = replace(geometry, position=tuple(corner), column_direction=direction)
        pixels = pixels[::-1]
    elif order == "transposed":
        geometry = SliceGeometry(
            geometry.position,
            geometry.column_direction,
            geometry.row_direction,
            geometry.column_spacing_mm,
            geometry.row_spacing_mm,
            geometry.columns,
            geometry.rows,
        )
        pixels = pixels.T
    return replace(image_slice, geometry=geometry, pixels=np.ascontiguousarray(pixels))


def _mirror(image_slice: Slice) -> Slice:
    return replace(image_slice, geometry=mirror_geometry(image_slice.geometry))


def _parse(plane: Plane, slices: list[Slice]) -> dict[str, tf.Tensor]:
    return parse_example(encode_plane("1", plane, slices))


@pytest.fixture(scope="session")
def make_stack() -> Callable[..., list[Slice]]:
    """`make_stack(plane, series_id=..., tilt=degrees, size=pixels, count=slices)`."""
    return _stack


@pytest.fixture(scope="session")
def store() -> Callable[[Slice, str], Slice]:
    """`store(slice, order)` with order plain, columns, rows (turned round) or transposed."""
    return _store


@pytest.fixture(scope="session")
def mirror() -> Callable[[Slice], Slice]:
    """The same pixels in the mirrored patient."""
    return _mirror


@pytest.fixture(scope="session")
def make_record() -> Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]:
    """A parsed record of some slices."""
    return _parse
