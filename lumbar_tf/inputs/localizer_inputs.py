"""Cutting the field of view that a localizer searches: an even choice of one sagittal stack."""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.inputs.crops import Warp, crop_affine, plane_axes, resample
from lumbar_tf.inputs.slice_selection import Record, slice_normals


@dataclass(frozen=True)
class FieldSpec:
    """The field of view that a localizer searches.

    Attributes:
        side_mm: edge length in patient space.
        side_px: edge length in pixels.
        supersample: finer sampling before averaging.
        num_slices: S, slices of the stack.
        covers_image: the edge length is that of the study's largest image instead of `side_mm`.
    """

    side_mm: float
    side_px: int
    supersample: int
    num_slices: int
    covers_image: bool = False


class Field(NamedTuple):
    """What a localizer sees of one study.

    Attributes:
        image: float32 [S, side_px, side_px].
        mask: bool [S].
        lateral_mm: float32 [S], patient x of each slice relative to the stack's middle (+ is left).
        origin: float32 [S, 3], LPS mm of the field's centre in each slice.
        right, down: float32 [S, 3], patient vectors of one FIELD pixel to the right and down.
    """

    image: tf.Tensor
    mask: tf.Tensor
    lateral_mm: tf.Tensor
    origin: tf.Tensor
    right: tf.Tensor
    down: tf.Tensor


def _centres(record: Record) -> tf.Tensor:
    """Returns the patient position of each image's middle, LPS mm, float32 [N, 3]."""
    across = (tf.cast(record["slices/columns"], tf.float32) - 1) / 2 * record["slices/column_spacing_mm"]
    downwards = (tf.cast(record["slices/rows"], tf.float32) - 1) / 2 * record["slices/row_spacing_mm"]
    return (
        record["slices/position"]
        + record["slices/row_direction"] * across[:, tf.newaxis]
        + record["slices/column_direction"] * downwards[:, tf.newaxis]
    )


def _longest_edge(record: Record, index: tf.Tensor) -> tf.Tensor:
    """Returns the longest edge of the chosen images, mm, float32 []."""
    edges = [
        tf.cast(tf.gather(record[f"slices/{axis}s"], index), tf.float32)
        * tf.gather(record[f"slices/{axis}_spacing_mm"], index)
        for axis in ("row", "column")
    ]
    return tf.reduce_max(tf.stack(edges))


def select_stack(record: Record, num_slices: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses slices evenly from the record's largest stack.

    The choice is symmetric: a stack read from the other end gives the same slices. Where one of two
    middle slices must be taken, it is the one nearer to the patient's x = 0.

    Args:
        record: parsed record with N >= 1 slices.
        num_slices: S.

    Returns:
        index int32 [S] and mask bool [S]; a smaller stack fills the first places.
    """
    group = record["slices/group"]
    sizes = tf.math.bincount(tf.cast(group, tf.int32))
    largest = tf.cast(tf.argmax(sizes), group.dtype)
    members = tf.cast(tf.where(tf.equal(group, largest))[:, 0], tf.int32)
    count = tf.shape(members)[0]
    last = tf.cast(count - 1, tf.float32)
    even = tf.linspace(0.0, 1.0, num_slices) * last if num_slices > 1 else tf.reshape(last / 2, [1])
    # Halves are rounded towards the middle from both ends, which keeps the choice symmetric.
    even = tf.cast(tf.round(even + 1e-3 * tf.sign(last / 2 - even)), tf.int32)
    if num_slices % 2 == 1:
        lower, upper = (count - 1) // 2, count // 2
        lateral = tf.abs(tf.gather(_centres(record)[:, 0], members))
        middle = tf.where(lateral[upper] < lateral[lower], upper, lower)
        even = tf.where(tf.range(num_slices) == num_slices // 2, middle, even)
    place = tf.where(count <= num_slices, tf.range(num_slices), even)
    mask = place < count
    return tf.gather(members, tf.minimum(place, count - 1)), mask


def cut_field(record: Record, *, spec: FieldSpec, warp: Warp) -> Field:
    """Cuts the field of view of one sagittal study, around each slice's own image centre.

    Args:
        record: from `keep_slices` of what `select_stack` chose (or of more).
        spec: the field.
        warp: augmentation, or `identity_warp()`.

    Returns:
        The field. Its patient coordinates include the warp, so targets need no change.
    """
    index, mask = select_stack(record, spec.num_slices)
    axes = plane_axes(tf.gather(slice_normals(record), index), is_sagittal=True)
    centre = tf.gather(_centres(record), index)
    fine_px = spec.side_px * spec.supersample
    side_mm = _longest_edge(record, index) if spec.covers_image else tf.constant(spec.side_mm)
    affine = crop_affine(record, index, centre, axes, pitch_mm=side_mm / fine_px, size_px=fine_px, warp=warp)
    image = resample(record, index, affine, fine_px)
    if spec.supersample > 1:
        image = tf.nn.avg_pool2d(image[..., tf.newaxis], spec.supersample, spec.supersample, "VALID")[..., 0]
    image = tf.ensure_shape(image, [spec.num_slices, spec.side_px, spec.side_px])
    lateral = centre[:, 0]
    weight = tf.cast(mask, tf.float32)
    lateral = (lateral - tf.reduce_sum(lateral * weight) / tf.reduce_sum(weight)) * weight
    right, down = axes
    pitch_mm = side_mm / spec.side_px
    return Field(
        image=tf.where(mask[:, tf.newaxis, tf.newaxis], image, 0.0),
        mask=mask,
        lateral_mm=lateral,
        origin=centre + right * warp.shift_mm[0] + down * warp.shift_mm[1],
        right=(right * warp.matrix[0, 0] + down * warp.matrix[1, 0]) * pitch_mm,
        down=(right * warp.matrix[0, 1] + down * warp.matrix[1, 1]) * pitch_mm,
    )
