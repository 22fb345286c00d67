"""Training and evaluation datasets of the graders: batches of the crops of whole studies."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import CropConfig, TrainingConfig
from lumbar_tf.inputs.augmentation import augment_crops, jitter_points, mix_studies, random_warp
from lumbar_tf.inputs.crop_layout import CropLayout, anchor_points
from lumbar_tf.inputs.crops import cut_crops, identity_warp
from lumbar_tf.inputs.record_source import Points, RecordSource, attach_points, mask_labels
from lumbar_tf.inputs.slice_decoding import augmented_reach_mm, corner_mm, decode_for_crops
from lumbar_tf.inputs.slice_selection import Record, select_slices, slice_normals
from lumbar_tf.inputs.study_batches import InputsAndTargets, evaluation_batches, training_batches
from lumbar_tf.labels import NUM_SEVERITIES

#: Places that `make_placement_dataset` cuts crops at.
NUM_PLACEMENTS = 3
#: Additional slices decoded on either side of a crop's own, for jittered landmarks.
_SLACK_SLICES = 1


def make_grader_train_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    layout: CropLayout,
    crop: CropConfig,
    training: TrainingConfig,
    jitter_mm: Sequence[float],
    seed: int,
    start_epoch: int = 0,
    hidden: Mapping[str, NDArray[np.bool_]] | None = None,
) -> tf.data.Dataset:
    """Returns batches of augmented crops of whole studies.

    Args:
        source: training studies.
        points: predicted landmarks, float32 [25, 3] by study, used where there is no annotated one.
        layout: crops and rows.
        crop: crop size.
        training: batch size, cache and augmentation.
        jitter_mm: standard deviation of the landmark jitter along x, y, z (LPS).
        seed: seed of order and augmentation.
        start_epoch: first epoch; its batches are those of a run that starts at epoch 0.
        hidden: labels to hide, bool [25] by study; see `mask_labels`.

    Returns:
        Dataset of (inputs, targets): inputs are the fields of `Crops` with a leading study axis, targets
        float32 [study, rows, 3] as from `severity_targets`, soft where crops are mixed. All batches are full;
        the dataset does not end.
    """
    sigma_mm = tf.constant(jitter_mm, tf.float32)
    reach_mm = augmented_reach_mm(crop, training.augmentation, jitter_mm)
    mask, attach = mask_labels(hidden or {}), attach_points(points)

    def prepare(record: Record) -> Record:
        prepared = _prefer_annotated(attach(mask(record)))
        return _decode(prepared, layout, crop, reach_mm=reach_mm)

    def augment(record: Record, study_seed: tf.Tensor) -> InputsAndTargets:
        anchors = anchor_points(record["landmarks"], layout)
        crops = cut_crops(
            record,
            jitter_points(anchors, study_seed, sigma_mm),
            config=crop,
            plane=layout.plane,
            sides=layout.sides,
            warp=random_warp(study_seed, training.augmentation),
        )
        crops = augment_crops(crops, study_seed, training.augmentation)
        return crops._asdict(), severity_targets(record["labels"], layout)

    def mix(inputs: dict[str, tf.Tensor], targets: tf.Tensor, batch_seed: tf.Tensor) -> InputsAndTargets:
        return mix_studies(inputs, targets, batch_seed, training.augmentation, layout=layout)

    return training_batches(
        source,
        prepare=prepare,
        augment=augment,
        mix=mix,
        training=training,
        seed=seed,
        start_epoch=start_epoch,
    )


def make_grader_eval_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    layout: CropLayout,
    crop: CropConfig,
    batch_studies: int,
) -> tf.data.Dataset:
    """Returns batches of unaugmented crops at given (predicted) landmarks.

    Returns:
        Dataset of (inputs, targets, study_id) as from `evaluation_batches`, targets as from
        `severity_targets`.
    """
    attach = attach_points(points)

    def cut(record: Record) -> InputsAndTargets:
        inputs = study_crops(record, attach(record)["landmarks"], layout, crop)
        return inputs, severity_targets(record["labels"], layout)

    return evaluation_batches(source, cut=cut, batch_studies=batch_studies)


def study_crops(
    record: Record, landmarks: tf.Tensor, layout: CropLayout, crop: CropConfig
) -> dict[str, tf.Tensor]:
    """Cuts one study's crops for evaluation and the exported graph.

    Args:
        record: parsed record with at least one slice.
        landmarks: float32 [25, 3], LPS mm, NaN where unknown.
        layout: the plane's layout.
        crop: crop size.

    Returns:
        The grader's inputs, the fields of `Crops`.
    """
    return _crops_around(record, anchor_points(landmarks, layout), layout, crop)


def make_placement_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    layout: CropLayout,
    crop: CropConfig,
    batch_studies: int,
) -> tf.data.Dataset:
    """Returns crops at annotated points, at predicted points in the annotated slice, and at predicted points.

    Args:
        source: studies.
        points: predicted landmarks, float32 [25, 3] by study.
        layout: the plane's layout, of P crops.
        crop: crop size.
        batch_studies: batch size.

    Returns:
        Dataset of (inputs, targets, study_id): inputs are the fields of `Crops` for 3 * P crops in this
        order; `slice_offset`, int32 [study, rows], slices between the annotated and the predicted one; and
        `is_compared`, bool [study, rows], whether each crop of a finding has an annotated and a predicted
        point. Other crops are all cut at the predicted point. Targets are those of `severity_targets`.
    """
    attach = attach_points(points)
    views = tf.constant(layout.row_views)

    def cut(record: Record) -> InputsAndTargets:
        predicted = anchor_points(attach(record)["landmarks"], layout)
        annotated = anchor_points(record["points"], layout)
        normal, offset, is_known = _compare_slices(record, annotated, predicted, layout, crop)
        along = tf.reduce_sum((annotated - predicted) * normal, axis=-1, keepdims=True)
        anchors = [
            tf.where(is_known[:, tf.newaxis], moved, predicted)
            for moved in (annotated, predicted + along * normal, predicted)
        ]
        inputs = _crops_around(
            record, tf.concat(anchors, axis=0), layout, crop, num_placements=NUM_PLACEMENTS
        )
        inputs["slice_offset"] = tf.reduce_max(tf.where(views, offset, 0), axis=-1)
        inputs["is_compared"] = tf.reduce_all(is_known | ~views, axis=-1)
        return inputs, severity_targets(record["labels"], layout)

    return evaluation_batches(source, cut=cut, batch_studies=batch_studies)


def severity_targets(labels: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns one-hot targets of `layout.rows`, float32 [rows, 3], all zeros where the label is missing.

    Args:
        labels: integers [25], -1 for missing.
        layout: the plane's layout.
    """
    return tf.one_hot(tf.gather(tf.cast(labels, tf.int32), layout.rows), NUM_SEVERITIES)


