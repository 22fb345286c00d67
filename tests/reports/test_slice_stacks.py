import io
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Plane
from lumbar_tf.reports.slice_stacks import MAX_BYTES, StackPicture, make_stacks

SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
#: The same plane, stored from the back to the front, from the feet up, and with rows for columns.
TURNED = (((0.0, -1.0, 0.0), (0.0, 0.0, -1.0)), ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
NO_POINTS = np.full((25, 3), np.nan, np.float32)


def _slice(directions: tuple, x: float = 0.0, *, rows: int = 60, columns: int = 80, seed: int = 0) -> Slice:
    pixels = np.random.default_rng(seed).integers(0, 1200, (rows, columns)).astype(np.uint16)
    return Slice(SliceGeometry((x, -20.0, 35.0), *directions, 0.5, 0.8, rows, columns), pixels, "1", 1)


def _only(source: Slice, plane: Plane = Plane.SAGITTAL_T2) -> StackPicture:
    (picture,) = make_stacks(Study("s", "", {plane: (source,)}), NO_POINTS, {})[plane].pictures
    return picture


def _pixels(picture: StackPicture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.jpeg)), np.float64)


def _physical_point(source: Slice, column: float, row: float) -> tuple[float, ...]:
    """Returns the patient position of a stored pixel, by SimpleITK."""
    geometry = source.geometry
    image = sitk.Image(geometry.columns, geometry.rows, 1, sitk.sitkUInt8)
    image.SetOrigin(geometry.position)
    image.SetSpacing((geometry.column_spacing_mm, geometry.row_spacing_mm, 1.0))
    axes = [np.array(geometry.row_direction), np.array(geometry.column_direction)]
    image.SetDirection(np.stack([*axes, np.cross(*axes)], axis=1).ravel().tolist())
    return image.TransformContinuousIndexToPhysicalPoint((column, row, 0.0))


@pytest.mark.parametrize("directions", [SAGITTAL, *TURNED])
@pytest.mark.parametrize("scale", [1, 12])
def test_a_point_is_placed_on_the_same_pixel_as_by_simpleitk(directions: tuple, scale: int) -> None:
    """Locates a bright block after rotation, windowing, JPEG encoding and reduction of a large matrix."""
    source = _slice(directions, rows=60 * scale, columns=80 * scale)
    pixels = np.zeros_like(source.pixels)
    half = 3 * scale
    row, column = 22 * scale, 57 * scale
    pixels[row - half : row + half + 1, column - half : column + half + 1] = 1000
    picture = _only(replace(source, pixels=pixels))
    x, y, distance = picture.place(_physical_point(source, column, row))
    assert distance == pytest.approx(0, abs=1e-9)
    shown = _pixels(picture)
    assert max(shown.shape) <= 512
    weight = np.where(shown > 128, shown, 0)
    down, across = np.mgrid[: shown.shape[0], : shown.shape[1]] + 0.5
    centre = [(part * weight).sum() / weight.sum() for part in (across, down)]
    width, height = picture.size_mm
    expected = (x / width * shown.shape[1], y / height * shown.shape[0])
    np.testing.assert_allclose(centre, expected, atol=0.6)


@pytest.mark.parametrize("directions", TURNED)
def test_however_it_was_stored_the_front_is_at_the_left_and_the_head_above(directions: tuple) -> None:
    picture = _only(_slice(directions))
    x, y, _ = picture.place((0.0, 0.0, 0.0))
    assert picture.place((0.0, 5.0, 0.0))[:2] == pytest.approx((x + 5, y))
    assert picture.place((0.0, 0.0, -5.0))[:2] == pytest.approx((x, y + 5))


def test_an_axial_picture_has_the_patients_left_at_its_right() -> None:
    picture = _only(_slice(((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))), Plane.AXIAL_T2)
    x, y, _ = picture.place((0.0, 0.0, 0.0))
    assert picture.place((5.0, 0.0, 0.0))[:2] == pytest.approx((x + 5, y))
    assert picture.place((0.0, 5.0, 0.0))[:2] == pytest.approx((x, y + 5))


def test_above_the_limit_the_farthest_slices_are_dropped_and_wanted_ones_kept() -> None:
    slices = tuple(_slice(SAGITTAL, 4.0 * place, seed=place) for place in range(20))
    study = Study("s", "", {Plane.SAGITTAL_T2: slices})
    points = NO_POINTS.copy()
    points[3] = (41.0, 0.0, 0.0)
    wanted = {Plane.SAGITTAL_T2: [0, 19]}
    whole = make_stacks(study, points, wanted)[Plane.SAGITTAL_T2]
    assert [picture.index for picture in whole.pictures] == list(range(20))
    size = sum(len(picture.jpeg) for picture in whole.pictures)
    part = make_stacks(study, points, wanted, max_bytes=size // 3)[Plane.SAGITTAL_T2]
    assert part.num_slices == 20
    kept = [picture.index for picture in part.pictures]
    assert kept[0] == 0 and kept[-1] == 19
    # The others are a run of neighbours around the slice nearest to the point, the eleventh.
    run = kept[1:-1]
    assert run == list(range(run[0], run[-1] + 1)) and 10 in run
    assert sum(len(picture.jpeg) for picture in part.pictures) <= size // 3


def test_noise_in_large_matrices_fits_too() -> None:
    """Nothing compresses worse; 60 axial slices, all of them wanted."""
    slices = tuple(_slice(SAGITTAL, 3.0 * place, rows=640, columns=640) for place in range(60))
    stack = make_stacks(
        Study("s", "", {Plane.SAGITTAL_T2: slices}), NO_POINTS, {Plane.SAGITTAL_T2: range(60)}
    )
    pictures = stack[Plane.SAGITTAL_T2].pictures
    assert len(pictures) == 60
    assert sum(len(picture.jpeg) for picture in pictures) <= MAX_BYTES


def test_a_flat_image_has_a_window() -> None:
    source = _slice(SAGITTAL)
    picture = _only(replace(source, pixels=np.full_like(source.pixels, 7)))
    assert np.isfinite(picture.window).all()
    assert np.ptp(_pixels(picture)) == 0
