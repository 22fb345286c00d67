"""Renders the anatomy through any slice plane.

Planes of one study agree because all are cut from the same scene. A slice has a thickness, so a
few thin sub-slices are averaged (partial volume). Speed comes from two things: the curved
coordinates are smooth, so they are solved on a coarse grid and interpolated with two matrix
products; and each segment is painted only inside the pixels that show it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.imaging.geometry import SliceGeometry
from lumbar_tf.imaging.phantom.anatomy import Anatomy, Segment
from lumbar_tf.imaging.phantom.scene import CONTRAST, Field, Patch, Tissue, Weighting, paint_segment

_NODE_PITCH_MM = 6.0  # bilinear error of the lumbar curve (radius > 60 mm): 6^2 / (8 * 60) < 0.1 mm
_NEWTON_STEPS = 4


@dataclass(frozen=True)
class Acquisition:
    """How a series is acquired.

    Attributes:
        weighting: T1 or T2.
        thickness_mm: slice thickness.
        noise_sd: standard deviation of the complex noise, in units of CSF (T2) or fat (T1) signal.
        shading: 0 an even coil, 1 a surface coil whose signal halves in about 90 mm from the back.
        ghost: strength of a shifted copy (motion along the phase direction).
        ghost_shift: its shift, as a share of the rows.
        banding: strength of slow stripes.
        saturation: 0 none, 1 a saturation band that darkens the belly.
        num_sub_slices: how many planes are averaged across the thickness.
    """

    weighting: Weighting
    thickness_mm: float = 4.0
    noise_sd: float = 0.03
    shading: float = 0.5
    ghost: float = 0.0
    ghost_shift: float = 0.3
    banding: float = 0.0
    saturation: float = 0.0
    num_sub_slices: int = 3


@dataclass(frozen=True)
class _Coordinates:
    """Spine coordinates of every pixel, float32 [sub-slice, row, column].

    Attributes:
        u: sideways from the curved axis, mm.
        v: backwards from it, mm.
        s: along it, mm.
        x: sideways in spine space, mm.
        y: backwards in spine space, mm.
        z: upwards in spine space, mm.
    """

    u: Field
    v: Field
    s: Field
    x: Field
    y: Field
    z: Field


def render_slice(
    anatomy: Anatomy,
    geometry: SliceGeometry,
    acquisition: Acquisition,
    *,
    rng: np.random.Generator | None,
) -> NDArray[np.float32]:
    """Renders one slice.

    Args:
        anatomy: the patient.
        geometry: the slice's pixels in patient space.
        acquisition: contrast, thickness, noise and artefacts.
        rng: the noise; None renders without any.

    Returns:
        float32 [rows, columns], about 0 (air) to 1 (CSF on T2, fat on T1) before coil shading.
    """
    offsets = _sub_slice_offsets(acquisition)
    places = _locate(anatomy, geometry, offsets)
    contrast = CONTRAST[acquisition.weighting]
    image = _paint_background(anatomy, places, contrast=dict(contrast))
    softness = 0.9 * max(geometry.row_spacing_mm, geometry.column_spacing_mm, 0.6)
    base = image.copy()
    for segment in anatomy.segments:
        window = _window(places, segment)
        if window is None:
            continue
        rows, columns = window
        s = places.s[:, rows, columns]
        patch = Patch(
            u=places.u[:, rows, columns],
            v=places.v[:, rows, columns],
            d=s - np.float32(segment.s_mm),
            image=np.repeat(base[None, rows, columns], len(offsets), axis=0),
            softness=softness,
            contrast=contrast,
        )
        paint_segment(patch, anatomy, segment)
        top, bottom = segment.s_range
        own = (s >= top) & (s < bottom)
        image[rows, columns] += np.mean(own * (patch.image - base[None, rows, columns]), axis=0)
    image *= _coil(anatomy, places, acquisition)
    return _add_artefacts(image, acquisition, rng)


def _sub_slice_offsets(acquisition: Acquisition) -> NDArray[np.float64]:
    """Returns the sub-slices' distances from the slice's middle, mm."""
    count = acquisition.num_sub_slices
    return ((np.arange(count) + 0.5) / count - 0.5) * acquisition.thickness_mm


def _interpolation(size: int, spacing_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Returns node positions in pixels and the matrix [size, nodes] that interpolates between them."""
    num_nodes = max(2, int(np.ceil(size * spacing_mm / _NODE_PITCH_MM)) + 1)
    nodes = np.linspace(0, size - 1, num_nodes)
    place = np.arange(size) / (nodes[1] - nodes[0])
    low = np.minimum(place.astype(int), num_nodes - 2)
    weight = place - low
    matrix = np.zeros((size, num_nodes), np.float32)
    matrix[np.arange(size), low] = 1 - weight
    matrix[np.arange(size), low + 1] = weight
    return nodes, matrix


