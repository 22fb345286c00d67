"""Painting of the thecal sac, lateral recesses and foramina, and of their narrowing."""

from dataclasses import dataclass

import numpy as np

from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.patch import Field, Patch, Tissue, along, ellipse


@dataclass(frozen=True)
class SacWalls:
    """Walls of the thecal sac at every pixel of a patch, float32 arrays.

    Attributes:
        centre: v of the sac's centre, mm.
        half_width: half width along u, mm.
        half_depth: half depth along v, mm.
        at_disc: 1 at the disc's centre, decreasing to 0 within about 8 mm.
    """

    centre: Field
    half_width: Field
    half_depth: Field
    at_disc: Field


def sac_walls(patch: Patch, segment: Segment) -> SacWalls:
    """Returns the walls of the sac: 165 mm2 in an open canal, under 45 mm2 in a closed one."""
    at_disc = np.exp(-((patch.d / 6.0) ** 2))
    above, below, tight = segment.above, segment.below, segment.canal
    front = along(patch, segment, above.sac_front, below.sac_front)
    back = along(patch, segment, above.sac_back, below.sac_back)
    front = front + (0.5 * segment.bulge + 4.2 * tight) * at_disc
    back = back - (0.3 + 3.6 * tight) * at_disc
    half_width = along(patch, segment, above.sac_half_width, below.sac_half_width)
    return SacWalls(
        centre=(front + back) / 2,
        half_width=half_width * (1 - 0.42 * tight * at_disc),
        half_depth=np.maximum((back - front) / 2, 0.6),
        at_disc=at_disc,
    )


def paint_canal_fat(patch: Patch, segment: Segment, sac: SacWalls) -> None:
    """Paints the fat around the sac and the yellow ligament around the fat."""
    tight = segment.canal
    # At the disc the facets and the yellow ligament surround the sac closely; elsewhere fat does.
    margin = 2.6 - (0.6 + 1.4 * tight) * sac.at_disc
    wide = (sac.half_width + margin, sac.half_depth + 0.7 * margin)
    soft = np.sqrt((patch.u / wide[0]) ** 2 + ((patch.v - sac.centre) / wide[1]) ** 2)
    outline = (soft - 1) * 7
    if not segment.above.is_sacral:
        walls = np.maximum(ellipse(patch.u, patch.v - 8, (14.0, 11.0)), np.abs(patch.d) - 11)
        patch.cover(Tissue.FLAVUM, walls)
    patch.cover(Tissue.FAT, outline)
    if segment.above.is_sacral:
        return
    behind = sac.centre + sac.half_depth
    triangle = segment.fat_triangle * (1 - 0.6 * tight)
    fat = np.maximum(patch.abs_u * 1.1 + (patch.v - behind) - triangle, behind - 1 - patch.v)
    patch.cover(Tissue.FAT, np.maximum(fat, np.abs(patch.d - 1) - 9))


def paint_foramen(patch: Patch, segment: Segment, *, sign: int, severity: float) -> None:
    """Paints a foramen: fat around the nerve root, with less fat and height for a higher severity."""
    side = patch.u * sign
    ends = np.abs(side - 17) - 7.5
    slope = 0.6 * (side - 17)
    upper = -(segment.disc_height / 2 + 6.0)
    frame = np.minimum(
        ellipse(patch.v - 2.0, patch.d - upper - 0.5, (6.2, 9.0)),
        ellipse(patch.v - 1.5, patch.d - 3.0, (4.2, 7.5)),
    )
    patch.cover(Tissue.FLAVUM, np.maximum(frame, ends))
    room = 1 - severity
    fat = np.minimum(
        ellipse(patch.v - 1.5, patch.d - upper, (2.2 + 3.8 * room, 2.6 + 6.0 * room)),
        ellipse(patch.v - 1.5, patch.d - 3.0, (0.4 + 2.8 * room, 0.8 + 5.7 * room)),
    )
    patch.cover(Tissue.FAT, np.maximum(fat, ends))
    root = ellipse(patch.v - 1.2, patch.d - upper + 1.0 - slope, (2.3 - 0.5 * severity, 3.0 - 0.9 * severity))
    patch.cover(Tissue.ROOT, np.maximum(root, ends - 2))
    vessel = ellipse(patch.v - 3.4, patch.d - upper + 4.5, (0.9, 0.9))
    patch.cover(Tissue.BLOOD, np.maximum(vessel, ends), room)


