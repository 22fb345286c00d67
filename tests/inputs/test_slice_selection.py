from collections.abc import Callable

import numpy as np
import tensorflow as tf

from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.slice_decoding import decode_slices
from lumbar_tf.inputs.slice_selection import select_slices
from lumbar_tf.labels import Plane

Stacks = Callable[..., list[Slice]]
Records = Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]


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
    return tuple(array.numpy() for array in selection)


def test_nearest_slice_is_from_any_group_and_neighbours_from_its_group(
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


def test_missing_neighbours_are_masked(make_stack: Stacks, make_record: Records) -> None:
    record = make_record(Plane.SAGITTAL_T2, make_stack(Plane.SAGITTAL_T2, count=3))
    _, mask, _ = _select(record, [(0.0, 0.0, 0.0)], num_slices=7, plane=Plane.SAGITTAL_T2)
    assert mask.tolist() == [[False, False, True, True, True, False, False]]


def test_equidistant_slices_are_selected_symmetrically(
    make_stack: Stacks, make_record: Records, mirror: Callable[[Slice], Slice]
) -> None:
    slices = make_stack(Plane.SAGITTAL_T1, count=6)
    record = make_record(Plane.SAGITTAL_T1, slices)
    other = make_record(Plane.SAGITTAL_T1, [mirror(image_slice) for image_slice in slices])
    first, second = record["slices/position"].numpy()[1:3]
    point = (first + second) / 2 + [0.0, 1.0, -1.0]
    index, _, _ = _select(record, [tuple(point)], plane=Plane.SAGITTAL_T1)
    turned, _, _ = _select(other, [tuple(point * [-1.0, 1.0, 1.0])], plane=Plane.SAGITTAL_T1)
    chosen = record["slices/position"].numpy()[index[0, 1]]
    np.testing.assert_allclose(
        other["slices/position"].numpy()[turned[0, 1]] * [-1.0, 1.0, 1.0], chosen, atol=1e-4
    )


def test_coronal_slices_of_the_axial_plane_are_ignored(
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


def test_only_adjacent_slices_of_a_reduced_record_are_neighbours(
    make_stack: Stacks, make_record: Records
) -> None:
    record = make_record(Plane.SAGITTAL_T1, make_stack(Plane.SAGITTAL_T1, count=7))
    kept = decode_slices(record, tf.constant([0, 1, 3, 4]))
    middle = record["slices/position"].numpy()[3]
    _, mask, _ = _select(kept, [tuple(middle + 1.0)], plane=Plane.SAGITTAL_T1)
    assert mask[0].tolist() == [False, True, True]
