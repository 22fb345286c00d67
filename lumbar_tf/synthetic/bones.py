"""Painting of vertebrae, sacrum and discs in spine coordinates."""

import numpy as np

from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.patch import Field, Patch, Tissue, along, ellipse


def paint_spinous(patch: Patch, anatomy: Anatomy, segment: Segment) -> None:
    """Paints spinous processes, laminae and the ligaments between them."""
    half = segment.disc_height / 2
    reach = 50.0 if anatomy.surroundings is None else anatomy.surroundings.spinous_mm
    if segment.below.is_sacral:
        reach -= 8.0
    tip = np.abs(patch.v - reach / 2 - 9) - reach / 2 + 9
    if patch.crosses(-5, 5):
        fatty = 0.5 * patch.contrast[Tissue.FAT] + 0.5 * patch.contrast[Tissue.LIGAMENT]
        streaks = fatty * (1 + 0.15 * np.sin(patch.v * 0.45 + 0.8 * np.sin(patch.d * 0.35)))
        patch.cover_with(streaks, np.maximum(patch.abs_u - 3.5, tip))
        patch.cover(Tissue.LIGAMENT, np.maximum(patch.abs_u - 4, np.abs(patch.v - reach + 0.5) - 1.2))
    for middle in _own_and_next(segment, offset=6.0):
        if patch.crosses(-6, 6):
            drop = patch.d - middle - 0.38 * (patch.v - 20)
            # A blade with a rounded end, tallest near its tip.
            long = (reach - 18) / 2
            blade = (np.sqrt((drop / 9.5) ** 2 + ((patch.v - 16 - long) / long) ** 2) - 1) * 9
            patch.bone(np.maximum(patch.abs_u - 4.2 + 0.04 * np.abs(patch.v - 38), blade))
        roof = np.abs(patch.v - (20.5 - 0.5 * patch.abs_u) - 0.25 * (patch.d - middle)) - 3.0
        lamina = np.maximum(np.maximum(roof, np.abs(patch.d - middle) - 9.0), patch.abs_u - 14)
        patch.bone(lamina, cortex_mm=1.4)
    # The yellow ligament closes the window between two laminae.
    roof = np.abs(patch.v - (18.5 - 0.5 * patch.abs_u)) - 2.2
    patch.cover(Tissue.FLAVUM, np.maximum(np.maximum(roof, np.abs(patch.d) - half - 5), patch.abs_u - 14))


def _own_and_next(segment: Segment, *, offset: float) -> tuple[float, ...]:
    """Returns d at `offset` mm above the lower edge of the body above and of the body below.

    The two halves of a vertebra are painted by different segments, and both must paint its parts.
    """
    half = segment.disc_height / 2
    upper = -(half + offset)
    if segment.below.is_sacral:
        return (upper,)
    return upper, half + segment.below.height - offset


def paint_pillar(patch: Patch, segment: Segment, *, sign: int, growth: float) -> None:
    """Paints pedicles, articular pillar and facet joint of one side; `growth` enlarges the joint, mm."""
    side = patch.u * sign
    near_disc = np.exp(-(((patch.d + 3) / 9.0) ** 2))
    depth = 4.2 + (3.0 + growth) * near_disc
    width = 5.5 + 3.0 * near_disc
    pillar = (np.sqrt(((patch.v - 14.5) / depth) ** 2 + ((side - 16.5) / width) ** 2) - 1) * 5
    patch.bone(pillar)
    gap = np.abs((patch.v - 13.5) * 0.55 - (side - 16) * 0.55 + (patch.d + 3) * 0.6)
    joint = np.maximum(np.maximum(gap - 1.5, pillar), np.abs(patch.d + 3) - 9)
    patch.cover(Tissue.CORTEX, joint)
    patch.cover(Tissue.JOINT, joint + 1.0, 0.7)
    _paint_pedicles(patch, segment, side)


def _pedicle_middles(segment: Segment) -> tuple[float, ...]:
    """Returns d at the middle of the pedicles of the body above and, above the sacrum, of the body below."""
    half = segment.disc_height / 2
    upper = -(half + segment.above.height - 8.5)
    return (upper,) if segment.below.is_sacral else (upper, half + 8.5)


def _paint_pedicles(patch: Patch, segment: Segment, side: Field) -> None:
    for middle in _pedicle_middles(segment):
        round_end = ellipse(patch.d - middle, side - 15.5, (7.0, 5.0))
        patch.bone(np.maximum(round_end, np.abs(patch.v - 2) - 10))


