"""Crops of a record's slices around points in patient space.

The functions run in the training pipeline and, unchanged, inside the exported SavedModel. They take a parsed
record (`lumbar_tf.records.parsing.parse_example`) and points in LPS mm. A crop covers `side_mm` around a
point, in the plane of each slice and along the patient's axes (`lumbar_tf.dicom.geometry.canonical_axes`), so
it does not depend on the scanner's storage order. All geometric changes are composed into one affine
transform per slice and one interpolation.
"""

from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.config import CropConfig
from lumbar_tf.inputs.slice_selection import Record, Selection, select_slices, slice_normals
from lumbar_tf.labels import Plane, Side


class Warp(NamedTuple):
    """Affine change of the crop grid: offset' = matrix @ offset + shift_mm.

    Attributes:
        matrix: float32 [2, 2]; rotation and zoom.
        shift_mm: float32 [2], (right, down).
    """

    matrix: tf.Tensor
    shift_mm: tf.Tensor


class Crops(NamedTuple):
    """Inputs of a grader for one study: P crops of S slices.

    Attributes:
        image: float32 [P, S, side_px, side_px]; 0 and 1 are the series' 0.5 and 99.5 percentile.
        mask: bool [P, S], False where there is no slice.
        offset_mm: float32 [P, S], slice minus point along the normal; see `Selection`.
    """

    image: tf.Tensor
    mask: tf.Tensor
    offset_mm: tf.Tensor


class Placement(NamedTuple):
    """Positions of the crops of one study before any warp: P crops of S slices.

    Attributes:
        selection: selected slices.
        origin: float32 [P, S, 3], LPS mm: the foot of the crop's point in each slice.
        right, down: float32 [P, S, 3], unit vectors in patient space along a crop's rows and columns; `right`
            is reversed where the crop is mirrored.
    """

    selection: Selection
    origin: tf.Tensor
    right: tf.Tensor
    down: tf.Tensor


def identity_warp() -> Warp:
    """Returns the identity."""
    return Warp(matrix=tf.eye(2), shift_mm=tf.zeros(2))


