"""Painting of everything around the spine: abdomen, vessels, muscles, fat and skin."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.synthetic.anatomy import Anatomy, Surroundings
from lumbar_tf.synthetic.coordinates import Coordinates, coarse_nodes, refine
from lumbar_tf.synthetic.patch import Field, Patch, Tissue

#: Distance of the nodes on which the organs' outlines are computed, pixels.
_NODE_PX = 4


def paint_background(anatomy: Anatomy, places: Coordinates, *, contrast: Mapping[Tissue, float]) -> Field:
    """Paints abdomen, vessels, muscles, fat and skin, which are smooth enough to need no sub-slices."""
    if anatomy.surroundings is not None:
        return _paint_varied(anatomy, anatomy.surroundings, places, contrast)
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
    _paint_back(patch, anatomy, places, fine)
    return patch.image


def _paint_back(patch: Patch, anatomy: Anatomy, places: Coordinates, fine: Field) -> None:
    """Paints fascia, fat and skin of the back, and the air behind it."""
    fat = patch.contrast[Tissue.FAT]
    x, y, z = places.cartesian
    fascia = y - np.polyval(_back_surface(anatomy).astype(np.float32), z) + np.float32(0.0015) * x * x
    patch.cover(Tissue.LIGAMENT, -fascia - 1.0)
    patch.cover_with(fat * (0.97 + 0.04 * fine), -fascia)
    skin = fascia - anatomy.fat_mm
    patch.cover_with(0.4 * fat, -skin)
    patch.cover_with(0.0, 2.0 - skin)


def _paint_varied(
    anatomy: Anatomy, surroundings: Surroundings, places: Coordinates, contrast: Mapping[Tissue, float]
) -> Field:
    """Paints an abdomen of organs and bowel loops with fat, fluid and gas in fat."""
    u, v, s = (field.mean(axis=0) for field in (places.u, places.v, places.s))
    patch = Patch(u=u, v=v, d=s, image=np.empty_like(u), softness=2.0, contrast=contrast)
    large, loops, content, fine = _wave_fields(places.cartesian, surroundings.waves)
    fat, bowel, muscle = contrast[Tissue.FAT], contrast[Tissue.BOWEL], contrast[Tissue.MUSCLE]
    patch.image[:] = fat * (0.9 + 0.06 * fine)
    in_front = v + 55 + 8 * loops
    organ = muscle + surroundings.organ_signal * (bowel - muscle)
    patch.cover_with(max(organ, 0.0) * (1 + 0.06 * fine), np.maximum((0.5 - large) * 25, in_front))
    # Distances of the level sets, for waves of about 45 mm.
    loop = np.maximum(np.maximum((0.15 - loops) * 9, in_front), (large - 0.6) * 25)
    patch.cover(Tissue.MUSCLE, loop - 1.5)
    patch.cover_with(bowel * (1 + 0.1 * fine), loop)
    fatty, wet, gas = np.cumsum(surroundings.mixture)
    rank = 0.5 + 0.5 * np.tanh(1.2 * content)  # about uniform
    patch.cover_with(0.9 * fat, np.maximum(loop, (rank - fatty) * 25))
    patch.cover(Tissue.CSF, np.maximum(loop, np.abs(rank - (fatty + wet) / 2) * 25 - wet * 6), 0.8)
    patch.cover(Tissue.BLOOD, np.maximum(loop, (wet + 0.5 * (gas - wet) - rank) * 25), 0.9)
    _paint_wall(patch, surroundings, places)
    for lateral, front, radius in (surroundings.aorta, surroundings.cava):
        _paint_vessel(patch, anatomy, lateral, front, radius)
    _paint_muscles(patch, anatomy, fine)
    _paint_back(patch, anatomy, places, fine)
    return patch.image


def _wave_fields(cartesian: tuple[Field, Field, Field], waves: NDArray[np.float64]) -> list[Field]:
    """Returns smooth random fields of space with about unit variance, float32 [rows, columns] each."""
    rows, columns = (coarse_nodes(size, max(2, size // _NODE_PX)) for size in cartesian[0].shape)
    points = [
        axis[np.ix_(np.rint(rows.places).astype(int), np.rint(columns.places).astype(int))]
        for axis in cartesian
    ]
    fields = []
    for field in waves.astype(np.float32):
        phases = (w[0] * points[0] + w[1] * points[1] + w[2] * points[2] + w[3] for w in field)
        total = np.sum([np.sin(phase) for phase in phases], axis=0) * np.sqrt(2 / len(field))
        fields.append(refine(total[None], rows, columns)[0])
    return fields


def _paint_wall(patch: Patch, surroundings: Surroundings, places: Coordinates) -> None:
    """Paints muscle, fat and skin of the abdominal wall, and the air in front of it."""
    x, y, _ = places.cartesian
    wall = -y - surroundings.front_mm + np.float32(0.004) * x * x
    patch.cover(Tissue.MUSCLE, -wall)
    patch.cover(Tissue.FAT, 9 - wall)
    thickness_mm = 12 + 0.25 * surroundings.front_mm
    patch.cover_with(0.0, thickness_mm - wall)


def _paint_vessel(patch: Patch, anatomy: Anatomy, lateral: float, front: float, radius: float) -> None:
    """Paints a vessel down to the fork at L4/L5, below it one of its branches."""
    depth = float(np.mean([segment.above.depth for segment in anatomy.segments[4:8]]))
    spread = np.clip(patch.d - np.float32(anatomy.segments[6].s_mm) + 25, 0, 70)
    sign = 1 if lateral > 0 else -1
    size = radius * (1 - 0.4 * np.clip(spread / 25, 0, 1))
    place = lateral + sign * 0.35 * spread
    distance = np.sqrt((patch.u - place) ** 2 + (patch.v + depth + front - 0.12 * spread) ** 2) - size
    patch.cover(Tissue.MUSCLE, distance - 1.2)
    patch.cover(Tissue.BLOOD, distance)


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
