"""Curve of the spine's axis: lordosis, tilt and scoliosis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lumbar_tf.synthetic.anatomy import Segment

Array = NDArray[np.float64]

_S_STEP_MM = 1.0
# Turn of each segment backwards, degrees, T10/T11 to S3/S4: about 55 degrees of lordosis from T12 to S1, then
# the sacrum's kyphosis.
_TURNS_DEGREES = (-4.0, -2.0, 3.0, 6.0, 8.0, 11.0, 15.0, 16.0, 2.0, -12.0, -16.0)
#: Length over which a scoliosis bends by one radian of its sine, mm.
SCOLIOSIS_MM = 70.0
_REFERENCE_SEGMENT = 5  # L3/L4 is at the origin of spine space


@dataclass(frozen=True)
class Curve:
    """Curve of the back wall of the bodies, sampled every millimetre of s.

    Attributes:
        s: arc length, [n], increasing towards the feet.
        x: sideways position, [n].
        y: position to the back, [n].
        z: position to the head, [n], decreasing.
        angle: angle between the curve and straight down, radians, [n], positive if it runs backwards.
    """

    s: Array
    x: Array
    y: Array
    z: Array
    angle: Array


def make_curve(
    segments: "Sequence[Segment]",
    turns_deg: Array,
    rng: np.random.Generator,
    *,
    tilt_sd_deg: float = 4.0,
    bend_mm: float | None = None,
    sacral_width_mm: float = 10.0,
) -> Curve:
    """Makes the curve of a spine.

    Args:
        segments: its segments.
        turns_deg: turn of the curve to the back at each disc, [segment].
        rng: random generator of the tilt and the scoliosis.
        tilt_sd_deg: standard deviation of the tilt of the whole spine.
        bend_mm: amplitude of the scoliosis; None draws a slight one.
        sacral_width_mm: length over which the curve turns at L5/S1.
    """
    s = np.arange(-60.0, segments[-1].s_range[1] + 60.0, _S_STEP_MM)
    turning = np.zeros_like(s)  # radians per mm
    for segment, turn in zip(segments, turns_deg):
        # Most of the turn is at the disc, but smoothed: a sharp kink would fold the space behind it.
        is_lowest = segment.below.is_sacral and not segment.above.is_sacral
        width = sacral_width_mm if is_lowest else 10.0
        bell = np.exp(-0.5 * ((s - segment.s_mm) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        turning += np.radians(turn) * bell
    angle = np.cumsum(turning) * _S_STEP_MM
    reference = segments[_REFERENCE_SEGMENT].s_mm
    angle += np.radians(rng.normal(0, tilt_sd_deg)) - np.interp(reference, s, angle)
    y = np.cumsum(np.sin(angle)) * _S_STEP_MM
    z = -np.cumsum(np.cos(angle)) * _S_STEP_MM
    bend = rng.normal(0, 3.0) if bend_mm is None else bend_mm
    x = bend * np.sin((s - reference) / SCOLIOSIS_MM + rng.uniform(0, 2 * np.pi))
    centred = [axis - np.interp(reference, s, axis) for axis in (x, y, z)]
    return Curve(s=s, x=centred[0], y=centred[1], z=centred[2], angle=angle)


def draw_turns(rng: np.random.Generator, *, lordosis_sd: float = 0.15) -> Array:
    """Draws the turn of the curve at each disc, degrees, [segment]."""
    return np.array(_TURNS_DEGREES) * rng.normal(1.0, lordosis_sd)
