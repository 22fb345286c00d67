"""Inputs and datasets of the sagittal localizers: evenly spaced slices of one stack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.inputs.augmentation import random_intensity, random_warp
from lumbar_tf.inputs.crops import Warp, crop_affine, identity_warp, mask_slices, plane_axes, resample
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.inputs.slice_decoding import decode_slices
from lumbar_tf.inputs.slice_selection import Record, slice_normals
from lumbar_tf.inputs.study_batches import InputsAndTargets, evaluation_batches, training_batches


@dataclass(frozen=True)
class FieldOfView:
    """Field of view of a sagittal localizer.

    Attributes:
        side_mm: edge length in patient space.
        side_px: edge length in pixels.
        supersample: oversampling factor along each axis before averaging.
        num_slices: S, slices of the stack.
        covers_image: whether the edge length is that of the study's largest image instead of `side_mm`.
    """

    side_mm: float
    side_px: int
    supersample: int
    num_slices: int
    covers_image: bool = False


class LocalizerInputs(NamedTuple):
    """Inputs of a sagittal localizer for one study.

    Attributes:
        image: float32 [S, side_px, side_px].
        mask: bool [S], False where there is no slice.
        lateral_mm: float32 [S], patient x of each slice relative to the middle between the outermost ones (+
            is left); 0 where there is no slice.
        origin: float32 [S, 3], LPS mm of the image centre in each slice.
        right, down: float32 [S, 3], patient vectors of one pixel of `image` to the right and down.
    """

    image: tf.Tensor
    mask: tf.Tensor
    lateral_mm: tf.Tensor
    origin: tf.Tensor
    right: tf.Tensor
    down: tf.Tensor


def _centres(record: Record) -> tf.Tensor:
    """Returns the centre of each stored image, LPS mm, float32 [N, 3]."""
    across = (tf.cast(record["slices/columns"], tf.float32) - 1) / 2 * record["slices/column_spacing_mm"]
    downwards = (tf.cast(record["slices/rows"], tf.float32) - 1) / 2 * record["slices/row_spacing_mm"]
    return (
        record["slices/position"]
        + record["slices/row_direction"] * across[:, tf.newaxis]
        + record["slices/column_direction"] * downwards[:, tf.newaxis]
    )


def _longest_edge(record: Record, index: tf.Tensor) -> tf.Tensor:
    """Returns the longest edge of the selected images, mm, float32 []."""
    edges = [
        tf.cast(tf.gather(record[f"slices/{axis}s"], index), tf.float32)
        * tf.gather(record[f"slices/{axis}_spacing_mm"], index)
        for axis in ("row", "column")
    ]
    return tf.reduce_max(tf.stack(edges))


def select_stack(record: Record, num_slices: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Selects evenly spaced slices from the record's largest stack.

    The selection is symmetric: a stack in reverse order gives the same slices. Of two middle slices the one
    nearer to the patient's x = 0 is selected.

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
    # Halves are rounded towards the middle from both ends, which keeps the selection symmetric.
    even = tf.cast(tf.round(even + 1e-3 * tf.sign(last / 2 - even)), tf.int32)
    if num_slices % 2 == 1:
        lower, upper = (count - 1) // 2, count // 2
        lateral = tf.abs(tf.gather(_centres(record)[:, 0], members))
        middle = tf.where(lateral[upper] < lateral[lower], upper, lower)
        even = tf.where(tf.range(num_slices) == num_slices // 2, middle, even)
    place = tf.where(count <= num_slices, tf.range(num_slices), even)
    mask = place < count
    return tf.gather(members, tf.minimum(place, count - 1)), mask


def cut_localizer_inputs(record: Record, *, field: FieldOfView, warp: Warp) -> LocalizerInputs:
    """Cuts the field of view of one sagittal study, around the centre of each stored image.

    Args:
        record: from `decode_slices`, with at least the slices of `select_stack`.
        field: field of view.
        warp: augmentation, or `identity_warp()`.

    Returns:
        The inputs. Their patient coordinates include the warp, so targets need no change.
    """
    index, mask = select_stack(record, field.num_slices)
    axes = plane_axes(tf.gather(slice_normals(record), index), is_sagittal=True)
    centre = tf.gather(_centres(record), index)
    fine_px = field.side_px * field.supersample
    side_mm = _longest_edge(record, index) if field.covers_image else tf.constant(field.side_mm)
    affine = crop_affine(record, index, centre, axes, pitch_mm=side_mm / fine_px, size_px=fine_px, warp=warp)
    image = resample(record, index, affine, fine_px)
    if field.supersample > 1:
        image = tf.nn.avg_pool2d(image[..., tf.newaxis], field.supersample, field.supersample, "VALID")[
            ..., 0
        ]
    image = tf.ensure_shape(image, [field.num_slices, field.side_px, field.side_px])
    lateral = centre[:, 0]
    # The middle between the outermost slices, not their mean: a stack may have more slices on one side.
    rightmost = tf.reduce_min(tf.where(mask, lateral, np.float32(np.inf)))
    leftmost = tf.reduce_max(tf.where(mask, lateral, np.float32(-np.inf)))
    lateral = tf.where(mask, lateral - (rightmost + leftmost) / 2, 0.0)
    right, down = axes
    pitch_mm = side_mm / field.side_px
    return LocalizerInputs(
        image=mask_slices(image, mask),
        mask=mask,
        lateral_mm=lateral,
        origin=centre + right * warp.shift_mm[0] + down * warp.shift_mm[1],
        right=(right * warp.matrix[0, 0] + down * warp.matrix[1, 0]) * pitch_mm,
        down=(right * warp.matrix[0, 1] + down * warp.matrix[1, 1]) * pitch_mm,
    )


def study_localizer_inputs(record: Record, field: FieldOfView) -> dict[str, tf.Tensor]:
    """Cuts one study's inputs for evaluation and the exported graph.

    Args:
        record: parsed record with at least one slice.
        field: field of view.

    Returns:
        The fields of `LocalizerInputs`.
    """
    decoded = _decode_stack(record, field.num_slices)
    return cut_localizer_inputs(decoded, field=field, warp=identity_warp())._asdict()


def field_of_view(config: LocalizerConfig) -> FieldOfView:
    """Returns the field of view of a localizer's configuration."""
    return FieldOfView(
        config.side_mm, config.side_px, config.supersample, config.num_slices, config.covers_image
    )


