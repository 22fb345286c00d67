"""What lies around the spine: belly, vessels, muscles, fat and skin."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.synthetic.anatomy import Anatomy
from lumbar_tf.synthetic.coordinates import Coordinates
from lumbar_tf.synthetic.patch import Field, Patch, Tissue


def paint_background(anatomy: Anatomy, places: Coordinates, *, contrast: Mapping[Tissue, float]) -> Field:
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
    share = np.clip(0.6 + 0.18 * coarse + 0.2 * fine, 0, 1)
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


def _back_surface(anatomy: Anatomy) -> NDArray[np.float64]:
    """Returns the cubic in z (spine space) that the back's fascia follows, as `np.polyval` takes it."""
    curve = anatomy.curve
    low, high = anatomy.segments[0].s_range[0], anatomy.segments[8].s_mm
    kept = (curve.s > low) & (curve.s < high)
    # Spinous processes reach 50 mm behind the bodies; the sacrum's back is nearer to its canal.
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
