"""Inputs and datasets of the axial localizer: crops around each level point, one from either side."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.config import CropConfig, LocalizerConfig
from lumbar_tf.inputs.augmentation import jitter_points, random_intensity, random_warp
from lumbar_tf.inputs.crop_layout import CropLayout, anchor_points, localizer_rows
from lumbar_tf.inputs.crops import Warp, cut_placed_crops, identity_warp, place_crops
from lumbar_tf.inputs.record_source import Points, RecordSource, attach_points
from lumbar_tf.inputs.slice_decoding import augmented_reach_mm, corner_mm, decode_for_crops
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.inputs.study_batches import InputsAndTargets, evaluation_batches, training_batches
from lumbar_tf.labels import Family, Plane

_ROWS = list(localizer_rows(Plane.AXIAL_T2))
#: Additional slices decoded on either side of a crop's own, for jittered level points.
_SLACK_SLICES = 1
#: Ten crops per study around the level points, level by level and left before right.
_LAYOUT = CropLayout(Plane.AXIAL_T2, (Family.SUBARTICULAR,))
AXIAL_SIDES = _LAYOUT.sides
#: Largest distance between a target and the nearest slice of its crop, mm: half of a slice distance of 4 mm
#: plus a margin, since the annotator may have marked the point in another series.
_ON_SLICE_MM = 2.5
#: Slices up to this far from the level point are searched; their number is the usual limit.
_SEARCHED_MM = 60.0


class AxialLocalizerInputs(NamedTuple):
    """Inputs of the axial localizer for one study: P = 10 crops of S slices.

    Attributes:
        image: float32 [P, S, side_px, side_px]; mirrored for the right side.
        mask: bool [P, S], False where there is no slice.
        offset_mm: float32 [P, S], slice minus level point along the normal.
        origin: float32 [P, S, 3], LPS mm of the crop's centre in each slice.
        right, down: float32 [P, S, 3], patient vectors of one pixel to the right and down; for the right side
            `right` points to the patient's right.
    """

    image: tf.Tensor
    mask: tf.Tensor
    offset_mm: tf.Tensor
    origin: tf.Tensor
    right: tf.Tensor
    down: tf.Tensor


def axial_crop(config: LocalizerConfig) -> CropConfig:
    """Returns the crop size of a configuration, oversampled by `supersample`."""
    return CropConfig(
        side_mm=config.side_mm,
        side_px=config.side_px * config.supersample,
        num_slices=config.num_slices,
        max_distance_mm=config.max_distance_mm,
        max_offset_mm=_SEARCHED_MM,
    )


def axial_anchors(landmarks: tf.Tensor) -> tf.Tensor:
    """Returns the level points at the centres of the crops, float32 [..., P, 3].

    Args:
        landmarks: float32 [..., 25, 3], LPS mm, NaN where unknown.
    """
    return anchor_points(landmarks, _LAYOUT)


def cut_axial_inputs(
    record: Record, anchors: tf.Tensor, *, config: LocalizerConfig, warp: Warp
) -> AxialLocalizerInputs:
    """Cuts the crops of one study with their position in the patient.

    Args:
        record: from `decode_for_crops` of these anchors, or of anchors near them.
        anchors: float32 [P, 3], LPS mm; NaN gives masked crops.
        config: crop size.
        warp: augmentation, or `identity_warp()`.

    Returns:
        The inputs. Their patient coordinates include warp and mirroring, so targets need no change.
    """
    crop = axial_crop(config)
    placement = place_crops(record, anchors, config=crop, plane=Plane.AXIAL_T2, sides=AXIAL_SIDES)
    crops = cut_placed_crops(record, placement, config=crop, warp=warp)
    image = crops.image
    if config.supersample > 1:
        flat = tf.reshape(image, [-1, crop.side_px, crop.side_px, 1])
        flat = tf.nn.avg_pool2d(flat, config.supersample, config.supersample, "VALID")
        image = tf.reshape(flat, [*image.shape[:2], config.side_px, config.side_px])
    right, down = placement.right, placement.down
    pitch_mm = config.side_mm / config.side_px
    return AxialLocalizerInputs(
        image=image,
        mask=crops.mask,
        offset_mm=crops.offset_mm,
        origin=placement.origin + right * warp.shift_mm[0] + down * warp.shift_mm[1],
        right=(right * warp.matrix[0, 0] + down * warp.matrix[1, 0]) * pitch_mm,
        down=(right * warp.matrix[0, 1] + down * warp.matrix[1, 1]) * pitch_mm,
    )


def study_axial_inputs(record: Record, landmarks: tf.Tensor, config: LocalizerConfig) -> dict[str, tf.Tensor]:
    """Cuts one study's inputs for evaluation and the exported graph.

    Args:
        record: parsed record with at least one slice.
        landmarks: float32 [25, 3], LPS mm, NaN where unknown.
        config: crop size.

    Returns:
        The fields of `AxialLocalizerInputs`.
    """
    anchors, crop = axial_anchors(landmarks), axial_crop(config)
    decoded = decode_for_crops(record, anchors, crop, plane=Plane.AXIAL_T2, slack=0, reach_mm=corner_mm(crop))
    return cut_axial_inputs(decoded, anchors, config=config, warp=identity_warp())._asdict()


def axial_input_spec(config: LocalizerConfig) -> dict[str, tf.TensorSpec]:
    """Returns the specifications of the tensors of `study_axial_inputs`."""
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


def reachable_points(inputs: AxialLocalizerInputs, points: tf.Tensor) -> tf.Tensor:
    """Returns the points that their crops show, float32 [P, 3]; NaN for the others.

    A crop around a level point that lies on another disc, or is too far off, does not show its target, so
    that crop has no target.

    Args:
        inputs: from `cut_axial_inputs`.
        points: float32 [P, 3], LPS mm, NaN where unknown.
    """
    gap = points[:, tf.newaxis] - inputs.origin
    half = inputs.image.shape[-1] / 2
    is_inside = inputs.mask
    for axis in (inputs.right, inputs.down):
        # In pixels: the projection onto an axis, divided by its squared length.
        along = tf.reduce_sum(gap * axis, axis=-1) / tf.reduce_sum(tf.square(axis), axis=-1)
        is_inside &= tf.abs(along) <= half
    normal = tf.math.l2_normalize(tf.linalg.cross(inputs.right, inputs.down), axis=-1)
    is_inside &= tf.abs(tf.reduce_sum(gap * normal, axis=-1)) <= _ON_SLICE_MM
    return tf.where(tf.reduce_any(is_inside, axis=-1)[:, tf.newaxis], points, float("nan"))


def make_axial_localizer_train_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    config: LocalizerConfig,
    jitter_mm: tuple[float, float, float],
    seed: int,
    start_epoch: int = 0,
) -> tf.data.Dataset:
    """Returns batches of augmented crops with the annotated points; see `training_batches`.

    Args:
        source: training studies.
        points: out-of-fold predictions of the sagittal localizers, float32 [25, 3] by study, LPS mm; they
            have the same errors as in evaluation. Where they are NaN the annotated level point is used.
        config: crop size, batch size, cache and augmentation.
        jitter_mm: standard deviation of the additional jitter of the level points along x, y, z (LPS).
        seed: seed of order and augmentation.
        start_epoch: first epoch.

    Returns:
        Dataset of (inputs, points): inputs are the fields of `AxialLocalizerInputs` with a leading study
        axis, points float32 [study, 10, 3], LPS mm, NaN where not annotated or not shown by the crop. All
        batches are full; the dataset does not end.
    """
    crop, augmentation = axial_crop(config), config.training.augmentation
    sigma_mm = tf.constant(jitter_mm, tf.float32)
    reach_mm = augmented_reach_mm(crop, augmentation, jitter_mm)
    attach = attach_points(points)

    def prepare(record: Record) -> Record:
        predicted = axial_anchors(attach(record)["landmarks"])
        anchors = tf.where(tf.math.is_finite(predicted), predicted, axial_anchors(record["points"]))
        decoded = decode_for_crops(
            record, anchors, crop, plane=Plane.AXIAL_T2, slack=_SLACK_SLICES, reach_mm=reach_mm
        )
        return {**decoded, "anchors": anchors, "targets": tf.gather(record["points"], _ROWS)}

    def augment(record: Record, study_seed: tf.Tensor) -> InputsAndTargets:
        anchors = jitter_points(record["anchors"], study_seed, sigma_mm)
        warp = random_warp(study_seed, augmentation)
        inputs = cut_axial_inputs(record, anchors, config=config, warp=warp)
        image = random_intensity(inputs.image, study_seed, augmentation)
        return inputs._replace(image=image)._asdict(), reachable_points(inputs, record["targets"])

    return training_batches(
        source,
        prepare=prepare,
        augment=augment,
        training=config.training,
        seed=seed,
        start_epoch=start_epoch,
    )


def make_axial_localizer_eval_dataset(
    source: RecordSource, points: Mapping[str, Points], *, config: LocalizerConfig, batch_studies: int
) -> tf.data.Dataset:
    """Returns batches of unaugmented crops at given (predicted) level points.

    Returns:
        Dataset of (inputs, points, study_id) as from `evaluation_batches`, points as in training.
    """
    attach = attach_points(points)

    def cut(record: Record) -> InputsAndTargets:
        inputs = study_axial_inputs(record, attach(record)["landmarks"], config)
        targets = tf.gather(record["points"], _ROWS)
        return inputs, reachable_points(AxialLocalizerInputs(**inputs), targets)

    return evaluation_batches(source, cut=cut, batch_studies=batch_studies)
