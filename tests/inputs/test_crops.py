from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import CropConfig
from lumbar_tf.dicom.geometry import canonical_axes, patient_to_pixel
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crops import Crops, Warp, cut_crops, identity_warp, resample
from lumbar_tf.inputs.slice_decoding import PixelWindow, decode_slices
from lumbar_tf.labels import Plane, Side

Stacks = Callable[..., list[Slice]]
Store = Callable[[Slice, str], Slice]
Records = Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]

CONFIG = CropConfig(side_mm=22.0, side_px=20, num_slices=3, max_distance_mm=6.0)
PLANES = (Plane.AXIAL_T2, Plane.SAGITTAL_T1)
ORDERS = ("plain", "columns", "rows", "transposed")
POINT = (2.5, -3.0, 1.7)


def _cut(
    record: dict[str, tf.Tensor],
    points: list[tuple[float, ...]],
    plane: Plane,
    sides: tuple[Side | None, ...],
    warp: Warp | None = None,
    *,
    config: CropConfig = CONFIG,
) -> Crops:
    kept = decode_slices(record, tf.range(tf.shape(record["slices/group"])[0]))
    crops = cut_crops(
        kept, tf.constant(points), config=config, plane=plane, sides=sides, warp=warp or identity_warp()
    )
    return Crops(*(array.numpy() for array in crops))


def _resample(
    image_slice: Slice,
    centre: NDArray[np.float64],
    right: NDArray[np.float64],
    down: NDArray[np.float64],
    pitch_mm: float,
) -> NDArray[np.float32]:
    """SimpleITK's linear resampling of one slice onto the crop's patient grid."""
    geometry, size = image_slice.geometry, CONFIG.side_px

    def directions(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[float]:
        return np.stack([first, second, np.cross(first, second)], axis=1).ravel().tolist()

    image = sitk.GetImageFromArray(image_slice.pixels[np.newaxis])
    image.SetOrigin(geometry.position)
    image.SetSpacing((geometry.column_spacing_mm, geometry.row_spacing_mm, 1.0))
    image.SetDirection(directions(np.array(geometry.row_direction), np.array(geometry.column_direction)))
    grid = sitk.Image(size, size, 1, sitk.sitkFloat32)
    grid.SetOrigin((centre - (right + down) * pitch_mm * (size - 1) / 2).tolist())
    grid.SetSpacing((pitch_mm, pitch_mm, 1.0))
    grid.SetDirection(directions(right, down))
    return sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, -1e6))[0]


def _scaled(values: NDArray[np.float32], record: dict[str, tf.Tensor]) -> NDArray[np.float64]:
    low, high = float(record["series/low"][0]), float(record["series/high"][0])
    return np.clip((values - low) / (high - low), 0.0, 1.5)


