"""Cutting crops from a record's slices: one affine and one interpolation, in the graph.

These functions run in the training pipeline and, unchanged, inside the exported SavedModel.
They take a parsed record (`lumbar_tf.records.parsing.parse_example`) and points in patient space
(LPS mm); a crop is `side_mm` around a point, in each slice's own plane, along the patient's axes
(see `lumbar_tf.imaging.geometry.canonical_axes`), so the scanner's storage order does not matter.
"""

from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.config import CropConfig
from lumbar_tf.labels import Plane, Side
from lumbar_tf.records.parsing import decode_image

Record = dict[str, tf.Tensor]

#: A landmark may lie this far outside the image, in pixels, and its slice still be used: half a
#: crop is then left to see.
_MARGIN_PX = 8.0
#: Larger than any distance in a patient, in mm: keeps slices that do not hold the point from winning.
_FAR_MM = 1.0e4
#: sin(64 degrees): L5/S1 blocks are not tilted farther, and beyond it a slice is coronal.
_STEEPEST_AXIAL = 0.9
#: Share of a slice's distance from the origin that counts: far above float32 noise, far below a slice gap.
_TIE_BREAK = 1.0e-4
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


class Warp(NamedTuple):
    """A change of the crop grid: offset' = matrix @ offset + shift_mm.

    Attributes:
        matrix: float32 [2, 2]; rotation and zoom.
        shift_mm: float32 [2], (right, down).
    """

    matrix: tf.Tensor
    shift_mm: tf.Tensor


class Selection(NamedTuple):
    """The slices chosen for each of P points, S for each.

    Attributes:
        index: int32 [P, S] into the record's slices.
        mask: bool [P, S], False where there is no such slice.
        offset_mm: float32 [P, S], slice minus point along the normal; for sagittal crops of the
            right side the sign is turned, so that lateral is positive on both sides.
    """

    index: tf.Tensor
    mask: tf.Tensor
    offset_mm: tf.Tensor


class Crops(NamedTuple):
    """What a grader sees of one study.

    Attributes:
        image: float32 [P, S, side_px, side_px]; 0 and 1 are the series' 0.5 and 99.5 percentile.
        mask: bool [P, S].
        offset_mm: float32 [P, S].
    """

    image: tf.Tensor
    mask: tf.Tensor
    offset_mm: tf.Tensor


def identity_warp() -> Warp:
    """Returns the warp that changes nothing."""
    return Warp(matrix=tf.eye(2), shift_mm=tf.zeros(2))


def slice_normals(record: Record) -> tf.Tensor:
    """Returns unit normals, float32 [N, 3], largest component positive (see `geometry`)."""
    normals = tf.linalg.cross(record["slices/row_direction"], record["slices/column_direction"])
    normals = tf.math.l2_normalize(normals, axis=-1)
    largest = tf.argmax(tf.abs(normals), axis=-1)
    sign = tf.sign(tf.gather(normals, largest, batch_dims=1))
    return normals * sign[:, tf.newaxis]


