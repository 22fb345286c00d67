from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_tf.dicom.geometry import SliceGeometry, pixel_to_patient
from lumbar_tf.dicom.study import Slice
from lumbar_tf.reports.slice_pictures import choose_slice, resample_slice, turn_upright

TILT = np.deg2rad(14)
AXIAL = ((1.0, 0.0, 0.0), (0.0, float(np.cos(TILT)), float(np.sin(TILT))))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def _smooth(rows: int, columns: int) -> np.ndarray:
    row, column = np.mgrid[:rows, :columns]
    return (100 + 40 * np.sin(row / 7) + 30 * np.cos(column / 5 + 0.3) + column).astype(np.float32)


def _slice(
    directions: tuple, *, position: tuple = (-20.0, -15.0, 30.0), rows: int = 90, columns: int = 110
) -> Slice:
    geometry = SliceGeometry(position, *directions, 0.7, 0.6, rows, columns)
    return Slice(geometry, _smooth(rows, columns), "1", 1)


def _reversed_columns(source: Slice) -> Slice:
    """The same picture, stored from the other end."""
    old = source.geometry
    position = pixel_to_patient(old, (old.columns - 1, 0))
    row_direction = tuple(-value for value in old.row_direction)
    geometry = replace(old, position=tuple(position), row_direction=row_direction)
    return Slice(geometry, source.pixels[:, ::-1].copy(), "1", 1)


@pytest.mark.parametrize(("directions", "is_sagittal"), [(AXIAL, False), (SAGITTAL, True)])
def test_resampling_agrees_with_simpleitk_on_the_same_patient_grid(
    directions: tuple, is_sagittal: bool
) -> None:
    source = _slice(directions)
    around = pixel_to_patient(source.geometry, (50, 40)) + 3 * source.geometry.normal
    resampled = resample_slice(source, around, size_mm=(30.0, 24.0), is_sagittal=is_sagittal)
    image = sitk.GetImageFromArray(source.pixels[np.newaxis])
    stored_normal = np.cross(*directions)
    image.SetOrigin(source.geometry.position)
    image.SetSpacing((0.6, 0.7, 1.0))
    image.SetDirection(np.stack([*map(np.array, directions), stored_normal], axis=1).ravel().tolist())
    height, width = resampled.image.shape
    across, along = (np.arange(width) - (width - 1) / 2) * 0.5, (np.arange(height) - (height - 1) / 2) * 0.5
    for i, j in [(0, 0), (width - 1, 0), (7, height - 1), (width // 2, height // 2)]:
        point = resampled.centre + resampled.right * across[i] + resampled.down * along[j]
        expected = image.EvaluateAtPhysicalPoint(point.tolist(), sitk.sitkLinear)
        assert resampled.image[j, i] == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(("directions", "is_sagittal"), [(AXIAL, False), (SAGITTAL, True)])
def test_storage_order_does_not_change_the_picture(directions: tuple, is_sagittal: bool) -> None:
    source = _slice(directions)
    around = source.geometry.centre
    first = resample_slice(source, around, size_mm=(30.0, 24.0), is_sagittal=is_sagittal)
    second = resample_slice(_reversed_columns(source), around, size_mm=(30.0, 24.0), is_sagittal=is_sagittal)
    np.testing.assert_allclose(first.image, second.image, atol=1e-3)


def test_left_is_at_the_right_of_an_axial_view_and_the_back_at_the_right_of_a_sagittal_one() -> None:
    axial = resample_slice(_slice(AXIAL), np.zeros(3), size_mm=(20, 20), is_sagittal=False)
    assert axial.place(axial.centre + (5, 0, 0))[:2] == pytest.approx((5, 0))
    assert axial.place(axial.centre + (0, 5, 0))[1] > 4
    sagittal = resample_slice(_slice(SAGITTAL), np.zeros(3), size_mm=(20, 20), is_sagittal=True)
    assert sagittal.place(sagittal.centre + (2, 5, 7)) == pytest.approx((5, -7, 2))


def test_pixels_outside_the_stored_image_are_nan() -> None:
    source = _slice(SAGITTAL)
    resampled = resample_slice(source, np.array(source.geometry.position), size_mm=(10, 10), is_sagittal=True)
    assert np.isnan(resampled.image[:9, :9]).all()
    assert np.isfinite(resampled.image[11:, 11:]).all()


def test_the_nearest_slice_that_holds_the_points_is_chosen() -> None:
    slices = [_slice(SAGITTAL, position=(x, -15.0, 30.0)) for x in (-8.0, -4.0, 0.0, 4.0)]
    # Nearer to x = 3, but its image ends above the points.
    slices.append(_slice(SAGITTAL, position=(3.0, -15.0, 30.0), rows=4))
    inside = np.array([[3.0, 0.0, 10.0], [3.2, 0.0, 0.0], [np.nan, 0, 0]], np.float32)
    assert choose_slice(slices, inside, max_distance_mm=10) is slices[3]
    assert choose_slice(slices[:3], inside, max_distance_mm=2) is None
    assert choose_slice(slices, np.full((5, 3), np.nan, np.float32), max_distance_mm=10) is None
    assert choose_slice(slices, inside + np.float32(500), max_distance_mm=10) is None


@pytest.mark.parametrize(("directions", "is_sagittal"), [(AXIAL, False), (SAGITTAL, True)])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("is_flipped", [False, True])
def test_an_upright_slice_has_every_pixel_where_it_was(
    directions: tuple, is_sagittal: bool, turns: int, is_flipped: bool
) -> None:
    """All eight ways to store a slice lead to one picture at one place."""
    source = _slice(directions)
    stored = _reversed_columns(source) if is_flipped else source
    for _ in range(turns):
        stored = _turned(stored)
    upright = turn_upright(stored, is_sagittal=is_sagittal)
    np.testing.assert_array_equal(upright.pixels, source.pixels)
    np.testing.assert_allclose(upright.geometry.position, source.geometry.position, atol=1e-9)
    np.testing.assert_allclose(upright.geometry.row_direction, directions[0], atol=1e-9)
    np.testing.assert_allclose(upright.geometry.column_direction, directions[1], atol=1e-9)
    spacing = (upright.geometry.row_spacing_mm, upright.geometry.column_spacing_mm)
    assert spacing == (source.geometry.row_spacing_mm, source.geometry.column_spacing_mm)


def _turned(source: Slice) -> Slice:
    """The same picture, stored a quarter turn on: its last column becomes the first row."""
    old = source.geometry
    geometry = SliceGeometry(
        tuple(pixel_to_patient(old, (old.columns - 1, 0))),
        old.column_direction,
        tuple(-value for value in old.row_direction),
        old.column_spacing_mm,
        old.row_spacing_mm,
        old.columns,
        old.rows,
    )
    return Slice(geometry, np.rot90(source.pixels).copy(), "1", 1)