def mask_slices(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Sets absent slices to 0: image float [..., H, W], mask bool [...]."""
    return tf.where(mask[..., tf.newaxis, tf.newaxis], image, 0.0)


def plane_axes(normals: tf.Tensor, *, is_sagittal: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns crop axes (right, down), each float32 [..., 3]; see `geometry.canonical_axes`."""
    down_hint = tf.constant([0.0, 0.0, -1.0] if is_sagittal else [0.0, 1.0, 0.0])
    right_hint = tf.constant([0.0, 1.0, 0.0] if is_sagittal else [1.0, 0.0, 0.0])
    along = tf.reduce_sum(normals * down_hint, axis=-1, keepdims=True)
    down = tf.math.l2_normalize(down_hint - normals * along, axis=-1)
    right = tf.linalg.cross(down, normals)
    turned = tf.reduce_sum(right * right_hint, axis=-1, keepdims=True) < 0
    return tf.where(turned, -right, right), down


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
    """Returns the affine transforms from crop pixels to stored pixels, float32 [K, 8].

    Crop pixel (i, j) lies at offset = matrix @ ((i, j) - (size - 1) / 2) * pitch + shift from the
    centre, in mm along (right, down). The stored pixel follows from equation C.7.6.2.1-1 of DICOM PS3.3.

    Args:
        record: from `decode_slices`.
        index: int32 [K], slice of each crop.
        centre: float32 [K, 3], LPS mm.
        axes: right and down, each float32 [K, 3].
        pitch_mm: distance of neighbouring crop pixels.
        size_px: edge length of the crops.
        warp: augmentation, or `identity_warp()`.

    Returns:
        Transforms in the layout of `tf.raw_ops.ImageProjectiveTransformV3`.
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
    """Interpolates once and scales to the series' intensity range, float32 [K, size_px, size_px].

    Args:
        record: from `decode_slices`.
        index: int32 [K], slice of each crop.
        affine: float32 [K, 8], from `crop_affine`.
        size_px: edge length of the crops.

    Returns:
        The crops, within [0, 1.5]; a crop pixel outside the image has the stored value 0.
    """
    images, affine = _cut_rows(record, index, affine, size_px)
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


def _cut_rows(
    record: Record, index: tf.Tensor, affine: tf.Tensor, size_px: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Extracts the image rows that each crop covers, the same number of rows for all crops.

    Copying and converting a whole slice for each crop would take longer than interpolating it.

    Returns:
        float32 [K, H, W, 1], and the affine transforms [K, 8] into these.
    """
    pixels, first = record["pixels"], tf.cast(record["pixels/first"], tf.float32)
    lines, width = tf.unstack(tf.shape(pixels)[1:])
    # Rows between those of the crop's corners.
    across, along, at_origin = tf.unstack(affine[:, 3:6], axis=1)
    last = float(size_px - 1)
    low = at_origin + tf.minimum(across * last, 0.0) + tf.minimum(along * last, 0.0) - first[0]
    span = tf.reduce_max(tf.abs(across) + tf.abs(along)) * last
    # One more row each for the interpolation, for fractional positions and for rounding inside the op.
    height = tf.cast(tf.minimum(tf.floor(span) + 4, tf.cast(lines, tf.float32)), tf.int32)
    top = tf.cast(tf.clip_by_value(tf.floor(low - 0.5), 0.0, tf.cast(lines - height, tf.float32)), tf.int32)
    place = (index * lines + top)[:, tf.newaxis] + tf.range(height)
    images = tf.cast(tf.gather(tf.reshape(pixels, [-1, width]), place), tf.float32)
    # Integers, so the subtraction below is exact.
    column, row = tf.fill(tf.shape(top), first[1]), first[0] + tf.cast(top, tf.float32)
    zero = tf.zeros_like(column)
    moved = tf.stack([zero, zero, column, zero, zero, row, zero, zero], axis=-1)
    return images[..., tf.newaxis], affine - moved


def place_crops(
    record: Record,
    points: tf.Tensor,
    *,
    config: CropConfig,
    plane: Plane,
    sides: tuple[Side | None, ...],
) -> Placement:
    """Selects the slices of the crops around P points and positions the crops in them.

    Args:
        record: with at least one slice.
        points: float32 [P, 3], LPS mm; NaN gives masked slices.
        config: number of slices and their largest distances.
        plane: plane of the slices, which determines the axes.
        sides: side of each point. If `config.mirror_right`, crops of the right side are mirrored to look
            left: axial crops by reversing the columns, sagittal crops by reversing the slice order.

    Returns:
        The placement, in the order of `points`.
    """
    is_right = tf.constant([config.mirror_right and side is Side.RIGHT for side in sides])
    selection = select_slices(
        record,
        points,
        num_slices=config.num_slices,
        max_distance_mm=config.max_distance_mm,
        plane=plane,
        reverse=is_right if plane.is_sagittal else tf.zeros_like(is_right),
        max_offset_mm=config.max_offset_mm,
    )
    normals = tf.gather(slice_normals(record), selection.index)
    right, down = plane_axes(normals, is_sagittal=plane.is_sagittal)
    if not plane.is_sagittal:
        right *= tf.where(is_right, -1.0, 1.0)[:, tf.newaxis, tf.newaxis]
    known = tf.where(tf.math.is_finite(points), points, 0.0)[:, tf.newaxis]
    behind = known - tf.gather(record["slices/position"], selection.index)
    origin = known - normals * tf.reduce_sum(behind * normals, axis=-1, keepdims=True)
    return Placement(selection, origin, right, down)


def cut_crops(
    record: Record,
    points: tf.Tensor,
    *,
    config: CropConfig,
    plane: Plane,
    sides: tuple[Side | None, ...],
    warp: Warp,
) -> Crops:
    """Cuts the crops of one study around P points; see `place_crops` and `cut_placed_crops`."""
    placement = place_crops(record, points, config=config, plane=plane, sides=sides)
    return cut_placed_crops(record, placement, config=config, warp=warp)


def cut_placed_crops(record: Record, placement: Placement, *, config: CropConfig, warp: Warp) -> Crops:
    """Cuts crops at given positions.

    Args:
        record: from `decode_slices`.
        placement: from `place_crops` of the same record.
        config: crop size.
        warp: augmentation, or `identity_warp()`; applied after mirroring.

    Returns:
        The crops.
    """
    selection = placement.selection

    def flatten(vectors: tf.Tensor) -> tf.Tensor:
        return tf.reshape(vectors, [-1, 3])

    index = tf.reshape(selection.index, [-1])
    affine = crop_affine(
        record,
        index,
        flatten(placement.origin),
        (flatten(placement.right), flatten(placement.down)),
        pitch_mm=config.side_mm / config.side_px,
        size_px=config.side_px,
        warp=warp,
    )
    image = resample(record, index, affine, config.side_px)
    image = tf.reshape(image, [*selection.mask.shape, config.side_px, config.side_px])
    return Crops(
        image=mask_slices(image, selection.mask),
        mask=selection.mask,
        offset_mm=selection.offset_mm,
    )
