"""What localizers are trained and evaluated on: batches of fields of whole studies, of static shape."""

from collections.abc import Sequence

import tensorflow as tf

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.inputs.augmentation import random_intensity, random_warp
from lumbar_tf.inputs.crops import identity_warp
from lumbar_tf.inputs.localizer_inputs import Field, FieldSpec, cut_field, select_stack
from lumbar_tf.inputs.record_source import RecordSource, wanted_records
from lumbar_tf.inputs.slice_decoding import keep_slices
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.inputs.study_order import epoch_studies, shuffled, with_seeds


def _keep_for_field(record: Record, num_slices: int) -> Record:
    """Decodes the slices that the localizer looks at."""
    index, mask = select_stack(record, num_slices)
    kept = keep_slices(record, tf.boolean_mask(index, mask))
    return {**kept, "points": record["points"], "study_id": record["study_id"]}


def study_field(record: Record, spec: FieldSpec) -> dict[str, tf.Tensor]:
    """Cuts one study's field as evaluation and the exported graph see it.

    Args:
        record: parsed record with at least one slice.
        spec: the field.

    Returns:
        The localizer's inputs; see `localizer_inputs`.
    """
    return localizer_inputs(
        cut_field(_keep_for_field(record, spec.num_slices), spec=spec, warp=identity_warp())
    )


def localizer_inputs(field: Field) -> dict[str, tf.Tensor]:
    """Returns the localizer's inputs, named as the fields of `Field`."""
    return dict(field._asdict())


def field_spec(config: LocalizerConfig) -> FieldSpec:
    """Returns the field that a localizer's configuration names."""
    return FieldSpec(
        config.side_mm, config.side_px, config.supersample, config.num_slices, config.covers_image
    )


def make_localizer_train_dataset(
    source: RecordSource, *, rows: Sequence[int], config: LocalizerConfig, seed: int, start_epoch: int = 0
) -> tf.data.Dataset:
    """Batches of augmented fields with the annotated points; see `make_grader_train_dataset`.

    Returns:
        Dataset of (inputs, points): inputs as `localizer_inputs` with a leading study axis, points
        float32 [study, rows, 3], LPS mm, NaN where nobody annotated. Batches are full and never end.
    """
    spec, training = field_spec(config), config.training

    def augment(record: Record, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        field = cut_field(record, spec=spec, warp=random_warp(number, training.augmentation))
        image = random_intensity(field.image, number, training.augmentation)
        image = tf.where(field.mask[:, tf.newaxis, tf.newaxis], image, 0.0)
        return localizer_inputs(field._replace(image=image)), tf.gather(record["points"], list(rows))

    dataset = wanted_records(source)
    dataset = dataset.map(
        lambda record: _keep_for_field(record, config.num_slices), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = shuffled(dataset, training, len(source.study_ids), seed, start_epoch)
    start = start_epoch * epoch_studies(training, len(source.study_ids))
    dataset = with_seeds(dataset, seed, start).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(min(training.batch_studies, len(source.study_ids)), drop_remainder=True)
    return dataset.prefetch(tf.data.AUTOTUNE)


def make_localizer_eval_dataset(
    source: RecordSource, *, rows: Sequence[int], config: LocalizerConfig, batch_studies: int
) -> tf.data.Dataset:
    """Batches of plain fields.

    Returns:
        Dataset of (inputs, points, study_id), in an order that depends on the files alone; the last
        batch may be smaller.
    """
    spec = field_spec(config)

    def cut(record: Record) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        return study_field(record, spec), tf.gather(record["points"], list(rows)), record["study_id"]

    dataset = wanted_records(source).map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_studies).prefetch(tf.data.AUTOTUNE)
