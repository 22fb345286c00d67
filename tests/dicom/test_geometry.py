"""Geometry compared with SimpleITK and highdicom, and properties of the slice order."""

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from highdicom.spatial import PixelToReferenceTransformer, ReferenceToPixelTransformer
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar_tf.dicom.geometry import (
    SliceGeometry,
    canonical_axes,
    canonical_normal,
    mirror_geometry,
    order_slices,
    patient_to_pixel,
    pixel_to_patient,
)

_LENGTHS = st.floats(-300, 300)
_SPACINGS = st.floats(0.1, 5)


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*angles)
    return np.array(transform.GetMatrix()).reshape(3, 3)


@st.composite
def geometries(draw: Any) -> SliceGeometry:
    # Whole milliradians: on 5e-324 rad SimpleITK's own matrix inverse gives NaN.
    axes = _rotation(draw(st.tuples(*[st.integers(-3000, 3000).map(lambda item: item / 1000)] * 3)))
    return SliceGeometry(
        position=draw(st.tuples(_LENGTHS, _LENGTHS, _LENGTHS)),
        row_direction=tuple(axes[:, 0].tolist()),
        column_direction=tuple(axes[:, 1].tolist()),
        row_spacing_mm=draw(_SPACINGS),
        column_spacing_mm=draw(_SPACINGS),
        rows=40,
        columns=30,
    )


def _sitk_image(geometry: SliceGeometry) -> sitk.Image:
    """Returns a one-slice volume; ITK's index is (column, row, slice), its world space LPS mm."""
    image = sitk.Image(geometry.columns, geometry.rows, 1, sitk.sitkUInt8)
    image.SetOrigin(geometry.position)
    image.SetSpacing((geometry.column_spacing_mm, geometry.row_spacing_mm, 1.0))
    normal = np.cross(geometry.row_direction, geometry.column_direction)
    axes = np.stack([geometry.row_direction, geometry.column_direction, normal], axis=1)
    image.SetDirection(axes.ravel().tolist())
    return image


@settings(max_examples=60)
@given(geometries(), st.floats(-5, 45), st.floats(-5, 45))
def test_pixel_to_patient_agrees_with_simpleitk(geometry: SliceGeometry, column: float, row: float) -> None:
    expected = _sitk_image(geometry).TransformContinuousIndexToPhysicalPoint((column, row, 0.0))
    np.testing.assert_allclose(pixel_to_patient(geometry, (column, row)), expected, atol=1e-6)


@settings(max_examples=60)
@given(geometries(), st.tuples(_LENGTHS, _LENGTHS, _LENGTHS))
def test_patient_to_pixel_agrees_with_simpleitk(
    geometry: SliceGeometry, point: tuple[float, float, float]
) -> None:
    column, row, depth = _sitk_image(geometry).TransformPhysicalPointToContinuousIndex(point)
    found = patient_to_pixel(geometry, point)
    np.testing.assert_allclose(found[:2], (column, row), atol=1e-5)
    # ITK's third axis is the cross product; ours points where the patient says.
    assert abs(found[2]) == pytest.approx(abs(depth), abs=1e-6)
    foot = pixel_to_patient(geometry, found[:2]) + found[2] * geometry.normal
    np.testing.assert_allclose(foot, point, atol=1e-6)


@settings(max_examples=30)
@given(geometries(), st.integers(0, 29), st.integers(0, 39))
def test_both_mappings_agree_with_highdicom(geometry: SliceGeometry, column: int, row: int) -> None:
    orientation = (*geometry.row_direction, *geometry.column_direction)
    spacing = (geometry.row_spacing_mm, geometry.column_spacing_mm)
    to_patient = PixelToReferenceTransformer(geometry.position, orientation, spacing)
    expected = to_patient(np.array([[column, row]]))[0]
    found = pixel_to_patient(geometry, (column, row))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    to_pixel = ReferenceToPixelTransformer(geometry.position, orientation, spacing)
    assert to_pixel(found[np.newaxis])[0].tolist()[:2] == [column, row]
    np.testing.assert_allclose(patient_to_pixel(geometry, found), (column, row, 0), atol=1e-6)


@given(geometries())
def test_normals_do_not_depend_on_the_direction_of_the_axes(geometry: SliceGeometry) -> None:
    row, column = np.array(geometry.row_direction), np.array(geometry.column_direction)
    for turned in ((row, column), (-row, column), (row, -column), (column, row)):
        np.testing.assert_allclose(np.abs(canonical_normal(*turned)), np.abs(geometry.normal), atol=1e-12)
    assert geometry.normal[np.argmax(np.abs(geometry.normal))] > 0


@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.booleans())
def test_canonical_axes_are_orthonormal_and_face_the_patient(a: float, b: float, is_sagittal: bool) -> None:
    normal = np.array([1.0, a, b] if is_sagittal else [a, b, 1.0])
    normal /= np.linalg.norm(normal)
    right, down = canonical_axes(normal, is_sagittal=is_sagittal)
    np.testing.assert_allclose(
        np.array([right, down, normal]) @ np.array([right, down, normal]).T, np.eye(3), atol=1e-12
    )
    assert (right[1] if is_sagittal else right[0]) > 0
    assert (-down[2] if is_sagittal else down[1]) > 0


@given(geometries(), st.floats(0, 29), st.floats(0, 39))
def test_mirroring_negates_x_only(geometry: SliceGeometry, column: float, row: float) -> None:
    point = pixel_to_patient(geometry, (column, row))
    mirrored = pixel_to_patient(mirror_geometry(geometry), (column, row))
    np.testing.assert_allclose(mirrored, point * (-1, 1, 1), atol=1e-9)
    assert mirror_geometry(mirror_geometry(geometry)) == geometry


def _axial(z: float, tilt: float = 0.0) -> SliceGeometry:
    column_direction = (0.0, float(np.cos(tilt)), float(np.sin(tilt)))
    return SliceGeometry((0.0, 0.0, z), (1.0, 0.0, 0.0), column_direction, 0.5, 0.5, 4, 4)


@given(st.permutations(range(12)))
def test_order_comes_from_geometry_not_from_the_input(order: list[int]) -> None:
    # Three blocks of four, tilted by 0.2 rad, listed by place along the spine.
    blocks = [
        _axial(z0 + step, tilt) for z0, tilt in ((0, -0.2), (30, 0.0), (60, 0.2)) for step in (0, 4, 8, 12)
    ]
    groups = order_slices([blocks[index] for index in order])
    assert [[order[index] for index in group] for group in groups] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


@given(st.lists(geometries(), max_size=8))
def test_groups_are_a_partition(slices: list[SliceGeometry]) -> None:
    groups = order_slices(slices)
    assert sorted(index for group in groups for index in group) == list(range(len(slices)))


def test_a_slice_with_reversed_axes_is_in_the_same_group() -> None:
    turned = SliceGeometry((0, 0, 5), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), 0.5, 0.5, 4, 4)
    assert order_slices([_axial(9), turned, _axial(1)]) == [[2, 1, 0]]
