"""What tissue lies where around one disc, painted from the background forwards.

A `Patch` is the part of a slice that shows one motion segment. Each `_paint_*` function computes
rough signed distances (mm, negative inside) in the spine's coordinates and covers the patch with a
tissue, with an edge as soft as a pixel. Severity enters here, as shape: a tight canal is a
small sac, a narrow foramen has no fat around its root, a crowded recess is filled with disc.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.imaging.phantom.anatomy import Anatomy, Segment, Vertebra

Field = NDArray[np.float32]


class Weighting(Enum):
    """The contrast of a series; the value is its `SeriesDescription` tag."""

    T1 = "T1"
    T2 = "T2"


class Tissue(Enum):
    """What a point is made of."""

    FAT = auto()
    MARROW = auto()
    CORTEX = auto()
    MUSCLE = auto()
    CSF = auto()
    CORD = auto()
    ROOT = auto()
    ANNULUS = auto()
    NUCLEUS = auto()
    DRY_NUCLEUS = auto()
    FLAVUM = auto()
    LIGAMENT = auto()
    JOINT = auto()
    BLOOD = auto()
    BOWEL = auto()


#: Signal relative to CSF on T2 and to fat on T1: the usual look of fast spin echo at 1.5 T.
CONTRAST: Mapping[Weighting, Mapping[Tissue, float]] = {
    Weighting.T2: {
        Tissue.FAT: 0.78,
        Tissue.MARROW: 0.42,
        Tissue.CORTEX: 0.10,
        Tissue.MUSCLE: 0.19,
        Tissue.CSF: 1.0,
        Tissue.CORD: 0.42,
        Tissue.ROOT: 0.38,
        Tissue.ANNULUS: 0.13,
        Tissue.NUCLEUS: 0.78,
        Tissue.DRY_NUCLEUS: 0.15,
        Tissue.FLAVUM: 0.15,
        Tissue.LIGAMENT: 0.06,
        Tissue.JOINT: 0.60,
        Tissue.BLOOD: 0.04,
        Tissue.BOWEL: 0.36,
    },
    Weighting.T1: {
        Tissue.FAT: 1.0,
        Tissue.MARROW: 0.52,
        Tissue.CORTEX: 0.08,
        Tissue.MUSCLE: 0.30,
        Tissue.CSF: 0.15,
        Tissue.CORD: 0.36,
        Tissue.ROOT: 0.30,
        Tissue.ANNULUS: 0.25,
        Tissue.NUCLEUS: 0.34,
        Tissue.DRY_NUCLEUS: 0.30,
        Tissue.FLAVUM: 0.24,
        Tissue.LIGAMENT: 0.10,
        Tissue.JOINT: 0.25,
        Tissue.BLOOD: 0.07,
        Tissue.BOWEL: 0.34,
    },
}


@dataclass
class Patch:
    """The pixels around one segment; all arrays float32 [sub-slice, row, column].

    Attributes:
        u: sideways, mm.
        v: backwards from the bodies' back wall, mm.
        d: along the spine from the disc's middle, mm, growing towards the feet.
        image: signal, painted in place.
        softness: width of an edge, mm.
        contrast: signal of each tissue.
    """

    u: Field
    v: Field
    d: Field
    image: Field
    softness: float
    contrast: Mapping[Tissue, float]

    def __post_init__(self) -> None:
        self.abs_u = np.abs(self.u)
        self.u_range = float(self.u.min()), float(self.u.max())

    def crosses(self, low: float, high: float) -> bool:
        """Whether any pixel has u in [low, high]."""
        return self.u_range[0] <= high and self.u_range[1] >= low

    def within(self, u: tuple[float, float], v: tuple[float, float]) -> "Patch | None":
        """Returns the part, a view, with u and v in these ranges (a pixel more, if anything), or None.

        Structures are small beside the patch, and painting costs by the pixel.
        """
        middle = len(self.u) // 2
        near = (self.u[middle] > u[0] - 2) & (self.u[middle] < u[1] + 2)
        near &= (self.v[middle] > v[0] - 2) & (self.v[middle] < v[1] + 2)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if rows.size == 0:
            return None
        part = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return Patch(
            u=self.u[part],
            v=self.v[part],
            d=self.d[part],
            image=self.image[part],
            softness=self.softness,
            contrast=self.contrast,
        )

    def cover(self, tissue: Tissue, distance: Field, opacity: Field | float = 1.0) -> None:
        """Paints a tissue where the distance is negative."""
        self.cover_with(self.contrast[tissue], distance, opacity)

    def cover_with(self, signal: Field | float, distance: Field, opacity: Field | float = 1.0) -> None:
        """Paints a signal where the distance is negative."""
        alpha = distance * np.float32(-1 / self.softness)
        alpha += np.float32(0.5)
        np.clip(alpha, 0, 1, out=alpha)
        if not alpha.any():
            return
        alpha *= opacity
        change = signal - self.image
        change *= alpha
        self.image += change

    def bone(self, distance: Field, *, cortex_mm: float = 1.2) -> None:
        """Paints marrow in a dark rim."""
        self.cover(Tissue.CORTEX, distance)
        self.cover(Tissue.MARROW, distance + cortex_mm)


@dataclass(frozen=True)
class Passage:
    """The thecal sac's walls at every pixel of a patch, float32 arrays.

    Attributes:
        centre: v of its middle, mm.
        half_width: along u, mm.
        half_depth: along v, mm.
        at_disc: 1 at the disc's middle, falling to 0 within about 8 mm.
    """

    centre: Field
    half_width: Field
    half_depth: Field
    at_disc: Field


def paint_segment(patch: Patch, anatomy: Anatomy, segment: Segment) -> None:
    """Paints everything that belongs to a motion segment, in order from the back to the front."""
    if segment.above.is_sacral or segment.below.is_sacral:
        _paint_sacral_bone(patch, segment)
    if not segment.above.is_sacral:
        if part := patch.within((-15, 15), (4, 54)):
            _paint_spinous(part, segment)
        for sign, recess, foramen in zip((1, -1), segment.recesses, segment.foramina):
            beside = (7.0, 27.0) if sign > 0 else (-27.0, -7.0)
            if part := patch.within(beside, (-10, 26)):
                _paint_pillar(part, segment, sign=sign, growth=1.2 * (recess + foramen))
    if part := patch.within((-17, 17), (-4, 24)):
        _paint_canal_fat(part, segment, _passage(part, segment))
    if not segment.above.is_sacral:
        for sign, severity in zip((1, -1), segment.foramina):
            beside = (8.0, 27.0) if sign > 0 else (-27.0, -8.0)
            if part := patch.within(beside, (-6, 10)):
                _paint_foramen(part, segment, sign=sign, severity=severity)
    if part := patch.within((-31, 31), (-42, 10)):
        plan = _plan_distance(part, segment)
        _paint_bodies(part, anatomy, segment, plan)
        _paint_disc(part, segment, plan)
    if part := patch.within((-17, 17), (-4, 24)):
        sac = _passage(part, segment)
        corner = _paint_recesses(part, segment, sac)
        _paint_sac(part, anatomy, segment, sac, corner)


def _ellipse(first: Field, second: Field, radii: tuple[float, float]) -> Field:
    """Returns a distance to an ellipse around 0, exact on its edge and near enough elsewhere."""
    return (np.sqrt((first / radii[0]) ** 2 + (second / radii[1]) ** 2) - 1) * min(radii)


def _along(patch: Patch, segment: Segment, above: float, below: float) -> Field:
    """Returns a value that runs from the middle of the body above to that of the body below."""
    top, bottom = (edge - segment.s_mm for edge in segment.s_range)
    share = np.clip((patch.d - top) / (bottom - top), 0, 1)
    return above + share * (below - above)


def _passage(patch: Patch, segment: Segment) -> Passage:
    """Returns the sac: 165 mm2 where open, under 45 mm2 where the canal is closed."""
    at_disc = np.exp(-((patch.d / 6.0) ** 2))
    above, below, tight = segment.above, segment.below, segment.canal
    front = _along(patch, segment, above.sac_front, below.sac_front)
    back = _along(patch, segment, above.sac_back, below.sac_back)
    front = front + (0.5 * segment.bulge + 4.2 * tight) * at_disc
    back = back - (0.3 + 3.6 * tight) * at_disc
    half_width = _along(patch, segment, above.sac_half_width, below.sac_half_width)
    return Passage(
        centre=(front + back) / 2,
        half_width=half_width * (1 - 0.42 * tight * at_disc),
        half_depth=np.maximum((back - front) / 2, 0.6),
        at_disc=at_disc,
    )


def _paint_spinous(patch: Patch, segment: Segment) -> None:
    """Paints spinous processes, laminae and the ligaments between them."""
    half = segment.disc_height / 2
    reach = 50.0 if not segment.below.is_sacral else 42.0
    tip = np.abs(patch.v - reach / 2 - 9) - reach / 2 + 9
    if patch.crosses(-5, 5):
        fatty = 0.5 * patch.contrast[Tissue.FAT] + 0.5 * patch.contrast[Tissue.LIGAMENT]
        streaks = fatty * (1 + 0.15 * np.sin(patch.v * 0.45 + 0.8 * np.sin(patch.d * 0.35)))
        patch.cover_with(streaks, np.maximum(patch.abs_u - 3.5, tip))
        patch.cover(Tissue.LIGAMENT, np.maximum(patch.abs_u - 4, np.abs(patch.v - reach + 0.5) - 1.2))
    for middle in _own_and_next(segment, offset=6.0):
        if patch.crosses(-6, 6):
            drop = patch.d - middle - 0.38 * (patch.v - 20)
            # A blade with a round end, highest near its tip.
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
    """Returns d of something `offset` mm above the lower edge of the body above and of the body below.

    Both halves of a vertebra are painted by different segments; both must know its parts.
    """
    half = segment.disc_height / 2
    upper = -(half + offset)
    if segment.below.is_sacral:
        return (upper,)
    return upper, half + segment.below.height - offset


def _paint_pillar(patch: Patch, segment: Segment, *, sign: int, growth: float) -> None:
    """Paints one side's pedicles, articular pillar and facet joint, which grows by some mm."""
    half = segment.disc_height / 2
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
    pedicles = [-(half + segment.above.height - 8.5)]
    if not segment.below.is_sacral:
        pedicles.append(half + 8.5)
    for middle in pedicles:
        round_end = _ellipse(patch.d - middle, side - 15.5, (7.0, 5.0))
        patch.bone(np.maximum(round_end, np.abs(patch.v - 2) - 10))


