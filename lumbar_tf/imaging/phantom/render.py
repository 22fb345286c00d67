"""Renders the anatomy through any slice plane.

Planes of one study agree because all are cut from the same scene. A slice has a thickness, so a
few thin sub-slices are averaged (partial volume). Speed comes from two things: the curved
coordinates are smooth, so they are solved on a coarse grid and interpolated; and each segment is painted only inside the pixels that show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.imaging.geometry import SliceGeometry
from lumbar_tf.imaging.phantom.anatomy import Anatomy, Segment
from lumbar_tf.imaging.phantom.scene import CONTRAST, Field, Patch, Tissue, Weighting, paint_segment

_NODE_PITCH_MM = 8.0  # bilinear error of the lumbar curve (radius > 60 mm): 8^2 / (8 * 60) = 0.13 mm
_NEWTON_STEPS = 3


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
    num_sub_slices: int = 2


@dataclass(frozen=True)
class _Coordinates:
    """Spine coordinates of every pixel, float32.

    Attributes:
        u: sideways from the curved axis, mm, [sub-slice, row, column].
        v: backwards from it, mm, [sub-slice, row, column].
        s: along it, mm, [sub-slice, row, column].
        cartesian: x, y, z in spine space at the middle of the slice, mm, [row, column] each.
    """

    u: Field
    v: Field
    s: Field
    cartesian: tuple[Field, Field, Field]


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
    image = _paint_background(anatomy, places, contrast=contrast)
    softness = 1.2 * max(geometry.row_spacing_mm, geometry.column_spacing_mm, 0.6)
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
        # Each pixel of each sub-slice belongs to exactly one segment, so the changes add up.
        change = (patch.image - base[None, rows, columns]) * own
        image[rows, columns] += change.sum(axis=0) * np.float32(1 / len(offsets))
    image *= _coil(anatomy, places, acquisition)
    return _add_artefacts(image, acquisition, rng)


def _sub_slice_offsets(acquisition: Acquisition) -> NDArray[np.float64]:
    """Returns the sub-slices' distances from the slice's middle, mm."""
    count = acquisition.num_sub_slices
    return ((np.arange(count) + 0.5) / count - 0.5) * acquisition.thickness_mm


@dataclass(frozen=True)
class _Nodes:
    """A coarse grid along one image axis and how to interpolate from it.

    Attributes:
        places: node positions in pixels, float64 [nodes].
        low: the node before each pixel, int64 [size].
        weight: the share of the node after it, float32 [size].
    """

    places: NDArray[np.float64]
    low: NDArray[np.int64]
    weight: Field


def _nodes(size: int, spacing_mm: float) -> _Nodes:
    count = max(2, int(np.ceil(size * spacing_mm / _NODE_PITCH_MM)) + 1)
    places = np.linspace(0, size - 1, count)
    exact = np.arange(size) / places[1]
    low = np.minimum(exact.astype(np.int64), count - 2)
    return _Nodes(places=places, low=low, weight=(exact - low).astype(np.float32))


def _refine(coarse: NDArray[np.float64], rows: _Nodes, columns: _Nodes) -> Field:
    """Interpolates [sub-slice, row node, column node] bilinearly to every pixel.

    Two gathers and not two matrix products: those are as fast alone, but BLAS threads of several
    worker processes get into each other's way.
    """
    field = coarse.astype(np.float32)
    upper, lower = field[:, rows.low], field[:, rows.low + 1]
    field = upper + rows.weight[:, None] * (lower - upper)
    step = (field[:, :, 1:] - field[:, :, :-1])[:, :, columns.low]
    step *= columns.weight
    step += field[:, :, columns.low]
    return step


def _locate(anatomy: Anatomy, geometry: SliceGeometry, offsets: NDArray[np.float64]) -> _Coordinates:
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
    u = points[..., 0] - np.interp(s, anatomy.curve.s, anatomy.curve.x)
    across = np.arange(geometry.columns, dtype=np.float32)
    along = np.arange(geometry.rows, dtype=np.float32)[:, None]
    x, y, z = (
        np.float32(start[axis]) + np.float32(down[axis]) * along + np.float32(right[axis]) * across
        for axis in range(3)
    )
    u, v, s = (_refine(field, rows, columns) for field in (u, v, s))
    return _Coordinates(u=u, v=v, s=s, cartesian=(x, y, z))


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
    half_width = 58 if segment.below.is_sacral else 32
    near &= (np.abs(places.u[middle]) < half_width) & (places.v[middle] > -42) & (places.v[middle] < 53)
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


def _paint_background(anatomy: Anatomy, places: _Coordinates, contrast: Mapping[Tissue, float]) -> Field:
    """Paints belly, vessels, muscles, fat and skin; smooth enough to need no sub-slices."""
    u, v, s = (field.mean(axis=0) for field in (places.u, places.v, places.s))
    x, y, z = places.cartesian
    phases = [float(phase) for phase in anatomy.phases]
    patch = Patch(u=u, v=v, d=s, image=np.empty_like(u), softness=2.0, contrast=contrast)
    # Sines bent by other sines: no repeating pattern within the size of a belly.
    bent = 1.6 * np.sin(0.043 * x + 0.061 * z + phases[0]) + 1.3 * np.sin(0.057 * y - 0.035 * z + phases[1])
    coarse = np.sin(0.05 * x + 0.04 * y + 1.9 * bent + phases[2])
    fine = np.sin(0.21 * y + 0.17 * x + 2.3 * bent) * np.sin(0.19 * z - 0.13 * y + 1.7 * coarse + phases[3])
    fat, bowel = contrast[Tissue.FAT], contrast[Tissue.BOWEL]
    share = np.clip(0.6 + 0.3 * coarse + 0.25 * fine, 0, 1)
    patch.image[:] = 0.75 * fat + (bowel - 0.75 * fat) * share
    # Fat close to the spine fades into the belly.
    near_spine = np.clip((72 + v - 0.004 * u * u + 6 * coarse) / 22, 0, 1)
    patch.image += near_spine * (fat * (0.80 + 0.06 * fine) - patch.image)
    _paint_vessels(patch, anatomy)
    _paint_muscles(patch, anatomy, fine)
    fascia = y - np.polyval(_back_surface(anatomy).astype(np.float32), z) + np.float32(0.0015) * x * x
    patch.cover(Tissue.LIGAMENT, -fascia - 1.0)
    patch.cover_with(fat * (0.97 + 0.04 * fine), -fascia)
    skin = fascia - anatomy.fat_mm
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
    streaks = np.sin(0.7 * patch.u + 0.55 * patch.v + 0.08 * patch.d + 1.5 * fine)
    fatty = np.clip(
        (0.2 + 0.8 * level) * anatomy.muscle_fat * (0.7 + 0.6 * streaks * fine + 0.3 * fine), 0, 0.9
    )
    behind = np.maximum(9 - patch.v - 0.12 * (patch.abs_u - 20), patch.abs_u - 72)
    patch.cover_with(muscle * (1 + 0.12 * fine) + fatty * (fat - muscle), behind)
    septum = np.abs(patch.abs_u - 22 - 0.15 * (patch.v - 20)) - 0.8
    patch.cover(Tissue.FAT, np.maximum(septum, 18 - patch.v), 0.4)
    quadratus = np.sqrt(((patch.abs_u - 50) / 1.6) ** 2 + (patch.v - 0) ** 2) - 10
    patch.cover_with(muscle * (1 + 0.1 * fine), quadratus)


def _coil(anatomy: Anatomy, places: _Coordinates, acquisition: Acquisition) -> Field:
    """Returns the coil's sensitivity: strongest near the back, weak in the belly."""
    y = places.cartesian[1]
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
