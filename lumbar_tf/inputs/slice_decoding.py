"""Decoding what is needed of a record: some of its slices, and of these a window."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, CropConfig
from lumbar_tf.inputs.slice_selection import Record, project_to_pixels, select_slices, slice_normals
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import decode_image
from lumbar_tf.records.schema import FEATURES, IMAGE_FEATURE, FeatureAxis

#: Standard deviations that a point is jittered by at most, so that what a crop needs can be told
#: beforehand; of a normal distribution 6 in 100,000 lie beyond.
JITTER_LIMIT = 4.0
#: A crop's outer slices are farther from its point than the nearest one: more than half of any crop's stack.
_NEIGHBOURS_MM = 60.0
#: Each slice more on either side is at most this much farther.
_SLACK_MM = 20.0

#: Features of the chosen slices; images are decoded, and InstanceNumber is not used.
_SLICE_KEYS = tuple(
    name
    for name, spec in FEATURES.items()
    if spec.axis is FeatureAxis.SLICE and name not in (IMAGE_FEATURE, "slices/instance_number")
)


class PixelWindow(NamedTuple):
    """A rectangle of pixels, the same in all slices of a record.

    Attributes:
        first: int64 [2], the first row and column.
        end: int64 [2], the row and the column after the last; larger than `first`, and perhaps than an image.
    """

    first: tf.Tensor
    end: tf.Tensor


def whole_window(record: Record) -> PixelWindow:
    """Returns the window that holds every image whole."""
    end = tf.stack([tf.reduce_max(record["slices/rows"]), tf.reduce_max(record["slices/columns"])])
    return PixelWindow(first=tf.zeros(2, tf.int64), end=end)


def window_around(
    record: Record, points: tf.Tensor, *, reach_mm: float | tf.Tensor, depth_mm: float
) -> PixelWindow:
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
    column, row = project_to_pixels(record, points)
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
    return PixelWindow(first=tf.cast(first, tf.int64), end=tf.cast(end, tf.int64))


def keep_slices(record: Record, index: tf.Tensor, window: PixelWindow | None = None) -> Record:
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


def keep_for_crops(
    record: Record, points: tf.Tensor, crop: CropConfig, *, plane: Plane, slack: int, reach_mm: float
) -> Record:
    """Decodes what crops around some points need: their slices, and of these what is within reach.

    Args:
        record: parsed record with at least one slice.
        points: float32 [P, 3], LPS mm; NaN needs nothing.
        crop: size.
        plane: whose slices.
        slack: slices beyond a crop's own on either side, so that a point that is moved finds its slice.
        reach_mm: how far a crop's pixels are from its point, `corner_mm` or `augmented_reach_mm`.

    Returns:
        As `keep_slices`; of a study without a usable point one slice, to keep shapes whole.
    """
    selection = select_slices(
        record,
        points,
        num_slices=crop.num_slices + 2 * slack,
        max_distance_mm=crop.max_distance_mm + _SLACK_MM * slack,
        plane=plane,
        reverse=tf.zeros(tf.shape(points)[:1], tf.bool),
    )
    index = tf.boolean_mask(selection.index, selection.mask)
    index = tf.cond(tf.size(index) > 0, lambda: index, lambda: tf.zeros(1, tf.int32))
    window = window_around(record, points, reach_mm=reach_mm, depth_mm=crop.max_distance_mm + _NEIGHBOURS_MM)
    return keep_slices(record, index, window)


def corner_mm(crop: CropConfig) -> float:
    """Returns how far a crop's corners are from its middle."""
    return crop.side_mm / math.sqrt(2)


def augmented_reach_mm(crop: CropConfig, changes: AugmentationConfig, jitter_mm: Sequence[float]) -> float:
    """Returns the same wherever a crop is zoomed, turned and moved to, and its point jittered."""
    shift_mm = changes.shift_mm * math.sqrt(2)
    return corner_mm(crop) * (1 + changes.zoom) + shift_mm + JITTER_LIMIT * math.hypot(*jitter_mm)
