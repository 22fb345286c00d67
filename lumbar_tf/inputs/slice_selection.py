"""Selection of the slices nearest to a point: the nearest one and its neighbours in one stack."""

import math
from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.labels import Plane

Record = dict[str, tf.Tensor]

#: A slice is used for a landmark up to this far outside the image, in pixels: half of the crop still shows
#: the image.
_MARGIN_PX = 8.0
#: Larger than any distance in a patient, mm: added to the distance of slices that do not show the point.
_FAR_MM = 1.0e4
#: sin(64 degrees): no L5/S1 block is tilted more, and beyond it a slice counts as coronal.
_STEEPEST_AXIAL = 0.9
#: Weight of a slice's distance from the origin in ties: far above float32 noise, far below a slice gap.
_TIE_BREAK = 1.0e-4


class Selection(NamedTuple):
    """Slices selected for P points, S for each point.

    Attributes:
        index: int32 [P, S], into the record's slices.
        mask: bool [P, S], False where there is no slice.
        offset_mm: float32 [P, S], slice minus point along the normal; reversed for sagittal crops of the
            right side, so that lateral is positive on both sides.
    """

    index: tf.Tensor
    mask: tf.Tensor
    offset_mm: tf.Tensor


def slice_normals(record: Record) -> tf.Tensor:
    """Returns unit normals, float32 [N, 3], largest component positive (see `dicom.geometry`)."""
    normals = tf.linalg.cross(record["slices/row_direction"], record["slices/column_direction"])
    normals = tf.math.l2_normalize(normals, axis=-1)
    largest = tf.argmax(tf.abs(normals), axis=-1)
    sign = tf.sign(tf.gather(normals, largest, batch_dims=1))
    return normals * sign[:, tf.newaxis]


def project_to_pixels(record: Record, point: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Projects points [P, 3] onto every slice; returns column and row, each float32 [P, N]."""
    offset = point[:, tf.newaxis] - record["slices/position"][tf.newaxis]
    column = tf.reduce_sum(offset * record["slices/row_direction"], -1) / record["slices/column_spacing_mm"]
    row = tf.reduce_sum(offset * record["slices/column_direction"], -1) / record["slices/row_spacing_mm"]
    return column, row


def _contains(record: Record, points: tf.Tensor) -> tf.Tensor:
    """Returns whether a point's projection onto a slice lies within the image, bool [P, N]."""
    column, row = project_to_pixels(record, points)
    last_column = tf.cast(record["slices/columns"], tf.float32) - 1
    last_row = tf.cast(record["slices/rows"], tf.float32) - 1
    return (
        (column > -_MARGIN_PX)
        & (row > -_MARGIN_PX)
        & (column < last_column + _MARGIN_PX)
        & (row < last_row + _MARGIN_PX)
    )


def _has_orientation(record: Record, plane: Plane) -> tf.Tensor:
    """Returns whether slices have the plane's orientation, bool [N]; a table may list a coronal series."""
    normals = tf.abs(slice_normals(record))
    is_sagittal = tf.equal(tf.argmax(normals, axis=-1), 0)
    return is_sagittal if plane.is_sagittal else ~is_sagittal & (normals[:, 1] < _STEEPEST_AXIAL)


def select_slices(
    record: Record,
    points: tf.Tensor,
    *,
    num_slices: int,
    max_distance_mm: float,
    plane: Plane,
    reverse: tf.Tensor,
    max_offset_mm: float = math.inf,
) -> Selection:
    """Selects the slice nearest to each point and its neighbours in the same orientation group.

    The nearest slice can be of any series of the plane; its neighbours are of the same stack.

    Args:
        record: parsed record with N slices, N >= 1.
        points: float32 [P, 3], LPS mm; nothing is selected for NaN.
        num_slices: S, odd.
        max_distance_mm: nothing is selected for a point farther than this from every slice that shows it.
        plane: slices of another orientation are ignored.
        reverse: bool [P], whether to list slices against the normal (sagittal slices of a right side).
        max_offset_mm: neighbours farther than this from the point, along the normal, are masked.

    Returns:
        The selection.
    """
    known = tf.reduce_all(tf.math.is_finite(points), axis=-1)
    points = tf.where(known[:, tf.newaxis], points, 0.0)
    along = tf.reduce_sum(record["slices/position"] * slice_normals(record), axis=-1)
    offset = along - tf.matmul(points, slice_normals(record), transpose_b=True)
    is_usable = _contains(record, points) & _has_orientation(record, plane)[tf.newaxis]
    distance = tf.abs(offset) + tf.where(is_usable, 0.0, _FAR_MM)
    # Of two slices at the same distance the one nearer to the origin is selected: a mirrored patient gets the
    # mirrored selection.
    nearest = tf.argmin(distance + _TIE_BREAK * tf.abs(along), axis=-1, output_type=tf.int32)
    found = known & (tf.reduce_min(distance, axis=-1) <= max_distance_mm)

    steps = tf.range(-(num_slices // 2), num_slices // 2 + 1)
    sign = tf.where(reverse, -1, 1)[:, tf.newaxis]
    index = nearest[:, tf.newaxis] + steps[tf.newaxis] * sign
    count = tf.shape(record["slices/group"])[0]
    in_range = (index >= 0) & (index < count)
    index = tf.clip_by_value(index, 0, count - 1)
    group = record["slices/group"]
    same = tf.equal(tf.gather(group, index), tf.gather(group, nearest)[:, tf.newaxis])
    # In a record of some slices only, consecutive entries need not be neighbours in the stack.
    order = record.get("slices/order", tf.range(count))
    step = tf.gather(order, index) - tf.gather(order, nearest)[:, tf.newaxis]
    is_next = tf.equal(step, steps[tf.newaxis] * sign)
    offset = tf.gather(offset, index, batch_dims=1) * tf.cast(sign, tf.float32)
    is_near = tf.equal(steps, 0)[tf.newaxis] | (tf.abs(offset) <= max_offset_mm)
    mask = found[:, tf.newaxis] & in_range & same & is_next & is_near
    return Selection(index=index, mask=mask, offset_mm=tf.where(mask, offset, 0.0))
