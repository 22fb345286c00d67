"""Rendering of slices of the anatomy.

The planes of a study agree because all are cut from the same anatomy. A slice has a thickness, so a few thin
sub-slices are averaged (partial volume). Each segment is painted only inside the pixels that show it, which
keeps rendering fast.

Tissues are painted from the background forwards. Each painting function computes approximate signed distances
(mm, negative inside) in spine coordinates and covers the patch with a tissue, with an edge as wide as a
pixel. Severity enters as shape: a narrow canal has a small sac, a narrow foramen has no fat around its root,
and a narrow recess is filled with disc.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.bones import (
    paint_bodies,
    paint_disc,
    paint_pillar,
    paint_sacral_bone,
    paint_spinous,
    plan_distance,
)
from lumbar_tf.synthetic.canal import (
    paint_canal_fat,
    paint_foramen,
    paint_recesses,
    paint_sac,
    sac_walls,
)
from lumbar_tf.synthetic.coordinates import Coordinates, spine_coordinates
from lumbar_tf.synthetic.patch import (
    CONTRAST,
    WINDOW_STRIDE,
    Field,
    Patch,
    SyntheticContrast,
    Tissue,
    bounding_window,
)


def paint_segment(patch: Patch, anatomy: Anatomy, segment: Segment) -> None:
    """Paints all structures of a motion segment, in order from the back to the front."""
    if segment.above.is_sacral or segment.below.is_sacral:
        paint_sacral_bone(patch, segment)
    if not segment.above.is_sacral:
        if part := patch.within((-15, 15), (4, 54)):
            paint_spinous(part, segment)
        for sign, recess, foramen in zip((1, -1), segment.recesses, segment.foramina):
            beside = (7.0, 27.0) if sign > 0 else (-27.0, -7.0)
            if part := patch.within(beside, (-10, 26)):
                paint_pillar(part, segment, sign=sign, growth=1.2 * (recess + foramen))
    if part := patch.within((-17, 17), (-4, 24)):
        paint_canal_fat(part, segment, sac_walls(part, segment))
    if not segment.above.is_sacral:
        for sign, severity in zip((1, -1), segment.foramina):
            beside = (8.0, 27.0) if sign > 0 else (-27.0, -8.0)
            if part := patch.within(beside, (-6, 10)):
                paint_foramen(part, segment, sign=sign, severity=severity)
    if part := patch.within((-31, 31), (-42, 10)):
        plan = plan_distance(part, segment)
        paint_bodies(part, anatomy, segment, plan)
        paint_disc(part, segment, plan)
    if part := patch.within((-17, 17), (-4, 24)):
        sac = sac_walls(part, segment)
        corner = paint_recesses(part, segment, sac)
        paint_sac(part, anatomy, segment, sac, corner)


def paint_background(anatomy: Anatomy, places: Coordinates, *, contrast: Mapping[Tissue, float]) -> Field:
    """Paints abdomen, vessels, muscles, fat and skin, which are smooth enough to need no sub-slices."""
    u, v, s = (field.mean(axis=0) for field in (places.u, places.v, places.s))
    x, y, z = places.cartesian
    phases = [float(phase) for phase in anatomy.phases]
    patch = Patch(u=u, v=v, d=s, image=np.empty_like(u), softness=2.0, contrast=contrast)
    # Sines of sines, which have no repeating pattern within the size of an abdomen.
    bent = 1.6 * np.sin(0.043 * x + 0.061 * z + phases[0]) + 1.3 * np.sin(0.057 * y - 0.035 * z + phases[1])
    coarse = np.sin(0.05 * x + 0.04 * y + 1.9 * bent + phases[2])
    fine = np.sin(0.21 * y + 0.17 * x + 2.3 * bent) * np.sin(0.19 * z - 0.13 * y + 1.7 * coarse + phases[3])
    fat, bowel = contrast[Tissue.FAT], contrast[Tissue.BOWEL]
    share = np.clip(0.6 + 0.18 * coarse + 0.2 * fine, 0, 1)
    patch.image[:] = 0.75 * fat + (bowel - 0.75 * fat) * share
    # Fat next to the spine fades into the abdomen.
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


def _back_surface(anatomy: Anatomy) -> NDArray[np.float64]:
    """Returns the cubic polynomial in z (spine space) of the back's fascia, for `np.polyval`."""
    curve = anatomy.curve
    low, high = anatomy.segments[0].s_range[0], anatomy.segments[8].s_mm
    kept = (curve.s > low) & (curve.s < high)
    # Spinous processes extend 50 mm behind the bodies; the back of the sacrum is closer to its canal.
    reach = np.interp(curve.s[kept], [low, high - 50, high], [46, 52, 34])
    return np.polyfit(curve.z[kept], curve.y[kept] + reach * np.cos(curve.angle[kept]), 3)


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
    behind = np.maximum(
        9 - patch.v - 0.12 * (patch.abs_u - 20), patch.abs_u - 74 + 0.02 * (patch.v - 32) ** 2
    )
    patch.cover_with(muscle * (1 + 0.12 * fine) + fatty * (fat - muscle), behind)
    septum = np.abs(patch.abs_u - 22 - 0.15 * (patch.v - 20)) - 0.8
    patch.cover(Tissue.FAT, np.maximum(septum, 18 - patch.v), 0.4)
    quadratus = np.sqrt(((patch.abs_u - 50) / 1.6) ** 2 + (patch.v - 0) ** 2) - 10
    patch.cover_with(muscle * (1 + 0.1 * fine), quadratus)


