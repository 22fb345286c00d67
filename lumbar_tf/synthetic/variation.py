"""Varied anatomy: changes of a patient's spine and surroundings that are unrelated to the severities."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from lumbar_tf.config.variety import AnatomyVariety
from lumbar_tf.synthetic.anatomy import (
    Anatomy,
    Array,
    Lesion,
    SchmorlNode,
    Segment,
    Surroundings,
    Vertebra,
)
from lumbar_tf.synthetic.curve import SCOLIOSIS_MM, Curve, draw_turns, make_curve

_SACRAL_DISC = 8  # S1/S2
_LOWEST_DISC = 7  # L5/S1
#: Mean turn between the back walls of L5 and S1, degrees: the canal there has an angle of 130 to 150 degrees.
_SACRAL_KINK_DEG = 36.0
#: Share of the plain patient's turns at the other discs; a patient on the back is less lordotic above.
_LUMBAR_SHARE = 0.75
#: Height and depth of S1 relative to the plain patient's.
_S1_SIZE = (1.12, 1.08)
_NUM_FIELDS, _NUM_WAVES = 4, 6
#: Over this distance along the spine a slip goes from nothing to all.
_SLIP_MM = 4.0


def vary_anatomy(anatomy: Anatomy, variety: AnatomyVariety, rng: np.random.Generator) -> Anatomy:
    """Returns the patient with the same severities and everything else varied.

    Args:
        anatomy: from `make_anatomy`.
        variety: distributions.
        rng: random generator.
    """
    segments = _vary_segments(_vary_bodies(anatomy.segments, variety, rng), variety, rng)
    turns = _LUMBAR_SHARE * draw_turns(rng, lordosis_sd=variety.lordosis_sd)
    wobble = rng.normal(0, variety.turn_sd_deg, len(turns))
    wobble[_LOWEST_DISC:] *= 2
    # The back walls of L5 and S1 meet at a sharper angle than their endplates, as both bodies are wedges.
    turns[_LOWEST_DISC] = rng.normal(_SACRAL_KINK_DEG, 8)
    turns[_SACRAL_DISC] = rng.normal(0, 4)
    is_scoliotic = rng.random() < variety.scoliosis_rate
    cobb = rng.uniform(10, max(10, variety.scoliosis_deg)) if is_scoliotic else abs(rng.normal(0, 4))
    curve = make_curve(
        segments,
        turns + wobble,
        rng,
        tilt_sd_deg=variety.tilt_sd_deg,
        sacral_width_mm=float(rng.uniform(6, 10)),
        # The steepest slopes of a sine, on both sides of its apex, make the Cobb angle.
        bend_mm=float(np.tan(np.radians(min(cobb, variety.scoliosis_deg) / 2)) * SCOLIOSIS_MM),
    )
    moved = segments[_SACRAL_DISC].s_mm - anatomy.segments[_SACRAL_DISC].s_mm
    return replace(
        anatomy,
        segments=segments,
        curve=curve,
        conus_s=anatomy.conus_s + float(rng.normal(0, 12)),
        sac_end_s=anatomy.sac_end_s + moved + float(rng.normal(0, 8)),
        fat_mm=float(np.clip(rng.gamma(2.5, 10.0), 4, 90)),
        muscle_fat=float(rng.beta(1.2, 1.6)),
        marrow_fat=float(rng.normal(0, 0.12)),
        slip_mm=_draw_slips(segments, curve, variety, rng),
        lesions=_draw_lesions(segments, variety, rng),
        surroundings=_draw_surroundings(rng),
    )


def _vary_bodies(
    segments: tuple[Segment, ...], variety: AnatomyVariety, rng: np.random.Generator
) -> tuple[Segment, ...]:
    """Changes the bodies' sizes and the discs' heights and puts the segments in a row again."""
    canal = float(np.exp(rng.normal(0, 0.06)))
    bodies = []
    for body in [segments[0].above, *(segment.below for segment in segments)]:
        height, depth = np.exp(rng.normal(0, variety.size_sd, 2))
        if body.name == "S1":
            height, depth = height * _S1_SIZE[0], depth * _S1_SIZE[1]
        if rng.random() < variety.fracture_rate and not body.is_sacral:
            height *= rng.uniform(0.5, 0.85)
        bodies.append(_resized(body, height=float(height), depth=float(depth), canal=canal))
    placed = []
    s_mm = 0.0
    for index, (segment, (above, below)) in enumerate(zip(segments, pairwise(bodies), strict=True)):
        disc_height = segment.disc_height * float(np.exp(rng.normal(0, 0.12)))
        if rng.random() < variety.collapse_rate:
            disc_height *= float(rng.uniform(0.35, 0.7))
        if index == _SACRAL_DISC:
            is_transitional = rng.random() < variety.transitional_rate
            disc_height = float(rng.uniform(5.0, 8.5) if is_transitional else rng.uniform(1.5, 4.5))
        s_mm += above.height / 2 + disc_height / 2
        placed.append(replace(segment, above=above, below=below, s_mm=s_mm, disc_height=disc_height))
        s_mm += disc_height / 2 + below.height / 2
    return tuple(placed)


def _resized(body: Vertebra, *, height: float, depth: float, canal: float) -> Vertebra:
    return replace(
        body,
        height=body.height * height,
        depth=body.depth * depth,
        sac_half_width=body.sac_half_width * canal,
        sac_back=body.sac_front + (body.sac_back - body.sac_front) * canal,
    )


def _vary_segments(
    segments: tuple[Segment, ...], variety: AnatomyVariety, rng: np.random.Generator
) -> tuple[Segment, ...]:
    """Draws what is local to a disc."""
    spurs = abs(rng.normal(0, 1.5))
    removed = _a_run_of(segments, rng.random() < variety.laminectomy_rate, rng)
    screwed = _a_run_of(segments, rng.random() < variety.metal_rate, rng)
    varied = []
    for index, segment in enumerate(segments):
        is_changed = rng.random() < variety.endplate_rate
        nodes = tuple(
            SchmorlNode(
                u=float(rng.normal(0, 8)),
                v=float(rng.uniform(-0.8, -0.2) * segment.above.depth),
                radius_mm=float(rng.uniform(2.5, 6)),
                depth_mm=float(rng.uniform(1.5, 5)),
                is_above=is_above,
            )
            for is_above in (True, False)
            if rng.random() < variety.node_rate
        )
        varied.append(
            replace(
                segment,
                degeneration=float(np.clip(segment.degeneration + rng.normal(0, 0.15), 0, 1)),
                endplate_change=float(rng.uniform(-1, 1)) if is_changed else 0.0,
                nodes=nodes,
                spur_mm=float(spurs * rng.uniform(0, 2)),
                front_opening_mm=float(rng.normal(0.5, 1.0)),
                bulge=float(rng.uniform(0, 2.0)),
                fat_triangle=float(rng.uniform(1.5, 6.5)),
                is_laminectomy=index in removed,
                has_screws=index in screwed,
            )
        )
    return tuple(varied)


def _a_run_of(segments: tuple[Segment, ...], exists: bool, rng: np.random.Generator) -> range:
    """Returns one to three neighbouring lumbar segments, or none."""
    first, count = int(rng.integers(4, _LOWEST_DISC + 1)), int(rng.integers(1, 4))
    return range(first, min(first + count, _LOWEST_DISC + 1)) if exists else range(0)


def _draw_slips(
    segments: tuple[Segment, ...], curve: Curve, variety: AnatomyVariety, rng: np.random.Generator
) -> Array | None:
    """Draws slips of the upper body to the front, some to the back, and adds them up towards the head."""
    slip = np.zeros_like(curve.s)
    for segment in segments[4 : _LOWEST_DISC + 1]:
        if rng.random() < variety.slip_rate:
            by_mm = rng.uniform(2, variety.slip_mm) * (1 if rng.random() < 0.75 else -0.6)
            slip += by_mm / (1 + np.exp(np.clip((curve.s - segment.s_mm) / (_SLIP_MM / 2), -50, 50)))
    return slip if slip.any() else None


def _draw_lesions(
    segments: tuple[Segment, ...], variety: AnatomyVariety, rng: np.random.Generator
) -> tuple[Lesion, ...]:
    return tuple(
        Lesion(
            centre=(
                float(rng.normal(0, 8)),
                float(rng.uniform(-0.8, -0.2) * segment.below.depth),
                segment.s_range[1] + float(rng.normal(0, 4)),
            ),
            radius_mm=float(rng.uniform(3, 11)),
            brightness=float(rng.choice([rng.uniform(1.2, 2.0), rng.uniform(0.3, 0.8)], p=[0.75, 0.25])),
        )
        for segment in segments
        if rng.random() < variety.lesion_rate
    )


def _draw_surroundings(rng: np.random.Generator) -> Surroundings:
    wavelengths_mm = np.array([90.0, 45.0, 28.0, 14.0])[:, None] * np.exp(
        rng.normal(0, 0.25, (_NUM_FIELDS, _NUM_WAVES))
    )
    directions = rng.normal(0, 1, (_NUM_FIELDS, _NUM_WAVES, 3))
    directions *= (2 * np.pi / (wavelengths_mm * np.linalg.norm(directions, axis=-1)))[..., None]
    phases = rng.uniform(0, 2 * np.pi, (_NUM_FIELDS, _NUM_WAVES, 1))
    return Surroundings(
        waves=np.concatenate([directions, phases], axis=-1),
        front_mm=float(rng.uniform(70, 190)),
        mixture=rng.dirichlet((2.0, 1.0, 0.7)),
        organ_signal=float(rng.uniform(-0.2, 1.2)),
        aorta=(float(rng.normal(8, 6)), float(rng.uniform(9, 18)), float(rng.uniform(6, 11))),
        cava=(float(rng.normal(-15, 5)), float(rng.uniform(8, 16)), float(rng.uniform(6, 12))),
        spinous_mm=float(rng.normal(50, 4)),
    )