def _paint_sacral_bone(patch: Patch, segment: Segment) -> None:
    """Paints the sacrum's alae and its back wall."""
    half = segment.disc_height / 2
    start = half if not segment.above.is_sacral else -100.0
    size = segment.below.half_width
    below = start + 2 - patch.d
    ala = np.maximum(
        np.abs(patch.abs_u - 12 - size) - 22, np.abs(patch.v + 4 - 0.25 * (patch.abs_u - 20)) - 10
    )
    patch.bone(np.maximum(ala, below + 0.15 * (patch.abs_u - 20)))
    back = _along(patch, segment, segment.above.sac_back, segment.below.sac_back) + 4.0
    wall = np.abs(patch.v - back + 0.25 * patch.abs_u) - 2.5
    patch.bone(np.maximum(np.maximum(wall, patch.abs_u - 20), below + 3))


def _paint_canal_fat(patch: Patch, segment: Segment, sac: Passage) -> None:
    tight = segment.canal
    # Beside the disc the facets and the yellow ligament close in on the sac; elsewhere fat does.
    margin = 2.6 - (0.6 + 1.4 * tight) * sac.at_disc
    wide = (sac.half_width + margin, sac.half_depth + 0.7 * margin)
    soft = np.sqrt((patch.u / wide[0]) ** 2 + ((patch.v - sac.centre) / wide[1]) ** 2)
    outline = (soft - 1) * 7
    walls = np.maximum(_ellipse(patch.u, patch.v - 8, (14.0, 11.0)), np.abs(patch.d) - 11)
    patch.cover(Tissue.FLAVUM, walls)
    patch.cover(Tissue.FAT, outline)
    if segment.above.is_sacral:
        return
    behind = sac.centre + sac.half_depth
    triangle = segment.fat_triangle * (1 - 0.6 * tight)
    fat = np.maximum(patch.abs_u * 1.1 + (patch.v - behind) - triangle, behind - 1 - patch.v)
    patch.cover(Tissue.FAT, np.maximum(fat, np.abs(patch.d - 1) - 9))


