"""What graders are trained and evaluated on: batches of the crops of whole studies, of static shape.

Two stages: the first reads, parses and decodes just what is needed of the slices (and can be kept in memory),
the second warps and cuts. Training and evaluation have makers of their own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import CropConfig, TrainingConfig
from lumbar_tf.inputs.augmentation import augment_crops, mix_studies, random_warp
from lumbar_tf.inputs.augmentation.draws import Draw, stream
from lumbar_tf.inputs.crop_layout import CropLayout, anchor_points
from lumbar_tf.inputs.crops import Crops, cut_crops, identity_warp
from lumbar_tf.inputs.label_mask import mask_labels
from lumbar_tf.inputs.record_source import Points, RecordSource, attach_points, wanted_records
from lumbar_tf.inputs.slice_decoding import JITTER_LIMIT, augmented_reach_mm, corner_mm, keep_for_crops
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.inputs.study_order import epoch_studies, shuffled, with_seeds
from lumbar_tf.labels import NUM_SEVERITIES

#: Slices decoded beyond a crop's own on either side, so that a jittered landmark finds its slice.
_SLACK_SLICES = 1


def _keep(record: Record, layout: CropLayout, crop: CropConfig, *, slack: int, reach_mm: float) -> Record:
    """Decodes what crops around `landmarks` need."""
    anchors = anchor_points(record["landmarks"], layout)
    kept = keep_for_crops(record, anchors, crop, plane=layout.plane, slack=slack, reach_mm=reach_mm)
    return {**kept, **{key: record[key] for key in ("labels", "landmarks", "study_id")}}


def study_crops(
    record: Record, landmarks: tf.Tensor, layout: CropLayout, crop: CropConfig
) -> dict[str, tf.Tensor]:
    """Cuts one study's crops as evaluation and the exported graph see them.

    Args:
        record: parsed record with at least one slice.
        landmarks: float32 [25, 3], LPS mm, NaN where unknown.
        layout: the plane's layout.
        crop: size.

    Returns:
        The grader's inputs; see `grader_inputs`.
    """
    given = {**record, "landmarks": landmarks}
    kept = _keep(given, layout, crop, slack=0, reach_mm=corner_mm(crop))
    return grader_inputs(_plain_crops(kept, layout, crop))


def _plain_crops(kept: Record, layout: CropLayout, crop: CropConfig) -> Crops:
    return cut_crops(
        kept,
        anchor_points(kept["landmarks"], layout),
        config=crop,
        plane=layout.plane,
        sides=layout.sides,
        warp=identity_warp(),
    )


def _prefer_annotated(record: Record) -> Record:
    """Trains around the annotator's point where there is one, else around the predicted one."""
    points = record["points"]
    return {**record, "landmarks": tf.where(tf.math.is_finite(points), points, record["landmarks"])}


def grader_inputs(crops: Crops) -> dict[str, tf.Tensor]:
    """Returns the grader's inputs: image [P, S, H, W], mask [P, S], offset_mm [P, S]."""
    return {"image": crops.image, "mask": crops.mask, "offset_mm": crops.offset_mm}


def severity_targets(labels: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns one-hot targets of `layout.rows`, float32 [rows, 3], all zeros where the label is missing.

    Args:
        labels: integers [25], -1 for missing.
        layout: the plane's layout.
    """
    return tf.one_hot(tf.gather(tf.cast(labels, tf.int32), layout.rows), NUM_SEVERITIES)


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
    """Batches of augmented crops of whole studies.

    Args:
        source: the training folds.
        points: predicted landmarks by study, used where the annotator gave none.
        layout: crops and rows.
        crop: size.
        training: batch size, cache and augmentation.
        jitter_mm: standard deviation of the landmark jitter along x, y, z (LPS).
        seed: of order and augmentation.
        start_epoch: the first epoch that is wanted; its batches are those of a run from epoch 0 on.
        hidden: labels that training does not see, bool [25] by study; see `mask_labels`.

    Returns:
        Dataset of (inputs, targets): inputs as `grader_inputs` with a leading study axis, targets float32
        [study, rows, 3] as `severity_targets` gives them, soft where crops are mixed. Batches are full and
        never end.
    """
    sigma = tf.constant(jitter_mm, tf.float32)
    reach_mm = augmented_reach_mm(crop, training.augmentation, jitter_mm)

    def augment(record: Record, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        anchors = anchor_points(record["landmarks"], layout)
        jitter = tf.random.stateless_normal(tf.shape(anchors), stream(number, Draw.JITTER))
        moved = anchors + sigma * tf.clip_by_value(jitter, -JITTER_LIMIT, JITTER_LIMIT)
        crops = cut_crops(
            record,
            moved,
            config=crop,
            plane=layout.plane,
            sides=layout.sides,
            warp=random_warp(number, training.augmentation),
        )
        crops = augment_crops(crops, number, training.augmentation)
        return grader_inputs(crops), severity_targets(record["labels"], layout), number

    def mix(
        inputs: dict[str, tf.Tensor], targets: tf.Tensor, numbers: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        # A batch mixes by its first study's number: that depends on the place in the run alone, too.
        return mix_studies(inputs, targets, numbers[0], training.augmentation, layout=layout)

    mask, attach = mask_labels(hidden or {}), attach_points(points)

    def keep(record: Record) -> Record:
        prepared = _prefer_annotated(attach(mask(record)))
        return _keep(prepared, layout, crop, slack=_SLACK_SLICES, reach_mm=reach_mm)

    dataset = wanted_records(source).map(keep, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = shuffled(dataset, training, len(source.study_ids), seed, start_epoch)
    start = start_epoch * epoch_studies(training, len(source.study_ids))
    dataset = with_seeds(dataset, seed, start).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(min(training.batch_studies, len(source.study_ids)), drop_remainder=True)
    return dataset.map(mix, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def make_grader_eval_dataset(
    source: RecordSource,
    points: Mapping[str, Points],
    *,
    layout: CropLayout,
    crop: CropConfig,
    batch_studies: int,
) -> tf.data.Dataset:
    """Batches of plain crops at the given (predicted) landmarks.

    Returns:
        Dataset of (inputs, targets, study_id), targets as `severity_targets` gives them, in an order that
        depends on the files alone; the last batch may be smaller.
    """
    attach = attach_points(points)

    def cut(record: Record) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        targets = severity_targets(record["labels"], layout)
        return study_crops(record, attach(record)["landmarks"], layout, crop), targets, record["study_id"]

    dataset = wanted_records(source).map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_studies).prefetch(tf.data.AUTOTUNE)