def _locate(anatomy: Anatomy, geometry: SliceGeometry, offsets: NDArray[np.float64]) -> _Coordinates:
    rows, row_matrix = _interpolation(geometry.rows, geometry.row_spacing_mm)
    columns, column_matrix = _interpolation(geometry.columns, geometry.column_spacing_mm)
    right = anatomy.rotation @ np.asarray(geometry.row_direction) * geometry.column_spacing_mm
    down = anatomy.rotation @ np.asarray(geometry.column_direction) * geometry.row_spacing_mm
    normal = anatomy.rotation @ geometry.normal
    start = anatomy.rotation @ (np.asarray(geometry.position) - anatomy.origin)
    points = (
        start
        + offsets[:, None, None, None] * normal
        + rows[None, :, None, None] * down
        + columns[None, None, :, None] * right
    )
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    s, v = _straighten(anatomy, y, z)
    u = x - np.interp(s, anatomy.curve.s, anatomy.curve.x)
    fields = [
        row_matrix @ field.astype(np.float32) @ column_matrix.T  # [k, rows, columns]
        for field in (u, v, s, x, y, z)
    ]
    return _Coordinates(*fields)


def _straighten(
    anatomy: Anatomy, y: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns s and v of points in spine space: the foot on the curve and the distance from it."""
    curve = anatomy.curve
    s = np.interp(-z, -curve.z, curve.s)
    bend = np.gradient(curve.angle, curve.s)
    v = np.zeros_like(s)
    for _ in range(_NEWTON_STEPS):
        angle = np.interp(s, curve.s, curve.angle)
        gap_y, gap_z = y - np.interp(s, curve.s, curve.y), z - np.interp(s, curve.s, curve.z)
        along = gap_y * np.sin(angle) - gap_z * np.cos(angle)
        v = gap_y * np.cos(angle) + gap_z * np.sin(angle)
        # Far behind the curve the feet of neighbouring points cross; the floor keeps it one to one.
        s = s + along / np.maximum(1 - np.interp(s, curve.s, bend) * np.clip(v, -60, 45), 0.4)
        s = np.clip(s, curve.s[0], curve.s[-1])
    return s, v


def _window(places: _Coordinates, segment: Segment) -> tuple[slice, slice] | None:
    """Returns the rows and columns that show a segment, or None."""
    top, bottom = segment.s_range
    middle = len(places.s) // 2
    near = (places.s[middle] > top - 3) & (places.s[middle] < bottom + 3)
    near &= (np.abs(places.u[middle]) < 58) & (places.v[middle] > -45) & (places.v[middle] < 54)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if rows.size == 0:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _back_surface(anatomy: Anatomy) -> NDArray[np.float64]:
    """Returns the cubic in z (spine space) that the back's fascia follows, as `np.polyval` takes it."""
    curve = anatomy.curve
    low, high = anatomy.segments[0].s_range[0], anatomy.segments[8].s_mm
    kept = (curve.s > low) & (curve.s < high)
    # Spinous processes reach 50 mm behind the bodies; the sacrum's back is nearer to its canal.
    reach = np.interp(curve.s[kept], [low, high - 50, high], [46, 52, 34])
    return np.polyfit(curve.z[kept], curve.y[kept] + reach * np.cos(curve.angle[kept]), 3)


def _paint_background(anatomy: Anatomy, places: _Coordinates, contrast: dict[Tissue, float]) -> Field:
    """Paints belly, vessels, muscles, fat and skin; smooth enough to need no sub-slices."""
    middle = len(places.s) // 2
    u, v, s = places.u[middle], places.v[middle], places.s[middle]
    x, y, z = places.x[middle], places.y[middle], places.z[middle]
    phases = anatomy.phases.astype(np.float32)
    patch = Patch(u=u, v=v, d=s, image=np.empty_like(u), softness=2.0, contrast=contrast)
    coarse = np.sin(0.11 * x + 0.07 * z + phases[0]) + np.sin(0.10 * y - 0.06 * z + phases[1])
    fine = np.sin(0.45 * x + 0.13 * z + phases[2]) * np.sin(0.33 * y + 0.21 * z + phases[3])
    fat, bowel = contrast[Tissue.FAT], contrast[Tissue.BOWEL]
    patch.image[:] = fat * 0.8 + (bowel - fat * 0.8) * np.clip(0.5 + 1.5 * coarse + 0.6 * fine, 0, 1)
    retroperitoneal = np.abs(v + 22) - 30  # fat close to the spine
    patch.cover_with(fat * (0.85 + 0.08 * fine), retroperitoneal)
    _paint_vessels(patch, anatomy)
    _paint_muscles(patch, anatomy, fine)
    fascia = y - np.polyval(_back_surface(anatomy).astype(np.float32), z)
    patch.cover(Tissue.LIGAMENT, -fascia - 1.0)
    patch.cover_with(fat * (0.95 + 0.06 * fine + 0.04 * coarse), -fascia)
    skin = fascia - np.float32(anatomy.fat_mm)
    patch.cover_with(0.4 * fat, -skin)
    patch.cover_with(0.0, 2.0 - skin)
    return patch.image


def _paint_vessels(patch: Patch, anatomy: Anatomy) -> None:
    depth = float(np.mean([segment.above.depth for segment in anatomy.segments[4:8]]))
    fork = np.float32(anatomy.segments[6].s_mm)  # L4/L5
    spread = np.clip(patch.d - fork + 25, 0, 70)
    for sign, radius, lateral in ((1, 8.5, 6.0), (-1, 10.0, 14.0)):
        size = radius - 3.0 * np.clip(spread / 25, 0, 1)
        place = sign * (lateral + 0.35 * spread)
        front = depth + 11.0 - 0.12 * spread
        distance = np.sqrt((patch.u - place) ** 2 + (patch.v + front) ** 2) - size
        patch.cover(Tissue.MUSCLE, distance - 1.2)
        patch.cover(Tissue.BLOOD, distance)


def _paint_muscles(patch: Patch, anatomy: Anatomy, fine: Field) -> None:
    fat, muscle = patch.contrast[Tissue.FAT], patch.contrast[Tissue.MUSCLE]
    level = np.clip((patch.d - np.float32(anatomy.segments[3].s_mm)) / 150, 0, 1.3)
    psoas_radius = 9 + 15 * level
    distance = np.sqrt(((patch.abs_u - 27 - 11 * level) / 0.85) ** 2 + (patch.v + 14) ** 2) - psoas_radius
    patch.cover_with(muscle * (1 + 0.15 * fine), distance)
    streaks = np.sin(0.5 * patch.u + 0.9 * patch.v + 0.12 * patch.d + 2 * fine)
    fatty = np.clip((0.25 + 0.75 * level) * anatomy.muscle_fat * (0.8 + 0.8 * streaks), 0, 0.9)
    behind = np.maximum(9 - patch.v - 0.12 * (patch.abs_u - 20), patch.abs_u - 72)
    patch.cover_with(muscle * (1 + 0.12 * fine) + fatty * (fat - muscle), behind)
    septum = np.abs(patch.abs_u - 22 - 0.15 * (patch.v - 20)) - 0.8
    patch.cover(Tissue.FAT, np.maximum(septum, 18 - patch.v), 0.6)
    quadratus = np.sqrt(((patch.abs_u - 50) / 1.6) ** 2 + (patch.v - 0) ** 2) - 10
    patch.cover_with(muscle * (1 + 0.1 * fine), quadratus)


def _coil(anatomy: Anatomy, places: _Coordinates, acquisition: Acquisition) -> Field:
    """Returns the coil's sensitivity: strongest near the back, weak in the belly."""
    middle = len(places.s) // 2
    y = places.y[middle]
    depth = np.clip(70 - y, 0, None)  # mm from the coil under the back
    gain = 1.35 * np.exp2(-acquisition.shading * depth / 90)
    if acquisition.saturation > 0:
        belly = np.clip((-y - 55) / 15, 0, 1)
        gain = gain * (1 - 0.85 * acquisition.saturation * belly)
    return gain.astype(np.float32)


def _add_artefacts(image: Field, acquisition: Acquisition, rng: np.random.Generator | None) -> Field:
    if acquisition.ghost > 0:
        image = image + acquisition.ghost * np.roll(image, int(acquisition.ghost_shift * len(image)), axis=0)
    if acquisition.banding > 0:
        rows = np.arange(len(image), dtype=np.float32)
        image = image * (1 + acquisition.banding * np.sin(rows * np.float32(0.25)))[:, None]
    if rng is None:
        return image.astype(np.float32)
    # Magnitude of a complex signal with Gaussian noise in both parts: Rician.
    noise = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(acquisition.noise_sd)
    return np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