def _paint_foramen(patch: Patch, segment: Segment, *, sign: int, severity: float) -> None:
    """Paints a foramen: fat with the root in it; disc and facet leave less of both fat and height."""
    side = patch.u * sign
    ends = np.abs(side - 17) - 7.5
    slope = 0.6 * (side - 17)
    upper = -(segment.disc_height / 2 + 6.0)
    frame = np.minimum(
        _ellipse(patch.v - 2.0, patch.d - upper - 0.5, (6.2, 9.0)),
        _ellipse(patch.v - 1.5, patch.d - 3.0, (4.2, 7.5)),
    )
    patch.cover(Tissue.FLAVUM, np.maximum(frame, ends))
    room = 1 - severity
    fat = np.minimum(
        _ellipse(patch.v - 1.5, patch.d - upper, (2.2 + 3.8 * room, 2.6 + 6.0 * room)),
        _ellipse(patch.v - 1.5, patch.d - 3.0, (0.4 + 2.8 * room, 0.8 + 5.7 * room)),
    )
    patch.cover(Tissue.FAT, np.maximum(fat, ends))
    root = _ellipse(
        patch.v - 1.2, patch.d - upper + 1.0 - slope, (2.3 - 0.5 * severity, 3.0 - 0.9 * severity)
    )
    patch.cover(Tissue.ROOT, np.maximum(root, ends - 2))
    vessel = _ellipse(patch.v - 3.4, patch.d - upper + 4.5, (0.9, 0.9))
    patch.cover(Tissue.BLOOD, np.maximum(vessel, ends), room)


