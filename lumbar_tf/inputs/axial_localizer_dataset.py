"""tf.data for the axial localizer: batches of whole studies, ten crops each, with static shapes."""

from collections.abc import Mapping

import tensorflow as tf

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.inputs.augmentation import random_intensity, random_warp
from lumbar_tf.inputs.augmentation.draws import Draw, stream
from lumbar_tf.inputs.axial_localizer_inputs import (
    AxialField,
    axial_anchors,
    axial_crop,
    axial_inputs,
    cut_axial_field,
    reachable_points,
    study_axial_field,
)
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.record_source import Points, RecordSource, attach_points, wanted_records
from lumbar_tf.inputs.slice_decoding import JITTER_LIMIT, augmented_reach_mm, keep_for_crops
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.inputs.study_order import epoch_studies, shuffled, with_seeds
from lumbar_tf.labels import Plane

_ROWS = list(localizer_rows(Plane.AXIAL_T2))
#: Slices decoded beyond a crop's own on either side, so that a jittered level point finds its slice.
_SLACK_SLICES = 1


def make_axial_localizer_train_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    config: LocalizerConfig,
    jitter_mm: tuple[float, float, float],
    seed: int,
    start_epoch: int = 0,
) -> tf.data.Dataset:
    """Batches of augmented crops with the annotated points; see `make_grader_train_dataset`.

    Args:
        source: the training folds.
        points: float32 [25, 3] by study, LPS mm: what the sagittal localizers found out of fold, which has
            the errors that evaluation has. Where they found nothing the annotator's level point counts.
        config: field, batch size, cache and augmentation.
        jitter_mm: standard deviation of the level points' further jitter along x, y, z (LPS).
        seed: of order and augmentation.
        start_epoch: the first epoch that is wanted.

    Returns:
        Dataset of (inputs, points): inputs as `axial_inputs` with a leading study axis, points float32
        [study, 10, 3], LPS mm, NaN where nobody annotated or the crop does not show the point. Batches are
        full and never end.
    """
    training, crop = config.training, axial_crop(config)
    sigma = tf.constant(jitter_mm, tf.float32)
    reach_mm = augmented_reach_mm(crop, training.augmentation, jitter_mm)

    def keep(record: Record) -> Record:
        found, annotated = axial_anchors(record["landmarks"]), axial_anchors(record["points"])
        anchors = tf.where(tf.math.is_finite(found), found, annotated)
        kept = keep_for_crops(
            record, anchors, crop, plane=Plane.AXIAL_T2, slack=_SLACK_SLICES, reach_mm=reach_mm
        )
        return {**kept, "anchors": anchors, "targets": tf.gather(record["points"], _ROWS)}

    def augment(record: Record, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        anchors = record["anchors"]
        jitter = tf.random.stateless_normal(tf.shape(anchors), stream(number, Draw.JITTER))
        warp = random_warp(number, training.augmentation)
        moved = anchors + sigma * tf.clip_by_value(jitter, -JITTER_LIMIT, JITTER_LIMIT)
        field = cut_axial_field(record, moved, config=config, warp=warp)
        image = random_intensity(field.image, number, training.augmentation)
        image = tf.where(field.mask[..., tf.newaxis, tf.newaxis], image, 0.0)
        field = field._replace(image=image)
        return axial_inputs(field), reachable_points(field, record["targets"])

    dataset = wanted_records(source).map(attach_points(points))
    dataset = dataset.map(keep, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = shuffled(dataset, training, len(source.study_ids), seed, start_epoch)
    start = start_epoch * epoch_studies(training, len(source.study_ids))
    dataset = with_seeds(dataset, seed, start).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(min(training.batch_studies, len(source.study_ids)), drop_remainder=True)
    return dataset.prefetch(tf.data.AUTOTUNE)


def make_axial_localizer_eval_dataset(
    source: RecordSource, points: Mapping[str, Points], *, config: LocalizerConfig, batch_studies: int
) -> tf.data.Dataset:
    """Batches of plain crops at the given (predicted) level points.

    Returns:
        Dataset of (inputs, points, study_id), points as in training, in an order that depends on the files
        alone; the last batch may be smaller.
    """

    def cut(record: Record) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        inputs = study_axial_field(record, record["landmarks"], config)
        targets = reachable_points(AxialField(**inputs), tf.gather(record["points"], _ROWS))
        return inputs, targets, record["study_id"]

    dataset = wanted_records(source).map(attach_points(points))
    dataset = dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_studies).prefetch(tf.data.AUTOTUNE)
