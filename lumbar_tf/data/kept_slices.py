"""Decoding what is needed of a record: some of its slices, and of these a window."""

from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.data.selection import Record, patient_to_pixel, slice_normals
from lumbar_tf.records.parsing import decode_image

_SLICE_KEYS = (
    "slices/scale",
    "slices/offset",
    "slices/rows",
    "slices/columns",
    "slices/position",
    "slices/row_direction",
    "slices/column_direction",
    "slices/row_spacing_mm",
    "slices/column_spacing_mm",
    "slices/series",
    "slices/group",
)


class Window(NamedTuple):
    """A rectangle of pixels, the same in all slices of a record.

    Attributes:
        first: int64 [2], the first row and column.
        end: int64 [2], the row and the column after the last; larger than `first`, and perhaps than an image.
    """

    first: tf.Tensor
    end: tf.Tensor


def whole_window(record: Record) -> Window:
    """Returns the window that holds every image whole."""
    end = tf.stack([tf.reduce_max(record["slices/rows"]), tf.reduce_max(record["slices/columns"])])
    return Window(first=tf.zeros(2, tf.int64), end=end)


def window_around(
    record: Record, points: tf.Tensor, *, reach_mm: float | tf.Tensor, depth_mm: float
) -> Window:
    """Returns the window that holds all within reach of some points.

    Args:
        record: parsed record with N >= 1 slices.
        points: float32 [P, 3], LPS mm; NaN is passed over.
        reach_mm: how far from a point's foot in a slice, in the slice's plane.
        depth_mm: only slices that pass nearer than this to a point show it.

    Returns:
        The window; one pixel where no slice shows a point.
    """
    known = tf.reduce_all(tf.math.is_finite(points), axis=-1, keepdims=True)
    points = tf.where(known, points, 0.0)
    column, row = patient_to_pixel(record, points)
    offset = points[:, tf.newaxis] - record["slices/position"]
    depth = tf.abs(tf.reduce_sum(offset * slice_normals(record), axis=-1))
    is_shown = (known & (depth < depth_mm))[..., tf.newaxis]
    spacing_mm = tf.stack([record["slices/row_spacing_mm"], record["slices/column_spacing_mm"]], axis=-1)
    foot, reach = tf.stack([row, column], axis=-1), reach_mm / spacing_mm
    size = tf.cast(whole_window(record).end, tf.float32)

    # Bounded before they become whole numbers: a foot may lie anywhere.
    lowest = tf.where(is_shown, tf.clip_by_value(tf.floor(foot - reach), 0.0, size - 1), size - 1)
    highest = tf.where(is_shown, tf.clip_by_value(tf.floor(foot + reach) + 2, 1.0, size), 1.0)
    first = tf.reduce_min(lowest, axis=(0, 1))
    end = tf.maximum(first + 1, tf.reduce_max(highest, axis=(0, 1)))
    return Window(first=tf.cast(first, tf.int64), end=tf.cast(end, tf.int64))


def keep_slices(record: Record, index: tf.Tensor, window: Window | None = None) -> Record:
    """Decodes only the slices named and returns a record of just these.

    Args:
        record: parsed record.
        index: int32 [M], may repeat; order does not matter.
        window: what is decoded of them; None for all.

    Returns:
        The record with U <= M slices in their old order. Instead of encoded images it has `pixels`, uint16
        [U, H, W] of stored values, padded with zeros where an image is smaller, and `pixels/first`, int64
        [2], their first row and column in an image.
    """
    unique = tf.sort(tf.unique(index)[0])
    kept = {key: tf.gather(record[key], unique) for key in _SLICE_KEYS}
    first, end = whole_window(kept) if window is None else window

    def decode(index: tf.Tensor) -> tf.Tensor:
        size = tf.stack([record["slices/rows"][index], record["slices/columns"][index]])
        start, stop = tf.minimum(first, size), tf.minimum(end, size)
        image = decode_image(record, index, (start[0], stop[0]))[:, start[1] : stop[1]]
        missing = end - first - (stop - start)
        return tf.pad(image, tf.stack([tf.zeros_like(missing), missing], axis=1))

    pixels = tf.map_fn(decode, unique, fn_output_signature=tf.TensorSpec([None, None], tf.uint16))
    return {
        **kept,
        "slices/order": unique,
        "pixels": pixels,
        "pixels/first": first,
        "series/low": record["series/low"],
        "series/high": record["series/high"],
    }