def paint_recesses(patch: Patch, segment: Segment, sac: SacWalls) -> Field:
    """Paints the narrowing of the recesses and returns the distance by which it cuts the sac's corners."""
    cut = np.full_like(patch.u, -10.0)
    if segment.above.is_sacral:
        return cut
    walls = np.maximum(ellipse(patch.u, patch.v - 8, (14.5, 11.0)), np.abs(patch.d) - 8)
    for sign, severity in zip((1, -1), segment.recesses):
        side = patch.u * sign
        # A wall at 45 degrees that advances towards the sac from the front and the side.
        outwards = 0.74 * side - 0.67 * (patch.v - 8.0)
        wall = 12.4 - (9.6 * severity) * sac.at_disc
        root = ellipse(side - 8.9 + 1.6 * severity, patch.v - 3.4 - 1.4 * severity, (1.7, 1.5))
        patch.cover(Tissue.ROOT, np.maximum(root, np.abs(patch.d) - 9))
        filler = np.maximum(wall - outwards, walls)
        patch.cover(Tissue.ANNULUS, np.maximum(filler, -patch.v - 1), np.minimum(1.0, 2 * severity))
        cut = np.maximum(cut, outwards - wall + 0.5)
    return cut


def paint_sac(patch: Patch, anatomy: Anatomy, segment: Segment, sac: SacWalls, corner: Field) -> None:
    """Paints dura, CSF, cord and cauda equina; `corner` is the result of `paint_recesses`."""
    across, deep = patch.u / sac.half_width, (patch.v - sac.centre) / sac.half_depth
    s = patch.d + np.float32(segment.s_mm)
    distance = (np.sqrt(across**2 + deep**2) - 1) * np.minimum(sac.half_width, sac.half_depth)
    distance = np.maximum(np.maximum(distance, corner), s - anatomy.sac_end_s)
    patch.cover(Tissue.LIGAMENT, distance - 0.4, 0.8)
    patch.cover(Tissue.CSF, distance + 0.3)
    if segment.s_range[0] < anatomy.conus_s:
        taper = np.sqrt(np.clip((anatomy.conus_s - s) / 25, 0.01, 1))
        cord = np.sqrt((patch.u / 4.8) ** 2 + ((patch.v - sac.centre + 0.2) / 3.7) ** 2) - taper
        patch.cover(Tissue.CORD, np.maximum(3.7 * cord, s - anatomy.conus_s))
    if segment.s_range[1] > anatomy.conus_s - 20:
        inside = np.clip(0.5 - (distance + 0.6) / patch.softness, 0, 1)
        inside *= np.clip((s - anatomy.conus_s + 20) / 20, 0, 1)
        _paint_strands(patch, anatomy, sac, (across, deep), inside)


def _paint_strands(
    patch: Patch, anatomy: Anatomy, sac: SacWalls, place: tuple[Field, Field], inside: Field
) -> None:
    """Paints the cauda equina: strands keep their size, so they fill a small sac."""
    shade = np.zeros_like(patch.u)
    low = float((patch.u / sac.half_width).min()) - 0.3
    high = float((patch.u / sac.half_width).max()) + 0.3
    for across, deep in anatomy.roots.astype(np.float32):
        if low <= across <= high:
            squared = ((place[0] - across) * sac.half_width) ** 2 + ((place[1] - deep) * sac.half_depth) ** 2
            shade = np.maximum(shade, np.clip(1.3 - squared / np.float32(1.1), 0, 1))
    root = patch.contrast[Tissue.ROOT]
    patch.image += inside * shade * np.float32(0.9) * (root - patch.image)