def _plan_distance(patch: Patch, segment: Segment) -> Field:
    """Returns the distance to the side wall of bodies and disc, rounder than a box."""
    half_width = _along(patch, segment, segment.above.half_width, segment.below.half_width)
    half_depth = _along(patch, segment, segment.above.depth, segment.below.depth) / 2
    across = (patch.u / half_width) ** 2
    deep = ((patch.v + half_depth) / half_depth) ** 2
    radius = np.sqrt(np.maximum(across + deep - 0.4 * np.minimum(across * deep, across + deep), 0))
    return (radius - 1) * half_depth


def _paint_bodies(patch: Patch, anatomy: Anatomy, segment: Segment, plan: Field) -> None:
    half = segment.disc_height / 2
    height = _disc_half_height(half, plan)
    away = np.abs(patch.d)
    # The waist: bodies are narrower between their endplates.
    waist = 2.2 * np.clip((away - half - 2) / 8, 0, 1)
    distance = np.maximum(plan + waist, height - away)
    patch.cover(Tissue.CORTEX, distance)
    marrow = patch.contrast[Tissue.MARROW] * (1 + anatomy.marrow_fat)
    first, second = (float(phase) for phase in anatomy.phases[:2])
    grain = 0.06 * np.sin(0.5 * patch.u + 0.4 * patch.d + first + np.sin(0.3 * patch.v + second))
    signal = marrow * (1 + grain)
    if segment.endplate_change:
        changed = patch.contrast[Tissue.FAT if segment.endplate_change > 0 else Tissue.CORTEX]
        signal += 0.5 * np.exp(-(((away - height) / 5.0) ** 2)) * (changed - signal)
    patch.cover_with(signal, distance + 1.0)
    vein = np.maximum(patch.abs_u - 3, _ellipse(patch.v + 3, _from_middle(patch, segment), (4.0, 1.6)))
    patch.cover(Tissue.CSF, vein, 0.5)


def _from_middle(patch: Patch, segment: Segment) -> Field:
    """Returns the distance along the spine from the middle of the nearer body."""
    top, bottom = (edge - segment.s_mm for edge in segment.s_range)
    return np.minimum(np.abs(patch.d - top), np.abs(patch.d - bottom))


def _disc_half_height(half: float, plan: Field) -> Field:
    """Returns half the disc's height: endplates are hollow, so it is higher in the middle."""
    return half + np.clip(-plan / 14, 0, 1) * 0.25 * half


