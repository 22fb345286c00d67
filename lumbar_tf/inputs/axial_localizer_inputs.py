"""Cutting what the axial localizer searches: the slices around each level point, seen from either side."""

from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.config import CropConfig, LocalizerConfig
from lumbar_tf.inputs.crop_layout import CropLayout, anchor_points
from lumbar_tf.inputs.crops import Warp, cut_placed, identity_warp, place_crops
from lumbar_tf.inputs.slice_decoding import corner_mm, keep_for_crops
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import Family, Plane

#: Ten crops a study, level by level and left before right, around the level points.
_LAYOUT = CropLayout(Plane.AXIAL_T2, (Family.SUBARTICULAR,))
AXIAL_SIDES = _LAYOUT.sides
#: A point is within a crop's reach as far from its nearest slice as this, mm: half an axial gap of 4 mm, and
#: a bit, as the annotator may have drawn on another series.
_ON_SLICE_MM = 2.5


class AxialField(NamedTuple):
    """What the axial localizer sees of one study: P = 10 crops of S slices.

    Attributes:
        image: float32 [P, S, side_px, side_px]; the right side's is mirrored.
        mask: bool [P, S].
        offset_mm: float32 [P, S], slice minus level point along the normal.
        origin: float32 [P, S, 3], LPS mm of the crop's centre in each slice.
        right, down: float32 [P, S, 3], patient vectors of one pixel to the right and down; the right side's
            `right` points to the patient's right.
    """

    image: tf.Tensor
    mask: tf.Tensor
    offset_mm: tf.Tensor
    origin: tf.Tensor
    right: tf.Tensor
    down: tf.Tensor


def axial_crop(config: LocalizerConfig) -> CropConfig:
    """Returns the crops that a configuration names, as finely as they are cut."""
    return CropConfig(
        side_mm=config.side_mm,
        side_px=config.side_px * config.supersample,
        num_slices=config.num_slices,
        max_distance_mm=config.max_distance_mm,
    )


def axial_anchors(landmarks: tf.Tensor) -> tf.Tensor:
    """Returns the level points around which the crops are cut, float32 [..., P, 3].

    Args:
        landmarks: float32 [..., 25, 3], LPS mm, NaN where unknown.
    """
    return anchor_points(landmarks, _LAYOUT)


def cut_axial_field(record: Record, anchors: tf.Tensor, *, config: LocalizerConfig, warp: Warp) -> AxialField:
    """Cuts the crops of one study with their places in the patient.

    Args:
        record: from `keep_for_crops` of these anchors, or of some nearby.
        anchors: float32 [P, 3], LPS mm; NaN gives masked crops.
        config: the field.
        warp: augmentation, or `identity_warp()`.

    Returns:
        The field. Its patient coordinates include warp and mirroring, so targets need no change.
    """
    crop = axial_crop(config)
    placement = place_crops(record, anchors, config=crop, plane=Plane.AXIAL_T2, sides=AXIAL_SIDES)
    crops = cut_placed(record, placement, config=crop, warp=warp)
    image = crops.image
    if config.supersample > 1:
        flat = tf.reshape(image, [-1, crop.side_px, crop.side_px, 1])
        flat = tf.nn.avg_pool2d(flat, config.supersample, config.supersample, "VALID")
        image = tf.reshape(flat, [*image.shape[:2], config.side_px, config.side_px])
    right, down = placement.right, placement.down
    pitch_mm = config.side_mm / config.side_px
    return AxialField(
        image=image,
        mask=crops.mask,
        offset_mm=crops.offset_mm,
        origin=placement.origin + right * warp.shift_mm[0] + down * warp.shift_mm[1],
        right=(right * warp.matrix[0, 0] + down * warp.matrix[1, 0]) * pitch_mm,
        down=(right * warp.matrix[0, 1] + down * warp.matrix[1, 1]) * pitch_mm,
    )


def axial_inputs(field: AxialField) -> dict[str, tf.Tensor]:
    """Returns the axial localizer's inputs, named as the fields of `AxialField`."""
    return dict(field._asdict())


def study_axial_field(record: Record, landmarks: tf.Tensor, config: LocalizerConfig) -> dict[str, tf.Tensor]:
    """Cuts one study's crops as evaluation and the exported graph see them.

    Args:
        record: parsed record with at least one slice.
        landmarks: float32 [25, 3], LPS mm, NaN where unknown.
        config: the field.

    Returns:
        The localizer's inputs; see `axial_inputs`.
    """
    anchors, crop = axial_anchors(landmarks), axial_crop(config)
    kept = keep_for_crops(record, anchors, crop, plane=Plane.AXIAL_T2, slack=0, reach_mm=corner_mm(crop))
    return axial_inputs(cut_axial_field(kept, anchors, config=config, warp=identity_warp()))


def axial_field_spec(config: LocalizerConfig) -> dict[str, tf.TensorSpec]:
    """Returns what `study_axial_field` gives."""
    crops, slices, size = len(AXIAL_SIDES), config.num_slices, config.side_px
    vector = tf.TensorSpec([crops, slices, 3], tf.float32)
    return {
        "image": tf.TensorSpec([crops, slices, size, size], tf.float32),
        "mask": tf.TensorSpec([crops, slices], tf.bool),
        "offset_mm": tf.TensorSpec([crops, slices], tf.float32),
        "origin": vector,
        "right": vector,
        "down": vector,
    }


def reachable_points(field: AxialField, points: tf.Tensor) -> tf.Tensor:
    """Returns the points that lie within their crops, float32 [P, 3]; NaN for the others.

    A crop around a level point on the wrong disc, or too far off, does not show its true point: there is
    nothing to learn where to point to.

    Args:
        field: from `cut_axial_field`.
        points: float32 [P, 3], LPS mm, NaN where unknown.
    """
    gap = points[:, tf.newaxis] - field.origin
    half = field.image.shape[-1] / 2
    is_inside = field.mask
    for axis in (field.right, field.down):
        # In pixels: along an axis, by its length twice.
        along = tf.reduce_sum(gap * axis, axis=-1) / tf.reduce_sum(tf.square(axis), axis=-1)
        is_inside &= tf.abs(along) <= half
    normal = tf.math.l2_normalize(tf.linalg.cross(field.right, field.down), axis=-1)
    is_inside &= tf.abs(tf.reduce_sum(gap * normal, axis=-1)) <= _ON_SLICE_MM
    return tf.where(tf.reduce_any(is_inside, axis=-1)[:, tf.newaxis], points, float("nan"))