def _crops_around(
    record: Record, anchors: tf.Tensor, layout: CropLayout, crop: CropConfig, *, num_placements: int = 1
) -> dict[str, tf.Tensor]:
    """Cuts crops without augmentation around `num_placements` sets of P points, float32 [sets * P, 3]."""
    decoded = decode_for_crops(record, anchors, crop, plane=layout.plane, slack=0, reach_mm=corner_mm(crop))
    sides = layout.sides * num_placements
    crops = cut_crops(decoded, anchors, config=crop, plane=layout.plane, sides=sides, warp=identity_warp())
    return crops._asdict()


def _compare_slices(
    record: Record, annotated: tf.Tensor, predicted: tf.Tensor, layout: CropLayout, crop: CropConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compares the slices nearest to annotated and predicted points.

    Returns:
        Normals of the annotated slices, float32 [P, 3]; the number of slices to the one of the same stack
        that is nearest to the predicted point, int32 [P]; whether both points have slices, bool [P].
    """
    (slices, is_annotated), (_, is_predicted) = (
        (selection.index[:, 0], selection.mask[:, 0])
        for selection in (
            select_slices(
                record,
                points,
                num_slices=1,
                max_distance_mm=crop.max_distance_mm,
                plane=layout.plane,
                reverse=tf.zeros(tf.shape(points)[:1], tf.bool),
            )
            for points in (annotated, predicted)
        )
    )
    normals, group = slice_normals(record), record["slices/group"]
    gaps = tf.abs(tf.reduce_sum((predicted[:, tf.newaxis] - record["slices/position"]) * normals, axis=-1))
    is_other = tf.not_equal(group, tf.gather(group, slices)[:, tf.newaxis])
    nearest = tf.argmin(tf.where(is_other, np.float32(np.inf), gaps), axis=-1, output_type=tf.int32)
    return tf.gather(normals, slices), tf.abs(nearest - slices), is_annotated & is_predicted


def _decode(record: Record, layout: CropLayout, crop: CropConfig, *, reach_mm: float) -> Record:
    """Decodes the pixels of crops around `landmarks`."""
    anchors = anchor_points(record["landmarks"], layout)
    decoded = decode_for_crops(
        record, anchors, crop, plane=layout.plane, slack=_SLACK_SLICES, reach_mm=reach_mm
    )
    return {**decoded, **{key: record[key] for key in ("labels", "landmarks", "study_id")}}


def _prefer_annotated(record: Record) -> Record:
    """Replaces predicted landmarks by annotated ones where these exist."""
    points = record["points"]
    return {**record, "landmarks": tf.where(tf.math.is_finite(points), points, record["landmarks"])}
