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
from scipy.ndimage import gaussian_filter

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.background import paint_background
from lumbar_tf.synthetic.bones import (
    paint_bodies,
    paint_disc,
    paint_facets,
    paint_pillar,
    paint_sacral_bone,
    paint_screw,
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

#: Distance along z in which the sensitivity of a short coil falls to 1/e.
_COIL_LENGTH_MM = 220.0


def paint_segment(patch: Patch, anatomy: Anatomy, segment: Segment) -> None:
    """Paints all structures of a motion segment, in order from the back to the front."""
    if segment.above.is_sacral or segment.below.is_sacral:
        paint_sacral_bone(patch, segment)
    if not segment.above.is_sacral:
        if not segment.is_laminectomy and (part := patch.within((-15, 15), (4, 54))):
            paint_spinous(part, anatomy, segment)
        for sign, recess, foramen in zip((1, -1), segment.recesses, segment.foramina):
            beside = (7.0, 27.0) if sign > 0 else (-27.0, -7.0)
            if part := patch.within(beside, (-10, 26)):
                paint = paint_pillar if anatomy.surroundings is None else paint_facets
                paint(part, segment, sign=sign, growth=1.2 * (recess + foramen))
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
    if segment.has_screws:
        for sign in (1, -1):
            paint_screw(patch, segment, sign=sign)


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
        signals: signal of each tissue; None takes those of the weighting.
        coil_depth_mm: depth in which the coil's sensitivity halves; None takes that of `shading`.
        coil_centre_mm: position of the coil along z, with a sensitivity that falls off towards head and
            feet; None for a coil as long as the image.
        blur_px: standard deviation of a Gaussian blur, in pixels.
        gamma: exponent of the stored picture.
        clip_share: share of the brightest pixels that are clipped.
        wrap_share: share of the image, on the belly's side, that is added to the other side.
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
    signals: Mapping[Tissue, float] | None = None
    coil_depth_mm: float | None = None
    coil_centre_mm: float | None = None
    blur_px: float = 0.0
    gamma: float = 1.0
    clip_share: float = 0.0
    wrap_share: float = 0.0


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
    contrast = acquisition.signals or CONTRAST[acquisition.weighting]
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
    if acquisition.coil_depth_mm is None:
        gain = 1.35 * np.exp2(-acquisition.shading * depth / 90)
    else:
        gain = 1.35 * np.exp2(-depth / acquisition.coil_depth_mm)
    if acquisition.coil_centre_mm is not None:
        gain = gain * np.exp(-(((places.cartesian[2] - acquisition.coil_centre_mm) / _COIL_LENGTH_MM) ** 2))
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
    if acquisition.wrap_share > 0:
        width = max(1, int(acquisition.wrap_share * image.shape[1]))
        image = image.copy()
        image[:, -width:] += 0.7 * image[:, :width]
    if acquisition.blur_px > 0:
        image = gaussian_filter(image, acquisition.blur_px)
    if rng is not None:
        # Magnitude of a complex signal with Gaussian noise in both parts: Rician.
        noise = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(acquisition.noise_sd)
        image = np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
    if acquisition.clip_share > 0:
        image = np.minimum(image, np.quantile(image[::4, ::4], 1 - acquisition.clip_share))
    if acquisition.gamma != 1:
        image = np.maximum(image, 0) ** np.float32(acquisition.gamma)
    return image.astype(np.float32)