def _foot(image_slice: Slice, point: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(point) - image_slice.geometry.normal * patient_to_pixel(image_slice.geometry, point)[2]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tilt", [0.0, 18.0])
def test_crops_equal_simpleitk_resampling_on_the_same_patient_grid(
    make_stack: Stacks, store: Store, make_record: Records, plane: Plane, order: str, tilt: float
) -> None:
    slices = [store(image_slice, order) for image_slice in make_stack(plane, tilt=tilt)]
    record = make_record(plane, slices)
    crops = _cut(record, [POINT, POINT], plane, (Side.LEFT, Side.RIGHT))
    assert crops.mask.all()
    distances = [patient_to_pixel(image_slice.geometry, POINT)[2] for image_slice in slices]
    middle = int(np.argmin(np.abs(distances)))
    for place, index in enumerate((middle - 1, middle, middle + 1)):
        chosen = slices[index]
        right, down = canonical_axes(chosen.geometry.normal, is_sagittal=plane.is_sagittal)
        expected = _scaled(_resample(chosen, _foot(chosen, POINT), right, down, 1.1), record)
        np.testing.assert_allclose(crops.image[0, place], expected, atol=2e-4)
        assert crops.offset_mm[0, place] == pytest.approx(-distances[index], abs=1e-4)
        # The right side is mirrored to look left: axial pictures turned, sagittal stacks read backwards.
        if plane.is_sagittal:
            np.testing.assert_allclose(crops.image[1, 2 - place], expected, atol=2e-4)
            assert crops.offset_mm[1, 2 - place] == pytest.approx(distances[index], abs=1e-4)
        else:
            np.testing.assert_allclose(crops.image[1, place, :, ::-1], expected, atol=2e-4)


@pytest.mark.parametrize("plane", PLANES)
def test_a_warp_rotates_zooms_and_shifts_the_patient_grid(
    make_stack: Stacks, make_record: Records, plane: Plane
) -> None:
    slices = make_stack(plane, tilt=10.0)
    record = make_record(plane, slices)
    angle, zoom, shift = 0.5, 1.2, (2.0, -3.0)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = tf.constant([[cosine, -sine], [sine, cosine]], tf.float32) * zoom
    crops = _cut(record, [POINT], plane, (Side.LEFT,), Warp(matrix, tf.constant(shift)))
    chosen = slices[
        int(np.argmin([abs(patient_to_pixel(image_slice.geometry, POINT)[2]) for image_slice in slices]))
    ]
    right, down = canonical_axes(chosen.geometry.normal, is_sagittal=plane.is_sagittal)
    turned = right * cosine + down * sine, down * cosine - right * sine
    centre = _foot(chosen, POINT) + right * shift[0] + down * shift[1]
    expected = _scaled(_resample(chosen, centre, *turned, 1.1 * zoom), record)
    np.testing.assert_allclose(crops.image[0, 1], expected, atol=2e-4)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_mirrored_study_gives_the_same_crop_for_the_other_side(
    make_stack: Stacks,
    store: Store,
    mirror: Callable[[Slice], Slice],
    make_record: Records,
    plane: Plane,
    order: str,
) -> None:
    slices = make_stack(plane, tilt=12.0)
    mirrored = [store(mirror(image_slice), order) for image_slice in slices]
    other = (-POINT[0], *POINT[1:])
    angle = 0.3
    warp = Warp(
        tf.constant([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], tf.float32),
        tf.constant([1.0, 2.0]),
    )
    first = _cut(make_record(plane, slices), [POINT, POINT], plane, (Side.LEFT, Side.RIGHT), warp)
    second = _cut(make_record(plane, mirrored), [other, other], plane, (Side.RIGHT, Side.LEFT), warp)
    np.testing.assert_allclose(first.image, second.image, atol=2e-4)
    np.testing.assert_array_equal(first.mask, second.mask)
    np.testing.assert_allclose(first.offset_mm, second.offset_mm, atol=1e-4)
    assert np.abs(first.image[0] - first.image[1]).mean() > 0.05  # the two sides do not look alike


@pytest.mark.parametrize("plane", PLANES)
def test_without_mirroring_both_sides_see_the_same_crop_of_one_point(
    make_stack: Stacks, make_record: Records, plane: Plane
) -> None:
    record = make_record(plane, make_stack(plane, tilt=12.0))
    config = CONFIG.model_copy(update={"mirror_right": False})
    crops = _cut(record, [POINT, POINT], plane, (Side.LEFT, Side.RIGHT), config=config)
    np.testing.assert_array_equal(crops.image[0], crops.image[1])
    np.testing.assert_array_equal(crops.offset_mm[0], crops.offset_mm[1])


def _whole_slices(kept: dict[str, tf.Tensor], index: tf.Tensor, affine: tf.Tensor) -> NDArray[np.float32]:
    """Returns crops from whole slices, without a window and a shifted affine."""
    values = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(tf.gather(kept["pixels"], index), tf.float32)[..., tf.newaxis],
        transforms=affine,
        output_shape=tf.constant([CONFIG.side_px] * 2),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )[..., 0]
    return _scaled(values.numpy(), kept)


#: Middles of crops in pixels of a slice of 90 x 70: inside, at each edge and corner, and off the picture.
_PLACES = [
    (45, 35),
    (0, 0),
    (69, 89),
    (0, 89),
    (69, 0),
    (-0.5, 40),
    (69.5, 40),
    (30, -8),
    (30, 97),
    (-300, 2e4),
]


@pytest.mark.parametrize("angle_deg", [0.0, 10.0, 45.0, 90.0, 170.0, -100.0])
@pytest.mark.parametrize("zoom", [0.3, 1.0, 2.5, 9.0])
def test_crops_from_partial_rows_equal_crops_from_whole_slices(
    make_slice: Callable[..., Slice], make_record: Records, angle_deg: float, zoom: float
) -> None:
    rng = np.random.default_rng(0)
    # Stored values that are far from 0, so that a wrong filling shows.
    slices = [make_slice((4.0 * place, 0, 0), pixels=rng.integers(500, 1500, (90, 70))) for place in range(3)]
    record = make_record(Plane.SAGITTAL_T1, slices)
    whole = decode_slices(record, tf.range(3))
    size, angle = CONFIG.side_px, np.deg2rad(angle_deg)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    affine = np.zeros((len(_PLACES), 8), np.float32)
    for number, place in enumerate(_PLACES):
        affine[number, :6] = np.column_stack([matrix, place - matrix @ np.full(2, (size - 1) / 2)]).ravel()
    index = tf.constant(np.arange(len(_PLACES)) % 3, tf.int32)
    expected = _whole_slices(whole, index, tf.constant(affine))
    found = resample(whole, index, tf.constant(affine), size).numpy()
    # A coordinate of float32 is right to 4e-6 here, and neighbouring pixels differ by the whole range.
    np.testing.assert_allclose(found[:-1], expected[:-1], atol=3e-5)
    assert (found[-1] == expected[-1]).all()
    assert 0 < found[1:5].mean() < 1.2
    # Cut out of a window that holds what the first crop needs, the crop is the same.
    corner = np.abs(matrix).sum(axis=1) * size / 2
    first = np.maximum(np.floor(np.array(_PLACES[0]) - corner), 0)[::-1]
    end = np.minimum(np.ceil(np.array(_PLACES[0]) + corner) + 1, (70, 90))[::-1]
    window = PixelWindow(tf.constant(first, tf.int64), tf.constant(end, tf.int64))
    part = resample(decode_slices(record, tf.range(3), window), index[:1], tf.constant(affine[:1]), size)
    np.testing.assert_allclose(part[0], expected[0], atol=3e-5)


