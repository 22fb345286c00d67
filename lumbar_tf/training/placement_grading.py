"""Predictions of a grader at annotated points, at predicted points, and at these in the annotated slice."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import NUM_PLACEMENTS
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, NUM_SEVERITIES
from lumbar_tf.models.grader import log_probabilities


@dataclass(frozen=True, eq=False)
class PlacedPredictions:
    """Predictions at the three places.

    Attributes:
        study_ids: [num_studies].
        labels: int64 [num_studies, 25], -1 where missing.
        probabilities: float64 [3, num_studies, 25, 3], NaN for findings without an annotated or without a
            predicted point, and for those that the plane does not grade.
        slice_offsets: slices between the annotated and the predicted one, int64 [num_studies, 25].
    """

    study_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    slice_offsets: NDArray[np.int64]


def grade_placements(model: keras.Model, dataset: tf.data.Dataset, layout: CropLayout) -> PlacedPredictions:
    """Grades studies at the three places.

    Args:
        model: grader.
        dataset: from `make_placement_dataset`.
        layout: crops and rows of the grader.
    """
    study_ids: list[str] = []
    labels, offsets = ([np.zeros((0, NUM_FINDINGS), np.int64)] for _ in range(2))
    predictions = [np.zeros((NUM_PLACEMENTS, 0, NUM_FINDINGS, NUM_SEVERITIES))]
    for inputs, targets, ids in dataset:
        study_ids += [study_id.decode() for study_id in ids.numpy()]
        known = tf.reduce_any(targets > 0, axis=-1)
        grades = tf.where(known, tf.argmax(targets, axis=-1), MISSING_LABEL)
        labels.append(_all_findings(grades, layout, MISSING_LABEL))
        offsets.append(_all_findings(inputs.pop("slice_offset"), layout, 0))
        is_compared = _all_findings(inputs.pop("is_compared"), layout, 0) > 0
        parts = {name: tf.split(values, NUM_PLACEMENTS, axis=1) for name, values in inputs.items()}
        placed = []
        for place in range(NUM_PLACEMENTS):
            crops = {name: values[place] for name, values in parts.items()}
            placed.append(log_probabilities(model(crops, training=False), crops["mask"], layout).numpy())
        probabilities = np.exp(np.stack(placed).astype(np.float64))
        predictions.append(np.where(is_compared[..., np.newaxis], probabilities, np.nan))
    return PlacedPredictions(
        tuple(study_ids), np.concatenate(labels), np.concatenate(predictions, axis=1), np.concatenate(offsets)
    )


def _all_findings(values: tf.Tensor, layout: CropLayout, missing: int) -> NDArray[np.int64]:
    """Returns values of the output rows, [study, rows], as int64 [study, 25] of the targets' findings."""
    places = list(layout.target_places)
    filled = np.full((len(values), NUM_FINDINGS), missing, np.int64)
    filled[:, [layout.rows[place] for place in places]] = values.numpy()[:, places]
    return filled
