"""Varied imaging protocols: fields of view, stacks and artefacts as hospitals and pictures have them."""

from collections.abc import Sequence

import numpy as np

from lumbar_tf.config.variety import AcquisitionVariety, VarietyConfig
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.labels import Level, Plane
from lumbar_tf.synthetic.anatomy import Anatomy
from lumbar_tf.synthetic.patch import SyntheticContrast
from lumbar_tf.synthetic.protocol import SeriesPlan, axial_block, into_plane, make_series, square_slice
from lumbar_tf.synthetic.render import Acquisition
from lumbar_tf.synthetic.tissue_signal import draw_signals

#: The middle of the lumbar spine, L3/L4.
_MIDDLE_SEGMENT = 5
#: Largest number of slices of a sparse stack.
_MAX_SPARSE = 10


def plan_varied_series(
    anatomy: Anatomy, variety: VarietyConfig, *, rng: np.random.Generator
) -> tuple[SeriesPlan, ...]:
    """Plans sagittal T1, sagittal T2 and axial T2 series of a study.

    Args:
        anatomy: anatomy of the patient.
        variety: distributions.
        rng: random generator.
    """
    tesla_3 = rng.random() < variety.contrast.tesla_3_rate
    stack, gap_mm = _sagittal_stack(anatomy, variety.acquisition, rng)
    plans = []
    for plane in (Plane.SAGITTAL_T1, Plane.SAGITTAL_T2):
        weighting = SyntheticContrast.T1 if plane is Plane.SAGITTAL_T1 else SyntheticContrast.T2
        thickness_mm = gap_mm * float(rng.uniform(0.7, 1.0))
        acquisition = _acquisition(weighting, variety, tesla_3, thickness_mm, rng)
        plans.append(make_series(plane, stack, gap_mm, acquisition, rng))
    axial, gap_mm = _axial_slices(anatomy, variety.acquisition, rng)
    acquisition = _acquisition(SyntheticContrast.T2, variety, tesla_3, gap_mm, rng)
    plans.append(make_series(Plane.AXIAL_T2, axial, gap_mm, acquisition, rng))
    return tuple(plans)


def _sagittal_stack(
    anatomy: Anatomy, variety: AcquisitionVariety, rng: np.random.Generator
) -> tuple[Sequence[SliceGeometry], float]:
    """Returns the slices, from either side, and their spacing, mm."""
    kind = rng.random()
    gap_mm = float(rng.uniform(3.3, 5.5))
    if kind < variety.sparse_rate:
        count = int(rng.integers(1, 4)) if rng.random() < 0.4 else int(rng.integers(9, 18))
    elif kind < variety.sparse_rate + variety.dense_rate:
        count, gap_mm = int(rng.integers(17, 31)), float(rng.uniform(2.0, 3.3))
    else:
        count = int(rng.integers(9, 16))
    angles = np.radians(rng.normal(0, variety.oblique_sd_deg, 2))
    normal = np.array([1.0, np.tan(angles[0]), np.tan(angles[1])])
    normal /= np.linalg.norm(normal)
    right = into_plane(np.array([0.0, 1.0, 0.0]), normal)
    down = np.cross(normal, right)
    if down[2] > 0:
        down = -down
    size = int(rng.integers(variety.sagittal_px[0], variety.sagittal_px[1] + 1))
    spacing_mm = float(rng.uniform(*variety.field_mm)) / size
    columns = size
    if rng.random() < variety.crop_rate:
        columns = max(96, int(size * rng.uniform(0.45, 0.9)))
    middle = anatomy.to_patient((0, -10, anatomy.segments[_MIDDLE_SEGMENT].s_mm + 5))
    shift = rng.normal(
        0, (variety.off_centre_sd_mm, variety.centre_sd_mm * columns / size, variety.centre_sd_mm)
    )
    centre = middle + shift - right * (size - columns) * spacing_mm * 0.1
    offsets = (np.arange(count) - (count - 1) / 2) * gap_mm
    if kind < variety.sparse_rate and count > _MAX_SPARSE:
        # Only some slices of a stack, as in collections of the annotated ones.
        kept = rng.choice(count, int(rng.integers(2, _MAX_SPARSE + 1)), replace=False)
        offsets = offsets[np.sort(kept)]
    stack = [
        square_slice(centre + offset * normal, right, down, spacing_mm, size, columns) for offset in offsets
    ]
    return (stack if rng.random() < 0.5 else stack[::-1]), gap_mm


def _axial_slices(
    anatomy: Anatomy, variety: AcquisitionVariety, rng: np.random.Generator
) -> tuple[list[SliceGeometry], float]:
    """Returns blocks that are tilted to the discs, and the spacing of their slices, mm."""
    size = int(rng.integers(128, 193))
    spacing_mm = float(rng.uniform(*variety.axial_spacing_mm))
    gap_mm = float(rng.uniform(3.0, 4.5))
    count = int(rng.integers(3, 5))
    turn = np.radians(rng.normal(0, variety.oblique_sd_deg))
    slices: list[SliceGeometry] = []
    for level in Level:
        segment = anatomy.segment(level)
        slices += axial_block(anatomy, segment, size, spacing_mm, gap_mm, count, turn, rng)
    return (slices if rng.random() < 0.85 else slices[::-1]), gap_mm


def _acquisition(
    weighting: SyntheticContrast,
    variety: VarietyConfig,
    tesla_3: bool,
    thickness_mm: float,
    rng: np.random.Generator,
) -> Acquisition:
    """Draws contrast and artefacts of a series."""
    ranges = variety.acquisition

    def often(rate: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high) * (rng.random() < rate))

    depth_mm = np.exp(rng.uniform(*np.log(ranges.coil_depth_mm)))
    return Acquisition(
        weighting=weighting,
        thickness_mm=thickness_mm,
        noise_sd=float(np.exp(rng.uniform(*np.log(ranges.noise_sd)))),
        ghost=often(ranges.ghost_rate, 0.03, 0.2),
        ghost_shift=float(rng.uniform(0.05, 0.5)),
        banding=often(0.05, 0.02, 0.1),
        saturation=often(ranges.saturation_rate, 0.4, 1.0),
        signals=draw_signals(weighting, variety.contrast, tesla_3=tesla_3, rng=rng),
        coil_depth_mm=float(depth_mm),
        coil_centre_mm=float(rng.normal(0, 40)) if rng.random() < 0.5 else None,
        blur_px=float(rng.uniform(0, ranges.blur_px)),
        gamma=float(np.exp2(rng.uniform(-ranges.gamma, ranges.gamma))),
        clip_share=often(ranges.clip_rate, 0.005, 0.08),
        wrap_share=often(ranges.wrap_rate, 0.05, 0.2),
    )
