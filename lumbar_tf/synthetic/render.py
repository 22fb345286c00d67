"""Renders the anatomy through any slice plane.

Planes of one study agree because all are cut from the same scene. A slice has a thickness, so a
few thin sub-slices are averaged (partial volume). It is quick because each segment is painted only
inside the pixels that show it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.coordinates import Coordinates, spine_coordinates
from lumbar_tf.synthetic.patch import (
    CONTRAST,
    WINDOW_STRIDE,
    Field,
    Patch,
    SyntheticContrast,
    bounding_window,
)
from lumbar_tf.synthetic.scene import paint_segment
from lumbar_tf.synthetic.surroundings import paint_background


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
        anatomy: the patient.
        geometry: the slice's pixels in patient space.
        acquisition: contrast, thickness, noise and artefacts.
        rng: the noise; None renders without any.

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
        # Each pixel of each sub-slice belongs to exactly one segment, so the changes add up.
        change = (patch.image - base[None, rows, columns]) * own
        image[rows, columns] += change.sum(axis=0) * np.float32(1 / len(offsets))
    image *= _coil(anatomy, places, acquisition)
    return _add_artefacts(image, acquisition, rng)


def _sub_slice_offsets(acquisition: Acquisition) -> NDArray[np.float64]:
    """Returns the sub-slices' distances from the slice's middle, mm."""
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
