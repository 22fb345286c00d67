from dataclasses import replace

import numpy as np
import pytest

from lumbar_tf.dicom.geometry import SliceGeometry, mirror_geometry, patient_to_pixel
from lumbar_tf.labels import FINDINGS, Condition, Finding, Level, Plane
from lumbar_tf.synthetic import (
    Acquisition,
    Anatomy,
    SyntheticContrast,
    landmark,
    make_anatomy,
    mirror_anatomy,
)
from lumbar_tf.synthetic.protocol import Resolution, SeriesPlan, plan_series
from lumbar_tf.synthetic.render import render_slice
from lumbar_tf.synthetic.severity import thresholds

CANAL_L4 = Finding(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
T1 = Acquisition(SyntheticContrast.T1, shading=0.0)
T2 = Acquisition(SyntheticContrast.T2, shading=0.0)


def patient(seed: int = 0, **relative: float) -> Anatomy:
    """Returns a healthy patient except for given findings, such as `spinal_canal_stenosis_l4_l5=1.5`."""
    cuts = thresholds()
    values = np.array([relative.get(finding.name, -2.0) for finding in FINDINGS])
    return make_anatomy(cuts[:, 0] + values * (cuts[:, 1] - cuts[:, 0]), np.random.default_rng(seed))


def series(anatomy: Anatomy, plane: Plane, seed: int = 0) -> SeriesPlan:
    """Returns the plan of a plane, from the first of several protocols that has it."""
    for attempt in range(seed, seed + 20):
        for plan in plan_series(anatomy, Resolution.SMALL, rng=np.random.default_rng(attempt)):
            if plan.plane is plane:
                return plan
    raise AssertionError("no protocol has the plane")


def nearest(plan: SeriesPlan, point: np.ndarray) -> SliceGeometry:
    return min(
        (geometry for _, geometry in plan.slices),
        key=lambda geometry: abs(patient_to_pixel(geometry, point)[2]),
    )


def around(image: np.ndarray, geometry: SliceGeometry, point: np.ndarray, radius_mm: float) -> np.ndarray:
    column, row, _ = patient_to_pixel(geometry, point)
    rows, columns = np.mgrid[: geometry.rows, : geometry.columns]
    distance = np.hypot(rows - row, columns - column) * geometry.row_spacing_mm
    return image[distance < radius_mm]


@pytest.mark.parametrize(("plane", "acquisition"), [(Plane.SAGITTAL_T1, T1), (Plane.AXIAL_T2, T2)])
def test_the_mirrored_patient_through_the_mirrored_slice_is_the_same_picture(
    plane: Plane, acquisition: Acquisition
) -> None:
    anatomy = patient(right_neural_foraminal_narrowing_l4_l5=1.5, left_subarticular_stenosis_l3_l4=1.5)
    point = landmark(anatomy, Finding(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, Level.L4_L5))
    geometry = nearest(series(anatomy, plane), point)
    image = render_slice(anatomy, geometry, acquisition, rng=None)
    mirrored = render_slice(mirror_anatomy(anatomy), mirror_geometry(geometry), acquisition, rng=None)
    np.testing.assert_allclose(mirrored, image, atol=2e-3)
    assert image.std() > 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_narrow_left_foramen_loses_its_fat_at_plus_x(seed: int) -> None:
    healthy, narrow = patient(seed), patient(seed, left_neural_foraminal_narrowing_l4_l5=1.5)
    for condition, is_changed in (
        (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, True),
        (Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, False),
    ):
        point = landmark(healthy, Finding(condition, Level.L4_L5))
        geometry = nearest(series(healthy, Plane.SAGITTAL_T1, seed), point)
        before, after = (
            around(render_slice(anatomy, geometry, T1, rng=None), geometry, point, 8.0)
            for anatomy in (healthy, narrow)
        )
        if is_changed:
            assert (after > 0.7).mean() < 0.5 * (before > 0.7).mean()
        else:
            np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("plane", [Plane.SAGITTAL_T2, Plane.AXIAL_T2])
def test_all_planes_show_csf_at_the_canal_point(plane: Plane) -> None:
    for seed in range(3):
        anatomy = patient(seed)
        for level in (Level.L2_L3, Level.L3_L4, Level.L4_L5):
            point = landmark(anatomy, Finding(Condition.SPINAL_CANAL_STENOSIS, level))
            geometry = nearest(series(anatomy, plane), point)
            image = render_slice(anatomy, geometry, T2, rng=None)
            inside = around(image, geometry, point, 5.0)
            # Brighter than everything within 4 cm except a little fat.
            assert np.percentile(inside, 60) > np.percentile(around(image, geometry, point, 40.0), 85)


def test_a_tighter_canal_shows_less_csf_on_both_planes() -> None:
    for plane in (Plane.SAGITTAL_T2, Plane.AXIAL_T2):
        areas = []
        for relative in (-1.0, 0.0, 0.5, 1.0, 1.5):
            anatomy = patient(2, spinal_canal_stenosis_l4_l5=relative)
            point = landmark(patient(2), CANAL_L4)
            geometry = nearest(series(patient(2), plane), point)
            image = render_slice(anatomy, geometry, replace(T2, thickness_mm=2.0), rng=None)
            areas.append(float((around(image, geometry, point, 6.0) > 0.8).mean()))
        assert areas == sorted(areas, reverse=True)
        assert areas[-1] < 0.6 * areas[0]


def test_a_narrow_recess_darkens_its_own_corner() -> None:
    healthy, crowded = patient(1), patient(1, left_subarticular_stenosis_l4_l5=1.5)
    changes = []
    for condition in (Condition.LEFT_SUBARTICULAR_STENOSIS, Condition.RIGHT_SUBARTICULAR_STENOSIS):
        point = landmark(healthy, Finding(condition, Level.L4_L5))
        geometry = nearest(series(healthy, Plane.AXIAL_T2), point)
        before, after = (
            around(render_slice(anatomy, geometry, T2, rng=None), geometry, point, 4.0).mean()
            for anatomy in (healthy, crowded)
        )
        changes.append(before - after)
    assert changes[0] > 0.15
    assert abs(changes[1]) < 0.02


def test_noise_depends_on_the_generator_only() -> None:
    anatomy = patient()
    geometry = nearest(series(anatomy, Plane.AXIAL_T2), landmark(anatomy, CANAL_L4))
    first, same, other = (
        render_slice(anatomy, geometry, T2, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.dtype == np.float32
    assert first.shape == (geometry.rows, geometry.columns)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01
    assert first.min() >= 0
