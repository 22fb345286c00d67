from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.dicom.geometry import patient_to_pixel
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.slice_decoding import PixelWindow, decode_slices, whole_window, window_around
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import parse_example
from lumbar_tf.records.schema import PixelEncoding, encode_plane

Stacks = Callable[..., list[Slice]]
Records = Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]


def test_only_the_given_slices_are_kept_in_order(make_stack: Stacks, make_record: Records) -> None:
    slices = make_stack(Plane.SAGITTAL_T1, size=12)
    record = make_record(Plane.SAGITTAL_T1, slices)
    kept = decode_slices(record, tf.constant([5, 2, 5]))
    assert kept["pixels"].shape == (2, 12, 12)
    for place, index in enumerate((2, 5)):
        np.testing.assert_array_equal(kept["pixels"][place], slices[index].pixels)
        np.testing.assert_array_equal(kept["slices/position"][place], record["slices/position"][index])


@pytest.mark.parametrize("codec", PixelEncoding)
@pytest.mark.parametrize(("first", "end"), [((0, 0), (12, 20)), ((3, 5), (9, 11)), ((10, 15), (12, 20))])
def test_window_equals_numpy_slicing_with_zero_padding(
    make_slice: Callable[..., Slice], codec: PixelEncoding, first: tuple[int, int], end: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    large = make_slice((0, 0, 0), pixels=rng.integers(1, 900, (12, 20)), series_id="a")
    small = make_slice((4, 0, 0), pixels=rng.integers(1, 900, (8, 9)), series_id="b")
    record = parse_example(encode_plane("1", Plane.SAGITTAL_T1, [large, small], codec=codec))
    assert [corner.numpy().tolist() for corner in whole_window(record)] == [[0, 0], [12, 20]]
    window = PixelWindow(tf.constant(first, tf.int64), tf.constant(end, tf.int64))
    kept = decode_slices(record, tf.constant([0, 1]), window)
    assert kept["pixels/first"].numpy().tolist() == list(first)
    for place, image_slice in enumerate((large, small)):
        padded = np.zeros((12, 20), np.uint16)
        padded[: image_slice.pixels.shape[0], : image_slice.pixels.shape[1]] = image_slice.pixels
        expected = padded[first[0] : end[0], first[1] : end[1]]
        np.testing.assert_array_equal(kept["pixels"][place], expected)


def test_window_covers_the_reach_around_each_point(make_stack: Stacks, make_record: Records) -> None:
    slices = make_stack(Plane.AXIAL_T2, tilt=12.0, size=64)
    points = [(2.0, -3.0, 1.0), (-4.0, 6.0, -3.0), (np.nan, 0.0, 0.0), (0.0, 0.0, 900.0)]
    record = make_record(Plane.AXIAL_T2, slices)
    first, end = window_around(record, tf.constant(points, tf.float32), reach_mm=7.0, depth_mm=60.0)
    rows, columns = [], []
    for image_slice in slices:
        for point in points[:2]:
            column, row, _ = patient_to_pixel(image_slice.geometry, point)
            rows += [
                row - 7 / image_slice.geometry.row_spacing_mm,
                row + 7 / image_slice.geometry.row_spacing_mm,
            ]
            columns += [
                column - 7 / image_slice.geometry.column_spacing_mm,
                column + 7 / image_slice.geometry.column_spacing_mm,
            ]
    assert min(rows) > 0
    assert max(columns) < 63
    # What lies between two pixels needs both.
    assert first.numpy().tolist() == [np.floor(min(rows)), np.floor(min(columns))]
    assert end.numpy().tolist() == [np.floor(max(rows)) + 2, np.floor(max(columns)) + 2]


@pytest.mark.parametrize("point", [(np.nan,) * 3, (1e9, 0.0, 0.0), (0.0, 1e9, -1e9), (0.0, -200.0, 0.0)])
def test_window_without_points_is_one_pixel(
    make_stack: Stacks, make_record: Records, point: tuple[float, ...]
) -> None:
    record = make_record(Plane.AXIAL_T2, make_stack(Plane.AXIAL_T2, size=32))
    first, end = window_around(record, tf.constant([point], tf.float32), reach_mm=7.0, depth_mm=60.0)
    assert (first >= 0).numpy().all()
    assert (end <= 32).numpy().all()
    assert (end > first).numpy().all()
    assert decode_slices(record, tf.constant([1]), PixelWindow(first, end))["pixels"].shape[0] == 1
