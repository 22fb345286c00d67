"""Imaging protocol of synthetic studies: series and slice positions.

It follows the RSNA 2024 studies: sagittal T1 and T2 with the same slices, numbered from either side; one or
sometimes two axial series with a tilted block of slices for each disc; matrices and spacings that differ
between studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.labels import Level, Plane
from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.patch import SyntheticContrast
from lumbar_tf.synthetic.render import Acquisition

Array = NDArray[np.float64]

# Fractions of the 1,975 RSNA studies.
_TWO_AXIAL_SERIES_RATE = 0.17
_LEFT_AT_HIGHER_INSTANCE_RATE = 0.66
#: Irregular studies (a missing T1 or T2, a second T1) and gaps in the numbering are ten times as frequent as
#: in the RSNA data, so that a cohort of some dozens of studies has one.
_IRREGULAR_STUDY_RATE = 0.05
_NUMBERING_GAP_RATE = 0.02


class Resolution(Enum):
    """Resolution of the images."""

    FULL = "full"
    SMALL = "small"


@dataclass(frozen=True)
class _Matrix:
    """Ranges of the random draws of a resolution: lower and upper bound, mm or counts."""

    sagittal_px: tuple[int, ...]
    sagittal_field_mm: tuple[float, float]
    sagittal_slices: tuple[int, int]
    axial_px: tuple[int, ...]
    axial_spacing_mm: tuple[float, float]
    axial_slices: tuple[int, int]
    axial_gap_mm: tuple[float, float]


_MATRICES = {
    Resolution.FULL: _Matrix(
        (384, 448, 512), (260, 300), (15, 19), (320,), (0.48, 0.55), (8, 12), (2.8, 3.1)
    ),
    Resolution.SMALL: _Matrix(
        (192, 208, 224), (255, 285), (11, 13), (128, 144, 160), (1.0, 1.1), (4, 6), (3.5, 4.0)
    ),
}


@dataclass(frozen=True)
class SeriesPlan:
    """A series before rendering.

    Attributes:
        plane: plane of the series description.
        slices: (InstanceNumber, geometry) in the order of the numbers.
        spacing_mm: value of SpacingBetweenSlices.
        acquisition: contrast, thickness, noise.
        peak: pixel value of signal 1.
    """

    plane: Plane
    slices: tuple[tuple[int, SliceGeometry], ...]
    spacing_mm: float
    acquisition: Acquisition
    peak: float


def plan_series(
    anatomy: Anatomy, resolution: Resolution, *, rng: np.random.Generator
) -> tuple[SeriesPlan, ...]:
    """Plans the series of a study.

    Args:
        anatomy: anatomy of the patient; slices are centred on the spine, and blocks are tilted to the discs.
        resolution: full as in the RSNA data, or small for demos and tests.
        rng: random generator of the variation between studies.
    """
    matrix = _MATRICES[resolution]
    planes = [Plane.SAGITTAL_T1, Plane.SAGITTAL_T2]
    if rng.random() < _IRREGULAR_STUDY_RATE:
        planes = [[Plane.SAGITTAL_T2], [Plane.SAGITTAL_T1], [Plane.SAGITTAL_T1, *planes]][rng.integers(3)]
    stack = _sagittal_stack(anatomy, matrix, rng)
    if rng.random() > _LEFT_AT_HIGHER_INSTANCE_RATE:
        stack = stack[::-1]
    gap_mm = abs(float((np.asarray(stack[1].position) - np.asarray(stack[0].position)) @ stack[0].normal))
    plans = []
    for plane in planes:
        weighting = SyntheticContrast.T1 if plane is Plane.SAGITTAL_T1 else SyntheticContrast.T2
        plans.append(make_series(plane, stack, gap_mm, _acquisition(weighting, rng, thickness_mm=4.0), rng))
    blocks = [list(Level)]
    if rng.random() < _TWO_AXIAL_SERIES_RATE:
        first_of_second = int(rng.integers(1, 4))
        blocks = [list(Level)[: first_of_second + int(rng.integers(0, 2))], list(Level)[first_of_second:]]
    for levels in blocks:
        plans.append(_axial_series(anatomy, matrix, levels, rng))
    return tuple(plans)


def _axial_series(
    anatomy: Anatomy, matrix: _Matrix, levels: Sequence[Level], rng: np.random.Generator
) -> SeriesPlan:
    size = int(rng.choice(matrix.axial_px))
    spacing_mm = float(rng.uniform(*matrix.axial_spacing_mm))
    gap_mm = float(rng.uniform(*matrix.axial_gap_mm))
    count = int(rng.integers(matrix.axial_slices[0], matrix.axial_slices[1] + 1))
    turn = np.radians(rng.normal(0, 2))  # in-plane rotation by the technologist
    slices: list[SliceGeometry] = []
    for level in levels:
        slices += axial_block(anatomy, anatomy.segment(level), size, spacing_mm, gap_mm, count, turn, rng)
    if rng.random() < 0.15:
        slices = slices[::-1]
    acquisition = _acquisition(SyntheticContrast.T2, rng, thickness_mm=3.5)
    # The tag contains the nominal gap, which deviates by some tenths of a millimetre, as in the real studies.
    return make_series(Plane.AXIAL_T2, slices, gap_mm + 0.6, acquisition, rng)


def _acquisition(
    weighting: SyntheticContrast, rng: np.random.Generator, *, thickness_mm: float
) -> Acquisition:
    acquisition = Acquisition(
        weighting=weighting,
        thickness_mm=thickness_mm,
        noise_sd=float(rng.uniform(0.015, 0.04)),
        shading=float(rng.uniform(0.3, 1.0)),
        saturation=float(rng.uniform(0.5, 1.0) * (rng.random() < 0.6)),
    )
    if rng.random() < 0.1:
        acquisition = replace(acquisition, ghost=float(rng.uniform(0.02, 0.06)))
    if rng.random() < 0.05:
        acquisition = replace(acquisition, banding=0.04)
    return acquisition


def make_series(
    plane: Plane,
    slices: Sequence[SliceGeometry],
    spacing_mm: float,
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> SeriesPlan:
    """Numbers slices, sometimes with a gap, and draws the series' brightness."""
    numbers = np.arange(1, len(slices) + 1)
    if rng.random() < _NUMBERING_GAP_RATE and len(slices) > 1:
        numbers[rng.integers(1, len(slices)) :] += 1
    return SeriesPlan(
        plane=plane,
        slices=tuple((int(number), geometry) for number, geometry in zip(numbers, slices)),
        spacing_mm=spacing_mm,
        acquisition=acquisition,
        peak=float(rng.uniform(400, 900)),
    )