def make_localizer_train_dataset(
    source: RecordSource, *, rows: Sequence[int], config: LocalizerConfig, seed: int, start_epoch: int = 0
) -> tf.data.Dataset:
    """Returns batches of augmented inputs with the annotated points; see `training_batches`.

    Args:
        source: training studies.
        rows: findings that the localizer predicts, as rows of the 25.
        config: field of view, batch size, cache and augmentation.
        seed: seed of order and augmentation.
        start_epoch: first epoch.

    Returns:
        Dataset of (inputs, points): inputs are the fields of `LocalizerInputs` with a leading study axis,
        points float32 [study, rows, 3], LPS mm, NaN where not annotated. All batches are full; the dataset
        does not end.
    """
    field, augmentation = field_of_view(config), config.training.augmentation

    def prepare(record: Record) -> Record:
        decoded = _decode_stack(record, field.num_slices)
        return {**decoded, "targets": tf.gather(record["points"], list(rows))}

    def augment(record: Record, study_seed: tf.Tensor) -> InputsAndTargets:
        warp = random_warp(study_seed, augmentation)
        inputs = cut_localizer_inputs(record, field=field, warp=warp)
        image = random_intensity(inputs.image, study_seed, augmentation)
        return inputs._replace(image=image)._asdict(), record["targets"]

    return training_batches(
        source,
        prepare=prepare,
        augment=augment,
        training=config.training,
        seed=seed,
        start_epoch=start_epoch,
    )


def make_localizer_eval_dataset(
    source: RecordSource, *, rows: Sequence[int], config: LocalizerConfig, batch_studies: int
) -> tf.data.Dataset:
    """Returns batches of unaugmented inputs.

    Returns:
        Dataset of (inputs, points, study_id) as from `evaluation_batches`, points as in training.
    """
    field = field_of_view(config)

    def cut(record: Record) -> InputsAndTargets:
        return study_localizer_inputs(record, field), tf.gather(record["points"], list(rows))

    return evaluation_batches(source, cut=cut, batch_studies=batch_studies)


def _decode_stack(record: Record, num_slices: int) -> Record:
    """Decodes the slices of `select_stack`."""
    index, mask = select_stack(record, num_slices)
    return decode_slices(record, tf.boolean_mask(index, mask))
