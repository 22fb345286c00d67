from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import CropConfig
from lumbar_tf.data.crops import (
    Crops,
    Warp,
    cut_crops,
    identity_warp,
    keep_slices,
    select_slices,
)
from lumbar_tf.imaging.geometry import canonical_axes, patient_to_pixel
from lumbar_tf.imaging.study import Slice
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
    kept = keep_slices(record, tf.range(tf.shape(record["slices/group"])[0]))
    crops = cut_crops(
        kept, tf.constant(points), config=config, plane=plane, sides=sides, warp=warp or identity_warp()
    )
    return Crops(*(each.numpy() for each in crops))


def _resample(
    each: Slice,
    centre: NDArray[np.float64],
    right: NDArray[np.float64],
    down: NDArray[np.float64],
    pitch_mm: float,
) -> NDArray[np.float32]:
    """SimpleITK's linear resampling of one slice onto the crop's patient grid."""
    geometry, size = each.geometry, CONFIG.side_px

    def directions(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[float]:
        return np.stack([first, second, np.cross(first, second)], axis=1).ravel().tolist()

    image = sitk.GetImageFromArray(each.pixels[np.newaxis])
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


def _foot(each: Slice, point: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(point) - each.geometry.normal * patient_to_pixel(each.geometry, point)[2]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tilt", [0.0, 18.0])
def test_a_crop_is_what_simpleitk_resamples_on_the_same_patient_grid(
    make_stack: Stacks, store: Store, make_record: Records, plane: Plane, order: str, tilt: float
) -> None:
    slices = [store(each, order) for each in make_stack(plane, tilt=tilt)]
    record = make_record(plane, slices)
    crops = _cut(record, [POINT, POINT], plane, (Side.LEFT, Side.RIGHT))
    assert crops.mask.all()
    distances = [patient_to_pixel(each.geometry, POINT)[2] for each in slices]
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
    chosen = slices[int(np.argmin([abs(patient_to_pixel(each.geometry, POINT)[2]) for each in slices]))]
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
    mirrored = [store(mirror(each), order) for each in slices]
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


def test_several_series_keep_their_own_intensity_range(make_stack: Stacks, make_record: Records) -> None:
    slices = make_stack(Plane.AXIAL_T2, count=3)
    brighter = [
        Slice(each.geometry, each.pixels * 3 + 100, "2", each.instance_number)
        for each in make_stack(Plane.AXIAL_T2, count=3)
    ]
    first = _cut(make_record(Plane.AXIAL_T2, slices), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    second = _cut(make_record(Plane.AXIAL_T2, brighter), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    np.testing.assert_allclose(first.image, second.image, atol=1e-3)


def _select(
    record: dict[str, tf.Tensor],
    points: list[tuple[float, ...]],
    num_slices: int = 3,
    plane: Plane = Plane.AXIAL_T2,
) -> tuple:
    selection = select_slices(
        record,
        tf.constant(points, tf.float32),
        num_slices=num_slices,
        max_distance_mm=6.0,
        plane=plane,
        reverse=tf.zeros(len(points), tf.bool),
    )
    return tuple(each.numpy() for each in selection)


def test_the_nearest_plane_wins_over_all_groups_and_neighbours_stay_in_its_group(
    make_slice: Callable[..., Slice], make_record: Records
) -> None:
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    tilted = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.2)), float(np.sin(0.2)))
    pixels = np.arange(40 * 40).reshape(40, 40)
    slices = [
        make_slice((0, 0, z), orientation=orientation, pixels=pixels, series_id=series)
        for series, orientation, heights in (
            ("a", axial, (0.0, 4.0, 8.0)),
            ("a", tilted, (20.0, 24.0)),
            ("b", axial, (1.5, 30.0)),
        )
        for z in heights
    ]
    record = make_record(Plane.AXIAL_T2, slices)
    assert record["slices/group"].numpy().tolist() == [0, 0, 0, 1, 1, 2, 2]
    points = [
        (5.0, 5.0, 4.3),  # series a's second
        (5.0, 5.0, 8.5),  # its last: no neighbour above
        (5.0, 5.0, 1.2),  # series b's first: no neighbour below
        (5.0, 0.0, 20.0),  # in the tilted block's first plane
        (5.0, 5.0, 14.5),  # 6.5 mm and more from every plane
        (5.0, 300.0, 4.0),  # in the plane but beside the image
        (float("nan"), 5.0, 4.0),
    ]
    index, mask, offset = _select(record, points)
    assert index[:4, 1].tolist() == [1, 2, 5, 3]
    assert mask.tolist() == [
        [True, True, True],
        [True, True, False],
        [False, True, True],
        [False, True, True],
        [False] * 3,
        [False] * 3,
        [False] * 3,
    ]
    np.testing.assert_allclose(offset[0], [-4.3, -0.3, 3.7], atol=1e-5)
    np.testing.assert_allclose(offset[2], [0.0, 0.3, 28.8], atol=1e-5)
    assert (offset[~mask] == 0).all()
    assert index.min() >= 0
    assert index.max() <= 6


def test_more_neighbours_than_there_are_slices_are_masked(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.SAGITTAL_T2, make_stack(Plane.SAGITTAL_T2, count=3))
    _, mask, _ = _select(record, [(0.0, 0.0, 0.0)], num_slices=7, plane=Plane.SAGITTAL_T2)
    assert mask.tolist() == [[False, False, True, True, True, False, False]]


def test_midway_between_two_slices_a_mirrored_patient_gets_the_same_slice(
    make_stack: Stacks, make_record: Records, mirror: Callable[[Slice], Slice]
) -> None:
    slices = make_stack(Plane.SAGITTAL_T1, count=6)
    record = make_record(Plane.SAGITTAL_T1, slices)
    other = make_record(Plane.SAGITTAL_T1, [mirror(each) for each in slices])
    first, second = record["slices/position"].numpy()[1:3]
    point = (first + second) / 2 + [0.0, 1.0, -1.0]
    index, _, _ = _select(record, [tuple(point)], plane=Plane.SAGITTAL_T1)
    turned, _, _ = _select(other, [tuple(point * [-1.0, 1.0, 1.0])], plane=Plane.SAGITTAL_T1)
    chosen = record["slices/position"].numpy()[index[0, 1]]
    np.testing.assert_allclose(
        other["slices/position"].numpy()[turned[0, 1]] * [-1.0, 1.0, 1.0], chosen, atol=1e-4
    )


def test_coronal_slices_among_the_axials_are_passed_over(
    make_slice: Callable[..., Slice], make_record: Records
) -> None:
    pixels = np.arange(40 * 40).reshape(40, 40)
    coronal = make_slice(
        (0, 5, 10), orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0), pixels=pixels, series_id="a"
    )
    axial = make_slice((0, 0, 3.0), orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), pixels=pixels, series_id="b")
    point = [(5.0, 5.0, 1.0)]  # in the coronal plane, 2 mm from the axial one
    index, mask, _ = _select(make_record(Plane.AXIAL_T2, [coronal, axial]), point)
    assert index[0, 1] == 1
    assert mask[0].tolist() == [False, True, False]
    _, mask, _ = _select(make_record(Plane.AXIAL_T2, [coronal]), point)
    assert not mask.any()