def plane_axes(normals: tf.Tensor, *, is_sagittal: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns crop axes (right, down), each float32 [..., 3]; see `geometry.canonical_axes`."""
    down_hint = tf.constant([0.0, 0.0, -1.0] if is_sagittal else [0.0, 1.0, 0.0])
    right_hint = tf.constant([0.0, 1.0, 0.0] if is_sagittal else [1.0, 0.0, 0.0])
    along = tf.reduce_sum(normals * down_hint, axis=-1, keepdims=True)
    down = tf.math.l2_normalize(down_hint - normals * along, axis=-1)
    right = tf.linalg.cross(down, normals)
    turned = tf.reduce_sum(right * right_hint, axis=-1, keepdims=True) < 0
    return tf.where(turned, -right, right), down


def _patient_to_pixel(record: Record, point: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps points [P, 3] into every slice: column and row, each float32 [P, N]."""
    offset = point[:, tf.newaxis] - record["slices/position"][tf.newaxis]
    column = tf.reduce_sum(offset * record["slices/row_direction"], -1) / record["slices/column_spacing_mm"]
    row = tf.reduce_sum(offset * record["slices/column_direction"], -1) / record["slices/row_spacing_mm"]
    return column, row


def _holds(record: Record, points: tf.Tensor) -> tf.Tensor:
    """Tells which slices' images hold the foot of each point, bool [P, N]."""
    column, row = _patient_to_pixel(record, points)
    last_column = tf.cast(record["slices/columns"], tf.float32) - 1
    last_row = tf.cast(record["slices/rows"], tf.float32) - 1
    return (
        (column > -_MARGIN_PX)
        & (row > -_MARGIN_PX)
        & (column < last_column + _MARGIN_PX)
        & (row < last_row + _MARGIN_PX)
    )


def _lies_in(record: Record, plane: Plane) -> tf.Tensor:
    """Tells which slices lie as the plane's do, bool [N]: a table may name a coronal series axial."""
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
) -> Selection:
    """Chooses the slice nearest to each point and its neighbours in the same orientation group.

    All series of the plane are searched at once, but neighbours come from one stack only.

    Args:
        record: parsed record with N slices, N >= 1.
        points: float32 [P, 3], LPS mm; NaN chooses nothing.
        num_slices: S, odd.
        max_distance_mm: a point farther than this from every slice that holds it chooses nothing.
        plane: slices that do not lie as the plane's do are passed over.
        reverse: bool [P], whether to list slices against the normal (a right side's sagittals).

    Returns:
        The selection.
    """
    known = tf.reduce_all(tf.math.is_finite(points), axis=-1)
    points = tf.where(known[:, tf.newaxis], points, 0.0)
    along = tf.reduce_sum(record["slices/position"] * slice_normals(record), axis=-1)
    offset = along - tf.matmul(points, slice_normals(record), transpose_b=True)
    is_usable = _holds(record, points) & _lies_in(record, plane)[tf.newaxis]
    distance = tf.abs(offset) + tf.where(is_usable, 0.0, _FAR_MM)
    # Midway between two slices the one nearer to the origin wins, so that a mirrored patient gets the same.
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
    # Of a record that keeps some slices only, the next one may come from far away.
    order = record.get("slices/order", tf.range(count))
    step = tf.gather(order, index) - tf.gather(order, nearest)[:, tf.newaxis]
    is_next = tf.equal(step, steps[tf.newaxis] * sign)
    mask = found[:, tf.newaxis] & in_range & same & is_next
    offset = tf.gather(offset, index, batch_dims=1) * tf.cast(sign, tf.float32)
    return Selection(index=index, mask=mask, offset_mm=tf.where(mask, offset, 0.0))


