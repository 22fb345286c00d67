"""Analytic anatomy of a lumbar spine in patient space.

The spine is straight in its own curvilinear coordinates (u, v, s), in mm: s runs down the back wall of the
vertebral bodies, v points backwards from that wall, u to one side. A planar curve (lordosis), a sideways bend
(scoliosis), a rotation and a translation map them to patient space (LPS mm), so every slice plane cuts the
same body. `render.py` renders it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import Condition, Level, Side, finding_index
from lumbar_tf.synthetic.curve import Curve, draw_turns, make_curve
from lumbar_tf.synthetic.severity import relative_severity

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Vertebra:
    """A vertebra in spine coordinates, mm.

    Attributes:
        name: `T10` to `S4`.
        height: height of the body, along s.
        half_width: half width of the body, along u.
        depth: depth of the body, along v.
        sac_half_width: half width of the thecal sac at this vertebra.
        sac_front: v of the sac's front wall (the gap in front of it contains epidural fat).
        sac_back: v of the sac's back wall.
        is_sacral: whether it has alae instead of pedicles and facets.
    """

    name: str
    height: float
    half_width: float
    depth: float
    sac_half_width: float
    sac_front: float
    sac_back: float
    is_sacral: bool


@dataclass(frozen=True)
class SchmorlNode:
    """A dent of an endplate, filled with disc.

    Attributes:
        u: position, mm.
        v: position, mm.
        radius_mm: radius along the endplate.
        depth_mm: depth into the body.
        is_above: whether it is in the body above the disc.
    """

    u: float
    v: float
    radius_mm: float
    depth_mm: float
    is_above: bool


@dataclass(frozen=True)
class Lesion:
    """A round lesion of the marrow, such as a haemangioma.

    Attributes:
        centre: u, v, s, mm.
        radius_mm: radius.
        brightness: factor of the marrow's signal.
    """

    centre: tuple[float, float, float]
    radius_mm: float
    brightness: float


@dataclass(frozen=True)
class Surroundings:
    """Parameters of a varied abdomen and back.

    Attributes:
        waves: random plane waves of the organs' outlines, [field, wave, 4]: x, y, z in radians per mm and
            a phase.
        front_mm: distance of the abdominal wall in front of the spine.
        mixture: shares of fat, fluid and gas in the bowel, [3].
        organ_signal: signal of solid organs between muscle (0) and bowel (1).
        aorta: lateral position, distance in front of the bodies and radius, mm.
        cava: the same.
        spinous_mm: length of the spinous processes behind the bodies.
    """

    waves: Array
    front_mm: float
    mixture: Array
    organ_signal: float
    aorta: tuple[float, float, float]
    cava: tuple[float, float, float]
    spinous_mm: float


@dataclass(frozen=True)
class Segment:
    """A motion segment: a disc with the adjacent halves of two vertebrae.

    Severities range from 0 (wide open) to 1 (closed); pairs are (+u side, -u side).

    Attributes:
        above: the vertebra above the disc.
        below: the vertebra below it.
        s_mm: s of the disc's centre.
        disc_height: height at the back wall, mm.
        degeneration: 0 for a bright nucleus to 1 for a dark disc.
        canal: severity of the canal stenosis.
        foramina: severity of the two foramina.
        recesses: severity of the two lateral recesses.
        bulge: disc bulge unrelated to stenosis, mm.
        fat_triangle: half width of the fat behind the sac, mm.
        endplate_change: marrow signal change next to the disc, -1 dark to 1 fatty; usually 0.
        nodes: Schmorl nodes of the two endplates.
        spur_mm: length of the bony spurs at the front edges of the bodies.
        front_opening_mm: additional height of the disc at its front edge.
        is_laminectomy: whether spinous process and laminae are removed.
        has_screws: whether there are screws in the pedicles of the body above.
    """

    above: Vertebra
    below: Vertebra
    s_mm: float
    disc_height: float
    degeneration: float
    canal: float
    foramina: tuple[float, float]
    recesses: tuple[float, float]
    bulge: float
    fat_triangle: float
    endplate_change: float
    nodes: tuple[SchmorlNode, ...] = ()
    spur_mm: float = 0.0
    front_opening_mm: float = 0.0
    is_laminectomy: bool = False
    has_screws: bool = False

    @property
    def s_range(self) -> tuple[float, float]:
        """Range of s from the centre of the body above to the centre of the body below, mm."""
        half = self.disc_height / 2
        return self.s_mm - half - self.above.height / 2, self.s_mm + half + self.below.height / 2


@dataclass(frozen=True)
class Anatomy:
    """Lumbar spine of a patient, and its surroundings.

    Attributes:
        segments: segments from T10/T11 to S3/S4.
        curve: curved axis in spine space (Cartesian mm, axes as LPS).
        rotation: orthogonal [3, 3] matrix from patient to spine axes; its determinant is -1 in a
            mirrored patient.
        origin: patient position of the origin of spine space, LPS mm.
        conus_s: s of the lower end of the cord.
        sac_end_s: s of the lower end of the thecal sac.
        roots: relative positions of the strands of the cauda equina in the sac, [n, 2], in [-1, 1].
        fat_mm: thickness of the fat under the skin of the back.
        muscle_fat: 0 for lean to 1 for fatty back muscles.
        marrow_fat: shift of the marrow's brightness, about 0 +- 0.1.
        phases: random phases of the tissue textures, [12] radians.
        slip_mm: displacement to the front of everything at each `curve.s`, [n]; None without slips.
        lesions: lesions of the marrow.
        surroundings: a varied abdomen and back, and facets with joint spaces; None for the plain ones.
    """

    segments: tuple[Segment, ...]
    curve: Curve
    rotation: Array
    origin: Array
    conus_s: float
    sac_end_s: float
    roots: Array
    fat_mm: float
    muscle_fat: float
    marrow_fat: float
    phases: Array
    slip_mm: Array | None = None
    lesions: tuple[Lesion, ...] = ()
    surroundings: Surroundings | None = None

    def slip(self, s: Array) -> Array | float:
        """Returns the displacement to the front at s, mm."""
        return 0.0 if self.slip_mm is None else np.interp(s, self.curve.s, self.slip_mm)

    def segment(self, level: Level) -> Segment:
        """Returns the segment of one of the five graded levels."""
        return self.segments[_FIRST_GRADED_SEGMENT + list(Level).index(level)]

    def side_sign(self, side: Side) -> int:
        """Returns the sign of u on the left or right of the patient."""
        left = 1 if np.linalg.det(self.rotation) > 0 else -1
        return left if side is Side.LEFT else -left

    def to_patient(self, point: Sequence[float]) -> Array:
        """Maps (u, v, s) to LPS mm, [3]."""
        u, v, s = point
        curve = self.curve
        angle = np.interp(s, curve.s, curve.angle)
        v = v - float(self.slip(np.asarray(s)))
        spine = np.array(
            [
                np.interp(s, curve.s, curve.x) + u,
                np.interp(s, curve.s, curve.y) + v * np.cos(angle),
                np.interp(s, curve.s, curve.z) + v * np.sin(angle),
            ]
        )
        return self.rotation.T @ spine + self.origin

    def axis_direction(self, s: float) -> Array:
        """Returns the unit vector towards the head along the curve, LPS [3]."""
        angle = np.interp(s, self.curve.s, self.curve.angle)
        return self.rotation.T @ np.array([0.0, -np.sin(angle), np.cos(angle)])


# name, height, half width, depth, sac half width, sac front, sac back (mm): typical adult values
# from textbooks of lumbar morphometry (bodies 25 to 28 mm high, 34 deep; sac 15 to 18 by 12 to 14).
_VERTEBRAE = (
    ("T10", 22.0, 17.0, 29.0, 8.2, 1.2, 14.5),
    ("T11", 23.0, 18.0, 30.0, 8.4, 1.2, 14.5),
    ("T12", 25.0, 20.0, 31.0, 8.8, 1.2, 15.0),
    ("L1", 26.5, 21.5, 32.0, 9.2, 1.2, 15.2),
    ("L2", 27.0, 22.0, 33.0, 9.2, 1.2, 15.0),
    ("L3", 27.0, 22.8, 34.0, 9.2, 1.2, 14.8),
    ("L4", 27.0, 23.8, 34.5, 9.2, 1.4, 14.8),
    ("L5", 26.0, 25.0, 34.5, 8.6, 2.6, 15.0),
    ("S1", 26.0, 24.0, 30.0, 6.8, 4.6, 14.0),
    ("S2", 22.0, 21.0, 21.0, 4.6, 3.6, 10.5),
    ("S3", 19.0, 18.0, 15.0, 2.5, 3.0, 8.0),
    ("S4", 16.0, 15.0, 12.0, 1.5, 3.0, 6.0),
)
# Disc heights at the back wall, mm, T10/T11 to S3/S4.
_DISC_HEIGHTS = (4.5, 5.0, 6.0, 7.5, 8.5, 9.5, 10.0, 8.5, 3.0, 2.0, 1.5)
_FIRST_GRADED_SEGMENT = 3


def closure(relative: float) -> float:
    """Maps a relative severity (0 Moderate, 1 Severe) to the closure of a passage, 0 to 1.

    The function is smooth and strictly increasing, so that the images show z and not only the grade.

    >>> [round(closure(value), 2) for value in (-1.0, 0.0, 1.0, 2.0)]
    [0.05, 0.27, 0.73, 0.95]
    """
    return float(0.5 * (1 + np.tanh(relative - 0.5)))


def make_anatomy(latent: Array, rng: np.random.Generator) -> Anatomy:
    """Draws a patient with the given severities of the 25 findings.

    Args:
        latent: z in the order of `FINDINGS`, float64 [25].
        rng: random generator of everything else: size, curve, position, variation unrelated to stenosis.
    """
    scale = float(rng.normal(1.0, 0.05))
    vertebrae = _make_vertebrae(scale, rng)
    segments = _make_segments(latent, vertebrae, scale, rng)
    level_tops = {segment.below.name: segment.s_mm for segment in segments}
    return Anatomy(
        segments=segments,
        curve=make_curve(segments, draw_turns(rng), rng),
        rotation=_rotation(rng.normal(0, (1.5, 1.5, 3.0))),
        origin=rng.normal((0, 20, 0), (8, 15, 15)),
        conus_s=level_tops["L1"] + float(rng.normal(20, 9)),
        sac_end_s=level_tops["S2"] + float(rng.normal(8, 6)),
        roots=_make_roots(rng),
        fat_mm=float(np.clip(rng.gamma(4.0, 5.0), 6, 45)),
        muscle_fat=float(rng.beta(2, 4)),
        marrow_fat=float(rng.normal(0, 0.06)),
        phases=rng.uniform(0, 2 * np.pi, 12),
    )


def mirror_anatomy(anatomy: Anatomy) -> Anatomy:
    """Returns the mirrored patient: x becomes -x, left becomes right."""
    flip = np.diag([-1.0, 1.0, 1.0])
    return replace(anatomy, rotation=anatomy.rotation @ flip, origin=flip @ anatomy.origin)


def _make_vertebrae(scale: float, rng: np.random.Generator) -> list[Vertebra]:
    canal = float(rng.normal(1.0, 0.05))
    vertebrae = []
    for name, height, half_width, depth, sac_half_width, front, back in _VERTEBRAE:
        vertebrae.append(
            Vertebra(
                name=name,
                height=height * scale * float(rng.normal(1, 0.02)),
                half_width=half_width * scale,
                depth=depth * scale,
                sac_half_width=sac_half_width * canal,
                sac_front=front,
                sac_back=front + (back - front) * canal,
                is_sacral=name.startswith("S"),
            )
        )
    return vertebrae


def _make_segments(
    latent: Array, vertebrae: list[Vertebra], scale: float, rng: np.random.Generator
) -> tuple[Segment, ...]:
    relative = relative_severity(latent)
    health = rng.normal(0, 0.5)
    segments = []
    s_mm = 0.0
    for index, (above, below) in enumerate(pairwise(vertebrae)):
        graded = index - _FIRST_GRADED_SEGMENT
        closed = dict.fromkeys(Condition, 0.05)
        if 0 <= graded < len(Level):
            level = list(Level)[graded]
            closed = {
                condition: closure(relative[finding_index(condition, level)]) for condition in Condition
            }
        canal = closed[Condition.SPINAL_CANAL_STENOSIS]
        # Degeneration correlates with stenosis only weakly: a dark disc is not evidence of stenosis.
        degeneration = float(1 / (1 + np.exp(-(rng.normal(0, 1.2) + health + 1.5 * (canal - 0.3)))))
        disc_height = _DISC_HEIGHTS[index] * scale * (1 - 0.3 * degeneration * float(rng.uniform(0.3, 1.0)))
        s_mm += above.height / 2 + disc_height / 2
        segments.append(
            Segment(
                above=above,
                below=below,
                s_mm=s_mm,
                disc_height=disc_height,
                degeneration=degeneration,
                canal=canal,
                foramina=(
                    closed[Condition.LEFT_NEURAL_FORAMINAL_NARROWING],
                    closed[Condition.RIGHT_NEURAL_FORAMINAL_NARROWING],
                ),
                recesses=(
                    closed[Condition.LEFT_SUBARTICULAR_STENOSIS],
                    closed[Condition.RIGHT_SUBARTICULAR_STENOSIS],
                ),
                bulge=float(rng.uniform(0, 1.2)),
                fat_triangle=float(rng.uniform(2.5, 5.0)),
                endplate_change=float(rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.88, 0.07])),
            )
        )
        s_mm += disc_height / 2 + below.height / 2
    return tuple(segments)


def _make_roots(rng: np.random.Generator) -> Array:
    """Draws strand positions, mostly in the back of the sac (the patient is supine), a few in front."""
    num_strands = 12
    across = np.linspace(-0.8, 0.8, num_strands) + rng.normal(0, 0.08, num_strands)
    depth = 0.60 - 0.75 * across**2 - np.abs(rng.normal(0, 0.3, num_strands))
    return np.stack([across, depth], axis=1)


def _rotation(degrees: Array) -> Array:
    """Returns the rotation by small angles about x, y and z, [3, 3]."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