def _sagittal_stack(anatomy: Anatomy, matrix: _Matrix, rng: np.random.Generator) -> list[SliceGeometry]:
    """Returns sagittal slices from the patient's right to left."""
    size = int(rng.choice(matrix.sagittal_px))
    spacing_mm = float(rng.uniform(*matrix.sagittal_field_mm)) / size
    count = int(rng.integers(matrix.sagittal_slices[0], matrix.sagittal_slices[1] + 1))
    gap_mm = float(rng.uniform(4.4, 4.6))
    normal = np.array([1.0, 0.0, 0.0]) + rng.normal(0, 0.03, 3)
    normal /= np.linalg.norm(normal)
    right = into_plane(np.array([0.0, 1.0, 0.0]), normal)
    down = np.cross(normal, right)
    if down[2] > 0:
        down = -down
    middle = anatomy.segments[5]
    centre = anatomy.to_patient((0, -10, middle.s_mm + 5)) + rng.normal((0, 0, 0), (1.5, 8, 6))
    offsets = (np.arange(count) - (count - 1) / 2) * gap_mm
    return [square_slice(centre + offset * normal, right, down, spacing_mm, size) for offset in offsets]


def axial_block(
    anatomy: Anatomy,
    segment: Segment,
    size: int,
    spacing_mm: float,
    gap_mm: float,
    count: int,
    turn: float,
    rng: np.random.Generator,
) -> list[SliceGeometry]:
    """Returns the slices through one disc, from head to feet."""
    normal = anatomy.axis_direction(segment.s_mm) + rng.normal(0, 0.03, 3)
    normal /= np.linalg.norm(normal)
    right = into_plane(np.array([np.cos(turn), np.sin(turn), 0.0]), normal)
    down = np.cross(normal, right)
    centre = anatomy.to_patient((0, 5, segment.s_mm)) + rng.normal(0, 1.2, 3)
    offsets = ((count - 1) / 2 - np.arange(count)) * gap_mm
    return [square_slice(centre + offset * normal, right, down, spacing_mm, size) for offset in offsets]


def into_plane(direction: Array, normal: Array) -> Array:
    """Returns the unit vector of a direction's part in the plane with this unit normal, [3]."""
    flat = direction - normal * (direction @ normal)
    return flat / np.linalg.norm(flat)


def square_slice(
    centre: Array, right: Array, down: Array, spacing_mm: float, size: int, columns: int | None = None
) -> SliceGeometry:
    """Returns a slice of square pixels around a centre, [size, columns or size]."""
    columns = columns or size
    corner = centre - (right * (columns - 1) + down * (size - 1)) * (spacing_mm / 2)
    return SliceGeometry(
        position=(float(corner[0]), float(corner[1]), float(corner[2])),
        row_direction=(float(right[0]), float(right[1]), float(right[2])),
        column_direction=(float(down[0]), float(down[1]), float(down[2])),
        row_spacing_mm=spacing_mm,
        column_spacing_mm=spacing_mm,
        rows=size,
        columns=columns,
    )
