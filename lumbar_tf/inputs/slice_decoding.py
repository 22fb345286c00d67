"""Partial decoding of a record: selected slices, and a window of their pixels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, CropConfig
from lumbar_tf.inputs.slice_selection import Record, project_to_pixels, select_slices, slice_normals
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import decode_image
from lumbar_tf.records.schema import FEATURES, IMAGE_FEATURE, FeatureAxis

#: Jitter is clipped to this many standard deviations, so that the pixels a jittered crop can cover are known
#: before decoding. For a normal distribution 6 in 100,000 values lie beyond.
JITTER_LIMIT = 4.0
#: Upper bound of the distance that one more slice on either side adds.
_SLACK_MM = 20.0

#: Features of the chosen slices; images are decoded, and InstanceNumber is not used.
_SLICE_KEYS = tuple(
    name
    for name, spec in FEATURES.items()
    if spec.axis is FeatureAxis.SLICE and name not in (IMAGE_FEATURE, "slices/instance_number")
)


class PixelWindow(NamedTuple):
    """Rectangle of pixels, the same in all slices of a record.

    Attributes:
        first: int64 [2], first row and column.
        end: int64 [2], one past the last row and column; greater than `first`, and possibly beyond an image.
    """

    first: tf.Tensor
    end: tf.Tensor


def whole_window(record: Record) -> PixelWindow:
    """Returns the window that contains every image."""
    end = tf.stack([tf.reduce_max(record["slices/rows"]), tf.reduce_max(record["slices/columns"])])
    return PixelWindow(first=tf.zeros(2, tf.int64), end=end)


def window_around(
    record: Record, points: tf.Tensor, *, reach_mm: float | tf.Tensor, depth_mm: float
) -> PixelWindow:
    """Returns the window that contains all pixels within reach of some points.

    Args:
        record: parsed record with N >= 1 slices.
        points: float32 [P, 3], LPS mm; NaN is ignored.
        reach_mm: distance from a point's projection onto a slice, in the slice's plane.
        depth_mm: slices at least this far from a point are ignored for it.

    Returns:
        The window; one pixel where no slice is near a point.
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

    # Clipped before the cast to integers: the projection of a point may lie far outside.
    lowest = tf.where(is_shown, tf.clip_by_value(tf.floor(foot - reach), 0.0, size - 1), size - 1)
    highest = tf.where(is_shown, tf.clip_by_value(tf.floor(foot + reach) + 2, 1.0, size), 1.0)
    first = tf.reduce_min(lowest, axis=(0, 1))
    end = tf.maximum(first + 1, tf.reduce_max(highest, axis=(0, 1)))
    return PixelWindow(first=tf.cast(first, tf.int64), end=tf.cast(end, tf.int64))


def decode_slices(record: Record, index: tf.Tensor, window: PixelWindow | None = None) -> Record:
    """Decodes some slices and returns a record of only these.

    Args:
        record: parsed record.
        index: int32 [M], in any order, with repetitions.
        window: pixels to decode; None decodes whole images.

    Returns:
        The record with U <= M slices in their original order. Instead of encoded images it has `pixels`,
        uint16 [U, H, W] stored values, zero-padded where an image is smaller, and `pixels/first`, int64 [2],
        the image row and column of the first pixel.
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


def decode_for_crops(
    record: Record, points: tf.Tensor, crop: CropConfig, *, plane: Plane, slack: int, reach_mm: float
) -> Record:
    """Decodes the slices and pixels that crops around some points can cover.

    Args:
        record: parsed record with at least one slice.
        points: float32 [P, 3], LPS mm; NaN is ignored.
        crop: crop size.
        plane: plane of the slices.
        slack: additional slices on either side of a crop's own, for points that are jittered afterwards.
        reach_mm: largest distance of a crop's pixels from its point, `corner_mm` or `augmented_reach_mm`.

    Returns:
        As `decode_slices`; one slice for a study without a usable point, since a record cannot be empty.
    """
    selection = select_slices(
        record,
        points,
        num_slices=crop.num_slices + 2 * slack,
        max_distance_mm=crop.max_distance_mm + _SLACK_MM * slack,
        plane=plane,
        reverse=tf.zeros(tf.shape(points)[:1], tf.bool),
        max_offset_mm=crop.max_offset_mm + _SLACK_MM * slack,
    )
    index = tf.boolean_mask(selection.index, selection.mask)
    index = tf.cond(tf.size(index) > 0, lambda: index, lambda: tf.zeros(1, tf.int32))
    depth_mm = max(crop.max_distance_mm, crop.max_offset_mm) + _SLACK_MM * slack
    window = window_around(record, points, reach_mm=reach_mm, depth_mm=depth_mm)
    return decode_slices(record, index, window)


def corner_mm(crop: CropConfig) -> float:
    """Returns the distance of a crop's corners from its centre."""
    return crop.side_mm / math.sqrt(2)


def augmented_reach_mm(
    crop: CropConfig, augmentation: AugmentationConfig, jitter_mm: Sequence[float]
) -> float:
    """Returns the largest distance of an augmented crop's pixels from its point before jitter."""
    shift_mm = augmentation.shift_mm * math.sqrt(2)
    return corner_mm(crop) * (1 + augmentation.zoom) + shift_mm + JITTER_LIMIT * math.hypot(*jitter_mm)
