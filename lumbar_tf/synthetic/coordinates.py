"""Spine coordinates of the pixels of a slice.

They are smooth, so they are computed on a coarse grid and interpolated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.synthetic.anatomy import Anatomy
from lumbar_tf.synthetic.patch import Field

_NODE_PITCH_MM = 8.0  # bilinear error of the lumbar curve (radius > 60 mm): 8^2 / (8 * 60) = 0.13 mm
_NEWTON_STEPS = 3


@dataclass(frozen=True)
class Coordinates:
    """Spine coordinates of every pixel, float32.

    Attributes:
        u: sideways distance from the curved axis, mm, [sub-slice, row, column].
        v: distance behind the axis, mm, [sub-slice, row, column].
        s: arc length along the axis, mm, [sub-slice, row, column].
        cartesian: x, y, z in spine space at the centre of the slice, mm, [row, column] each.
    """

    u: Field
    v: Field
    s: Field
    cartesian: tuple[Field, Field, Field]


def spine_coordinates(anatomy: Anatomy, geometry: SliceGeometry, offsets: NDArray[np.float64]) -> Coordinates:
    """Computes the spine coordinates of the pixels of a slice.

    Args:
        anatomy: anatomy of the patient.
        geometry: geometry of the slice.
        offsets: distances of the sub-slices from the slice's centre, mm, float64 [sub-slice].
    """
    rows = _nodes(geometry.rows, geometry.row_spacing_mm)
    columns = _nodes(geometry.columns, geometry.column_spacing_mm)
    right = anatomy.rotation @ np.asarray(geometry.row_direction) * geometry.column_spacing_mm
    down = anatomy.rotation @ np.asarray(geometry.column_direction) * geometry.row_spacing_mm
    normal = anatomy.rotation @ geometry.normal
    start = anatomy.rotation @ (np.asarray(geometry.position) - anatomy.origin)
    points = (
        start
        + offsets[:, None, None, None] * normal
        + rows.places[None, :, None, None] * down
        + columns.places[None, None, :, None] * right
    )
    s, v = _straighten(anatomy, points[..., 1], points[..., 2])
    v = v + anatomy.slip(s)
    u = points[..., 0] - np.interp(s, anatomy.curve.s, anatomy.curve.x)
    across = np.arange(geometry.columns, dtype=np.float32)
    along = np.arange(geometry.rows, dtype=np.float32)[:, None]
    x, y, z = (
        np.float32(start[axis]) + np.float32(down[axis]) * along + np.float32(right[axis]) * across
        for axis in range(3)
    )
    return Coordinates(
        u=refine(u, rows, columns),
        v=refine(v, rows, columns),
        s=refine(s, rows, columns),
        cartesian=(x, y, z),
    )


@dataclass(frozen=True)
class Nodes:
    """A coarse grid along one image axis, with interpolation weights.

    Attributes:
        places: node positions in pixels, float64 [nodes].
        low: index of the node before each pixel, int64 [size].
        weight: weight of the node after it, float32 [size].
    """

    places: NDArray[np.float64]
    low: NDArray[np.int64]
    weight: Field


def _nodes(size: int, spacing_mm: float) -> Nodes:
    return coarse_nodes(size, max(2, int(np.ceil(size * spacing_mm / _NODE_PITCH_MM)) + 1))


def coarse_nodes(size: int, count: int) -> Nodes:
    """Returns `count` evenly spaced nodes from the first to the last pixel."""
    places = np.linspace(0, size - 1, count)
    exact = np.arange(size) / places[1]
    low = np.minimum(exact.astype(np.int64), count - 2)
    return Nodes(places=places, low=low, weight=(exact - low).astype(np.float32))


def refine(coarse: NDArray[np.floating[Any]], rows: Nodes, columns: Nodes) -> Field:
    """Interpolates float [sub-slice, row node, column node] bilinearly to every pixel, float32.

    It uses two gathers rather than two matrix products, which are as fast in a single process, but the BLAS
    threads of several worker processes compete.
    """
    field = coarse.astype(np.float32)
    upper, lower = field[:, rows.low], field[:, rows.low + 1]
    field = upper + rows.weight[:, None] * (lower - upper)
    step = (field[:, :, 1:] - field[:, :, :-1])[:, :, columns.low]
    step *= columns.weight
    step += field[:, :, columns.low]
    return step


def _straighten(
    anatomy: Anatomy, y: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns s and v of points in spine space: the projection onto the curve and the distance from it."""
    curve = anatomy.curve
    s = np.interp(-z, -curve.z, curve.s)
    bend = np.gradient(curve.angle, curve.s)
    v = np.zeros_like(s)
    for _ in range(_NEWTON_STEPS):
        angle = np.interp(s, curve.s, curve.angle)
        gap_y, gap_z = y - np.interp(s, curve.s, curve.y), z - np.interp(s, curve.s, curve.z)
        along = gap_y * np.sin(angle) - gap_z * np.cos(angle)
        v = gap_y * np.cos(angle) + gap_z * np.sin(angle)
        # Far behind the curve the projections of neighbouring points cross; the lower bound keeps them in
        # order.
        s = s + along / np.maximum(1 - np.interp(s, curve.s, bend) * np.clip(v, -60, 45), 0.4)
        s = np.clip(s, curve.s[0], curve.s[-1])
    return s, v