def _paint_disc(patch: Patch, segment: Segment, plan: Field) -> None:
    bulge = 0.6 + segment.bulge + 2.8 * segment.canal * np.exp(-((patch.u / 9) ** 2))
    for sign, recess, foramen in zip((1, -1), segment.recesses, segment.foramina):
        side = patch.u * sign
        bulge = bulge + 2.6 * recess * np.exp(-(((side - 9) / 5) ** 2))
        bulge = bulge + 3.0 * foramen * np.exp(-(((side - 18) / 6) ** 2))
    backwards = np.clip((patch.v + 12) / 8, 0, 1)
    half = segment.disc_height / 2
    thick = np.abs(patch.d) - _disc_half_height(half, plan)
    # What bulges is also higher than the disc space.
    edge = plan - 0.5 - bulge * backwards
    disc = np.maximum(edge, thick + 0.5 - 1.2 * np.clip(plan, 0, 2) * backwards)
    patch.cover(Tissue.ANNULUS, disc)
    wet, dry = patch.contrast[Tissue.NUCLEUS], patch.contrast[Tissue.DRY_NUCLEUS]
    signal = wet + segment.degeneration * (dry - wet)
    core = np.clip(-(plan + 2.0) / 7, 0, 1) * np.clip(-(thick + 0.6) / 1.6, 0, 1)
    cleft = 1 - 0.25 * (1 - segment.degeneration) * np.exp(-((patch.d / 1.2) ** 2))
    patch.cover_with(signal * cleft, disc, core)


def _paint_recesses(patch: Patch, segment: Segment, sac: Passage) -> Field:
    """Fills the lateral recesses and returns the distance by which they cut the sac's corners."""
    cut = np.full_like(patch.u, -10.0)
    if segment.above.is_sacral:
        return cut
    walls = np.maximum(_ellipse(patch.u, patch.v - 8, (14.5, 11.0)), np.abs(patch.d) - 8)
    for sign, severity in zip((1, -1), segment.recesses):
        side = patch.u * sign
        # A wall at 45 degrees that comes from the front and the side towards the sac.
        outwards = 0.74 * side - 0.67 * (patch.v - 8.0)
        wall = 12.4 - (9.6 * severity) * sac.at_disc
        root = _ellipse(side - 8.9 + 1.6 * severity, patch.v - 3.4 - 1.4 * severity, (1.7, 1.5))
        patch.cover(Tissue.ROOT, np.maximum(root, np.abs(patch.d) - 9))
        filler = np.maximum(wall - outwards, walls)
        patch.cover(Tissue.ANNULUS, np.maximum(filler, -patch.v - 1), np.minimum(1.0, 2 * severity))
        cut = np.maximum(cut, outwards - wall + 0.5)
    return cut


def _paint_sac(patch: Patch, anatomy: Anatomy, segment: Segment, sac: Passage, corner: Field) -> None:
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
        _paint_strands(
            patch, anatomy, sac, (across, deep), inside * np.clip((s - anatomy.conus_s + 20) / 20, 0, 1)
        )


def _paint_strands(
    patch: Patch, anatomy: Anatomy, sac: Passage, place: tuple[Field, Field], inside: Field
) -> None:
    """Paints the cauda equina: strands keep their size, so a small sac is full of them."""
    shade = np.zeros_like(patch.u)
    low = float((patch.u / sac.half_width).min()) - 0.3
    high = float((patch.u / sac.half_width).max()) + 0.3
    for across, deep in anatomy.roots.astype(np.float32):
        if low <= across <= high:
            squared = ((place[0] - across) * sac.half_width) ** 2 + ((place[1] - deep) * sac.half_depth) ** 2
            shade = np.maximum(shade, np.clip(1.3 - squared / np.float32(1.1), 0, 1))
    root = patch.contrast[Tissue.ROOT]
    patch.image += inside * shade * np.float32(0.9) * (root - patch.image)


def vertebra_names(segments: tuple[Segment, ...]) -> tuple[str, ...]:
    """Returns the vertebrae from head to feet."""
    bodies: list[Vertebra] = [segments[0].above, *(segment.below for segment in segments)]
    return tuple(body.name for body in bodies)