def keep_slices(record: Record, index: tf.Tensor) -> Record:
    """Decodes only the slices named and returns a record of just these.

    Args:
        record: parsed record.
        index: int32 [M], may repeat; order does not matter.

    Returns:
        The record with U <= M slices in their old order and `pixels`, uint16 [U, H, W] of stored
        values, padded with zeros to the largest of them, instead of `slices/image`.
    """
    unique = tf.sort(tf.unique(index)[0])
    kept = {key: tf.gather(record[key], unique) for key in _SLICE_KEYS}
    rows, columns = (tf.cast(kept[f"slices/{side}"], tf.int32) for side in ("rows", "columns"))
    height, width = tf.reduce_max(rows), tf.reduce_max(columns)

    def decode(packed: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        encoded, image_rows, image_columns = packed
        image = decode_image(encoded, image_rows, image_columns, record["codec"])
        return tf.pad(image, [[0, height - image_rows], [0, width - image_columns]])

    pixels = tf.map_fn(
        decode,
        (tf.gather(record["slices/image"], unique), rows, columns),
        fn_output_signature=tf.TensorSpec([None, None], tf.uint16),
    )
    return {
        **kept,
        "slices/order": unique,
        "pixels": pixels,
        "series/low": record["series/low"],
        "series/high": record["series/high"],
    }


def crop_affine(
    record: Record,
    index: tf.Tensor,
    centre: tf.Tensor,
    axes: tuple[tf.Tensor, tf.Tensor],
    *,
    pitch_mm: float | tf.Tensor,
    size_px: int,
    warp: Warp,
) -> tf.Tensor:
    """Returns the 8 numbers that map a crop pixel to a stored pixel, float32 [K, 8].

    Crop pixel (i, j) lies at offset = matrix @ ((i, j) - (size - 1) / 2) * pitch + shift from the
    centre, in mm along (right, down); the stored pixel follows from DICOM's equation C.7.6.2.1-1.
    """
    right, down = axes
    row_direction = tf.gather(record["slices/row_direction"], index)
    column_direction = tf.gather(record["slices/column_direction"], index)
    column_mm = tf.gather(record["slices/column_spacing_mm"], index)
    row_mm = tf.gather(record["slices/row_spacing_mm"], index)
    offset = centre - tf.gather(record["slices/position"], index)

    def stored_axis(direction: tf.Tensor, spacing_mm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        along_right = tf.reduce_sum(right * direction, -1) / spacing_mm
        along_down = tf.reduce_sum(down * direction, -1) / spacing_mm
        at_centre = tf.reduce_sum(offset * direction, -1) / spacing_mm
        per_i = (along_right * warp.matrix[0, 0] + along_down * warp.matrix[1, 0]) * pitch_mm
        per_j = (along_right * warp.matrix[0, 1] + along_down * warp.matrix[1, 1]) * pitch_mm
        shift = along_right * warp.shift_mm[0] + along_down * warp.shift_mm[1]
        middle = (size_px - 1) / 2
        return per_i, per_j, at_centre + shift - (per_i + per_j) * middle

    column = stored_axis(row_direction, column_mm)
    row = stored_axis(column_direction, row_mm)
    zero = tf.zeros_like(column[0])
    return tf.stack([*column, *row, zero, zero], axis=-1)


def resample(record: Record, index: tf.Tensor, affine: tf.Tensor, size_px: int) -> tf.Tensor:
    """Interpolates once and scales to the series' intensity range: float32 [K, size_px, size_px]."""
    images = tf.cast(tf.gather(record["pixels"], index), tf.float32)[..., tf.newaxis]
    crops = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=affine,
        output_shape=tf.constant([size_px, size_px]),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )[..., 0]
    series = tf.gather(record["slices/series"], index)
    low = tf.gather(record["series/low"], series)
    width = tf.maximum(tf.gather(record["series/high"], series) - low, 1e-6)
    scale = tf.gather(record["slices/scale"], index)
    offset = tf.gather(record["slices/offset"], index)

    def per_crop(values: tf.Tensor) -> tf.Tensor:
        return values[:, tf.newaxis, tf.newaxis]

    values = crops * per_crop(scale / width) + per_crop((offset - low) / width)
    return tf.clip_by_value(values, 0.0, 1.5)


def cut_crops(
    record: Record,
    points: tf.Tensor,
    *,
    config: CropConfig,
    plane: Plane,
    sides: tuple[Side | None, ...],
    warp: Warp,
) -> Crops:
    """Cuts the crops of one study around P points.

    Args:
        record: from `keep_slices`.
        points: float32 [P, 3], LPS mm; NaN gives masked crops.
        config: size and number of slices.
        plane: tells the axes.
        sides: for each point the side that is looked at. The right is mirrored to look left, unless
            `config` says otherwise: in axial crops the columns are turned, in sagittal ones the slice order.
        warp: augmentation, or `identity_warp()`. In a mirrored crop it acts after the mirroring.

    Returns:
        The crops, in the order of `points`.
    """
    is_right = tf.constant([config.mirror_right and side is Side.RIGHT for side in sides])
    reverse = is_right if plane.is_sagittal else tf.zeros_like(is_right)
    selection = select_slices(
        record,
        points,
        num_slices=config.num_slices,
        max_distance_mm=config.max_distance_mm,
        plane=plane,
        reverse=reverse,
    )
    index = tf.reshape(selection.index, [-1])
    right, down = plane_axes(tf.gather(slice_normals(record), index), is_sagittal=plane.is_sagittal)
    if not plane.is_sagittal:
        turned = tf.repeat(tf.where(is_right, -1.0, 1.0), config.num_slices)
        right = right * turned[:, tf.newaxis]
    centre = tf.repeat(tf.where(tf.math.is_finite(points), points, 0.0), config.num_slices, axis=0)
    affine = crop_affine(
        record,
        index,
        centre,
        (right, down),
        pitch_mm=config.side_mm / config.side_px,
        size_px=config.side_px,
        warp=warp,
    )
    image = resample(record, index, affine, config.side_px)
    image = tf.reshape(image, [len(sides), config.num_slices, config.side_px, config.side_px])
    mask = selection.mask
    return Crops(
        image=tf.where(mask[..., tf.newaxis, tf.newaxis], image, 0.0),
        mask=mask,
        offset_mm=selection.offset_mm,
    )