def _rod(
    patch: Patch,
    side: Field,
    start: tuple[float, float],
    end: tuple[float, float],
    radii: tuple[float, float],
) -> Field:
    """Returns the distance to a rounded rod between two points (v, d), `radii` in its plane and sideways."""
    along_v, along_d = end[0] - start[0], end[1] - start[1]
    share = ((patch.v - start[0]) * along_v + (patch.d - start[1]) * along_d) / (along_v**2 + along_d**2)
    share = np.clip(share, 0, 1)
    off_v, off_d = patch.v - start[0] - share * along_v, patch.d - start[1] - share * along_d
    near = np.sqrt((off_v**2 + off_d**2) / radii[0] ** 2 + (side / radii[1]) ** 2)
    return (near - 1) * min(radii)


def paint_facets(patch: Patch, segment: Segment, *, sign: int, growth: float) -> None:
    """Paints pedicles, pars, articular processes and the joint space between them.

    The inferior process of the vertebra above descends behind the superior process of the one below; the
    joint space between them runs obliquely from the front above to the back below.
    """
    half = segment.disc_height / 2
    side = patch.u * sign
    inferior = _rod(patch, side - 15, (10.5, -half - 15), (20.0, 5.0), (4.6 + 0.4 * growth, 8.0))
    superior = _rod(patch, side - 18, (8.5, half + 9), (13.0 - 0.3 * growth, -6.0), (3.8 + growth, 9.0))
    patch.bone(inferior, cortex_mm=1.3)
    # Cartilage and fluid between two dark rims.
    near = np.abs(patch.d - 1) - 10
    patch.cover(Tissue.CORTEX, np.maximum(superior - 2.0, near))
    patch.cover(Tissue.JOINT, np.maximum(superior - 1.2, np.maximum(near + 1, inferior - 1.5)), 0.8)
    patch.bone(superior, cortex_mm=1.3)
    _paint_pedicles(patch, segment, side)
    for middle in _pedicle_middles(segment):
        # The transverse process leaves the pedicle to the side and the back.
        transverse = ellipse(patch.d - middle, patch.v - 12.5, (5.5, 3.5))
        patch.bone(np.maximum(transverse, 19 - side))


def paint_screw(patch: Patch, segment: Segment, *, sign: int) -> None:
    """Paints the signal void around a screw in the pedicle of the body above, with its bright rim."""
    middle = _pedicle_middles(segment)[0]
    side = patch.u * sign
    void = np.maximum(ellipse(patch.d - middle, side - 15.5, (7.5, 7.5)), np.abs(patch.v + 2) - 26)
    patch.cover_with(1.2, void - 1.5, 0.7)
    patch.cover_with(0.0, void)


def paint_sacral_bone(patch: Patch, segment: Segment) -> None:
    """Paints the alae and the back wall of the sacrum."""
    half = segment.disc_height / 2
    start = half if not segment.above.is_sacral else -100.0
    size = segment.below.half_width
    below = start + 2 - patch.d
    ala = np.maximum(
        np.abs(patch.abs_u - 12 - size) - 22, np.abs(patch.v + 4 - 0.25 * (patch.abs_u - 20)) - 10
    )
    patch.bone(np.maximum(ala, below + 0.15 * (patch.abs_u - 20)))
    back = along(patch, segment, segment.above.sac_back, segment.below.sac_back) + 4.0
    wall = np.abs(patch.v - back + 0.25 * patch.abs_u) - 2.5
    patch.bone(np.maximum(np.maximum(wall, patch.abs_u - 20), below + 3))


def plan_distance(patch: Patch, segment: Segment) -> Field:
    """Returns the distance to the side wall of bodies and disc, in shape between a box and an ellipse."""
    half_width = along(patch, segment, segment.above.half_width, segment.below.half_width)
    half_depth = along(patch, segment, segment.above.depth, segment.below.depth) / 2
    across = (patch.u / half_width) ** 2
    deep = ((patch.v + half_depth) / half_depth) ** 2
    radius = np.sqrt(np.maximum(across + deep - 0.4 * np.minimum(across * deep, across + deep), 0))
    return (radius - 1) * half_depth