def test_several_series_keep_their_own_intensity_range(make_stack: Stacks, make_record: Records) -> None:
    slices = make_stack(Plane.AXIAL_T2, count=3)
    brighter = [
        Slice(image_slice.geometry, image_slice.pixels * 3 + 100, "2", image_slice.instance_number)
        for image_slice in make_stack(Plane.AXIAL_T2, count=3)
    ]
    first = _cut(make_record(Plane.AXIAL_T2, slices), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    second = _cut(make_record(Plane.AXIAL_T2, brighter), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    np.testing.assert_allclose(first.image, second.image, atol=1e-3)


def test_masked_crops_are_black(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.SAGITTAL_T1, make_stack(Plane.SAGITTAL_T1))
    crops = _cut(record, [(np.nan,) * 3, (500.0, 0.0, 0.0)], Plane.SAGITTAL_T1, (Side.LEFT, Side.RIGHT))
    assert not crops.mask.any()
    assert not crops.image.any()
    assert not crops.offset_mm.any()


def test_slices_of_other_sizes_are_padded_and_cut_the_same(make_stack: Stacks, make_record: Records) -> None:
    small = make_stack(Plane.AXIAL_T2, size=40)
    large = make_stack(Plane.AXIAL_T2, size=64, series_id="2")
    # The large series lies elsewhere, so that crops come from the small one in both records.
    far = [
        Slice(
            type(image_slice.geometry)(
                tuple(np.array(image_slice.geometry.position) + (0, 0, 200)),
                image_slice.geometry.row_direction,
                image_slice.geometry.column_direction,
                1.3,
                1.1,
                64,
                64,
            ),
            image_slice.pixels,
            "2",
            image_slice.instance_number,
        )
        for image_slice in large
    ]
    alone = _cut(make_record(Plane.AXIAL_T2, small), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    beside = _cut(make_record(Plane.AXIAL_T2, small + far), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    # Some processors add in another order for another number of pixels.
    np.testing.assert_allclose(alone.image, beside.image, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_cutting_works_inside_a_dataset(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.AXIAL_T2, make_stack(Plane.AXIAL_T2))

    def cut(item: dict[str, tf.Tensor]) -> tf.Tensor:
        kept = decode_slices(item, tf.range(7))
        points = tf.constant([POINT])
        return cut_crops(
            kept, points, config=CONFIG, plane=Plane.AXIAL_T2, sides=(Side.LEFT,), warp=identity_warp()
        ).image

    (image,) = tf.data.Dataset.from_tensors(record).map(cut)
    np.testing.assert_allclose(image, _cut(record, [POINT], Plane.AXIAL_T2, (Side.LEFT,)).image, atol=1e-6)


def test_crops_of_few_slices_do_not_reach_the_other_side(
    make_slice: Callable[..., Slice], make_record: Records
) -> None:
    # Two slices at the right foramina (x < 0 in LPS), two at the left, none between.
    positions = (-22.0, -18.0, 15.0, 20.0)
    pixels = np.ones((40, 40))
    slices = [
        make_slice((x, 0.0, 0.0), pixels=pixels * x, instance_number=place)
        for place, x in enumerate(positions, start=1)
    ]
    record = make_record(Plane.SAGITTAL_T1, slices)
    points, sides = [(-18.5, 10.0, -10.0), (16.0, 10.0, -10.0)], (Side.RIGHT, Side.LEFT)
    config = CONFIG.model_copy(update={"num_slices": 5, "max_offset_mm": 20.0})
    _, mask, offset = _cut(record, points, Plane.SAGITTAL_T1, sides, config=config)
    # From medial to lateral.
    assert mask.tolist() == [[False, False, True, True, False], [False, False, True, True, False]]
    np.testing.assert_allclose(offset[0, 2:4], [-0.5, 3.5], atol=1e-4)
    np.testing.assert_allclose(offset[1, 2:4], [-1.0, 4.0], atol=1e-4)
    _, unlimited, _ = _cut(
        record, points, Plane.SAGITTAL_T1, sides, config=config.model_copy(update={"max_offset_mm": 100.0})
    )
    assert unlimited[0].tolist() == [True, True, True, True, False]