def test_of_a_reduced_record_only_true_neighbours_are_used(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.SAGITTAL_T1, make_stack(Plane.SAGITTAL_T1, count=7))
    kept = keep_slices(record, tf.constant([0, 1, 3, 4]))
    middle = record["slices/position"].numpy()[3]
    _, mask, _ = _select(kept, [tuple(middle + 1.0)], plane=Plane.SAGITTAL_T1)
    assert mask[0].tolist() == [False, True, True]


def test_masked_crops_are_black(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.SAGITTAL_T1, make_stack(Plane.SAGITTAL_T1))
    crops = _cut(record, [(np.nan,) * 3, (500.0, 0.0, 0.0)], Plane.SAGITTAL_T1, (Side.LEFT, Side.RIGHT))
    assert not crops.mask.any()
    assert not crops.image.any()
    assert not crops.offset_mm.any()


def test_only_the_slices_asked_for_are_kept_in_order(make_stack: Stacks, make_record: Records) -> None:
    slices = make_stack(Plane.SAGITTAL_T1, size=12)
    record = make_record(Plane.SAGITTAL_T1, slices)
    kept = keep_slices(record, tf.constant([5, 2, 5]))
    assert kept["pixels"].shape == (2, 12, 12)
    for place, index in enumerate((2, 5)):
        np.testing.assert_array_equal(kept["pixels"][place], slices[index].pixels)
        np.testing.assert_array_equal(kept["slices/position"][place], record["slices/position"][index])


def test_slices_of_other_sizes_are_padded_and_cut_the_same(make_stack: Stacks, make_record: Records) -> None:
    small = make_stack(Plane.AXIAL_T2, size=40)
    large = make_stack(Plane.AXIAL_T2, size=64, series_id="2")
    # The large series lies elsewhere, so that crops come from the small one in both records.
    far = [
        Slice(
            type(each.geometry)(
                tuple(np.array(each.geometry.position) + (0, 0, 200)),
                each.geometry.row_direction,
                each.geometry.column_direction,
                1.3,
                1.1,
                64,
                64,
            ),
            each.pixels,
            "2",
            each.instance_number,
        )
        for each in large
    ]
    alone = _cut(make_record(Plane.AXIAL_T2, small), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    beside = _cut(make_record(Plane.AXIAL_T2, small + far), [POINT], Plane.AXIAL_T2, (Side.LEFT,))
    np.testing.assert_array_equal(alone.image, beside.image)


def test_cutting_works_inside_a_dataset(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.AXIAL_T2, make_stack(Plane.AXIAL_T2))

    def cut(each: dict[str, tf.Tensor]) -> tf.Tensor:
        kept = keep_slices(each, tf.range(7))
        points = tf.constant([POINT])
        return cut_crops(
            kept, points, config=CONFIG, plane=Plane.AXIAL_T2, sides=(Side.LEFT,), warp=identity_warp()
        ).image

    (image,) = tf.data.Dataset.from_tensors(record).map(cut)
    np.testing.assert_allclose(image, _cut(record, [POINT], Plane.AXIAL_T2, (Side.LEFT,)).image, atol=1e-6)