def _disc_half_height(patch: Patch, segment: Segment, plan: Field) -> Field:
    """Returns half the disc's height, which is larger in the middle because endplates are concave."""
    half = segment.disc_height / 2
    height = half + np.clip(-plan / 14, 0, 1) * 0.25 * half
    if segment.front_opening_mm:
        height = height + segment.front_opening_mm / 2 * np.clip(-patch.v / segment.above.depth, 0, 1)
    for node in segment.nodes:
        squared = (patch.u - node.u) ** 2 + (patch.v - node.v) ** 2
        dent = node.depth_mm * np.exp(-squared / node.radius_mm**2)
        height = height + np.where((patch.d < 0) == node.is_above, dent, 0)
    return height


def paint_bodies(patch: Patch, anatomy: Anatomy, segment: Segment, plan: Field) -> None:
    """Paints the two halves of vertebral bodies; `plan` is the distance to their side wall."""
    half = segment.disc_height / 2
    height = _disc_half_height(patch, segment, plan)
    away = np.abs(patch.d)
    # Waist: bodies are narrower between their endplates.
    waist = 2.2 * np.clip((away - half - 2) / 8, 0, 1)
    if segment.spur_mm:
        at_front = np.clip(-patch.v / segment.above.depth - 0.6, 0, 0.4) / 0.4
        waist = waist - segment.spur_mm * at_front * np.exp(-(((away - half) / 4.0) ** 2))
    distance = np.maximum(plan + waist, height - away)
    patch.cover(Tissue.CORTEX, distance)
    marrow = patch.contrast[Tissue.MARROW] * (1 + anatomy.marrow_fat)
    first, second = (float(phase) for phase in anatomy.phases[:2])
    grain = 0.06 * np.sin(0.5 * patch.u + 0.4 * patch.d + first + np.sin(0.3 * patch.v + second))
    signal = marrow * (1 + grain)
    if segment.endplate_change:
        changed = patch.contrast[Tissue.FAT if segment.endplate_change > 0 else Tissue.CORTEX]
        signal += 0.5 * np.exp(-(((away - height) / 5.0) ** 2)) * (changed - signal)
    for lesion in anatomy.lesions:
        u, v, s = lesion.centre
        squared = (patch.u - u) ** 2 + (patch.v - v) ** 2 + (patch.d - (s - segment.s_mm)) ** 2
        signal = signal * (
            1 + (lesion.brightness - 1) * np.clip(lesion.radius_mm - np.sqrt(squared) + 0.5, 0, 1)
        )
    patch.cover_with(signal, distance + 1.0)
    vein = np.maximum(patch.abs_u - 3, ellipse(patch.v + 3, _from_middle(patch, segment), (4.0, 1.6)))
    patch.cover(Tissue.CSF, vein, 0.5)


def _from_middle(patch: Patch, segment: Segment) -> Field:
    """Returns the distance along the spine from the centre of the nearer body."""
    top, bottom = (edge - segment.s_mm for edge in segment.s_range)
    return np.minimum(np.abs(patch.d - top), np.abs(patch.d - bottom))


def paint_disc(patch: Patch, segment: Segment, plan: Field) -> None:
    """Paints the disc with its bulges."""
    bulge = 0.6 + segment.bulge + 2.8 * segment.canal * np.exp(-((patch.u / 9) ** 2))
    for sign, recess, foramen in zip((1, -1), segment.recesses, segment.foramina):
        side = patch.u * sign
        bulge = bulge + 2.6 * recess * np.exp(-(((side - 9) / 5) ** 2))
        bulge = bulge + 3.0 * foramen * np.exp(-(((side - 18) / 6) ** 2))
    backwards = np.clip((patch.v + 12) / 8, 0, 1)
    thick = np.abs(patch.d) - _disc_half_height(patch, segment, plan)
    # The bulging part is also taller than the disc space.
    edge = plan - 0.5 - bulge * backwards
    disc = np.maximum(edge, thick + 0.5 - 1.2 * np.clip(plan, 0, 2) * backwards)
    patch.cover(Tissue.ANNULUS, disc)
    wet, dry = patch.contrast[Tissue.NUCLEUS], patch.contrast[Tissue.DRY_NUCLEUS]
    signal = wet + segment.degeneration * (dry - wet)
    core = np.clip(-(plan + 2.0) / 7, 0, 1) * np.clip(-(thick + 0.6) / 1.6, 0, 1)
    cleft = 1 - 0.25 * (1 - segment.degeneration) * np.exp(-((patch.d / 1.2) ** 2))
    patch.cover_with(signal * cleft, disc, core)