@dataclass(frozen=True)
class Acquisition:
    """Acquisition parameters of a series.

    Attributes:
        weighting: T1 or T2.
        thickness_mm: slice thickness.
        noise_sd: standard deviation of the complex noise, in units of CSF (T2) or fat (T1) signal.
        shading: 0 for a uniform coil, 1 for a surface coil whose signal halves within about 90 mm of the
            back.
        ghost: strength of a shifted copy (motion along the phase direction).
        ghost_shift: shift of the copy, as a fraction of the rows.
        banding: strength of low-frequency stripes.
        saturation: 0 for none to 1 for a saturation band that darkens the abdomen.
        num_sub_slices: number of planes averaged across the thickness.
    """

    weighting: SyntheticContrast
    thickness_mm: float = 4.0
    noise_sd: float = 0.03
    shading: float = 0.5
    ghost: float = 0.0
    ghost_shift: float = 0.3
    banding: float = 0.0
    saturation: float = 0.0
    num_sub_slices: int = 2


def render_slice(
    anatomy: Anatomy,
    geometry: SliceGeometry,
    acquisition: Acquisition,
    *,
    rng: np.random.Generator | None,
) -> NDArray[np.float32]:
    """Renders one slice.

    Args:
        anatomy: anatomy of the patient.
        geometry: geometry of the slice.
        acquisition: contrast, thickness, noise and artefacts.
        rng: random generator of the noise; None for no noise.

    Returns:
        float32 [rows, columns], about 0 (air) to 1 (CSF on T2, fat on T1) before coil shading.
    """
    offsets = _sub_slice_offsets(acquisition)
    places = spine_coordinates(anatomy, geometry, offsets)
    contrast = CONTRAST[acquisition.weighting]
    image = paint_background(anatomy, places, contrast=contrast)
    softness = 1.2 * max(geometry.row_spacing_mm, geometry.column_spacing_mm, 0.85)
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
        # Each pixel of each sub-slice belongs to exactly one segment, so the changes are summed.
        change = (patch.image - base[None, rows, columns]) * own
        image[rows, columns] += change.sum(axis=0) * np.float32(1 / len(offsets))
    image *= _coil(anatomy, places, acquisition)
    return _add_artefacts(image, acquisition, rng)


def _sub_slice_offsets(acquisition: Acquisition) -> NDArray[np.float64]:
    """Returns the distances of the sub-slices from the slice's centre, mm."""
    count = acquisition.num_sub_slices
    return ((np.arange(count) + 0.5) / count - 0.5) * acquisition.thickness_mm


def _window(places: Coordinates, segment: Segment) -> tuple[slice, slice] | None:
    """Returns the rows and columns that show a segment, or None."""
    top, bottom = segment.s_range
    middle = len(places.s) // 2
    u, v, s = (field[middle, ::WINDOW_STRIDE, ::WINDOW_STRIDE] for field in (places.u, places.v, places.s))
    half_width = 58 if segment.below.is_sacral else 32
    near = (s > top - 3) & (s < bottom + 3)
    near &= (np.abs(u) < half_width) & (v > -42) & (v < 53)
    return bounding_window(near)


def _coil(anatomy: Anatomy, places: Coordinates, acquisition: Acquisition) -> Field:
    """Returns the sensitivity of the coil: strongest near the back, weak in the abdomen."""
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
