"""Losses that the metric and missing labels ask for."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from lumbar_tf.labels import FINDINGS, Family, Severity

_SEVERITY_WEIGHTS = tuple(severity.weight for severity in Severity)


class WeightedSeverityLoss(keras.losses.Loss):
    """The competition's weighted log loss on logits, missing labels left out.

    For each family the cross-entropy of its rows is averaged with weights 1, 2, 4 for Normal/Mild,
    Moderate, Severe, as in the metric's terms (a) to (c); the loss is the mean over families that
    have a label in the batch.
    """

    def __init__(self, rows: Sequence[int]) -> None:
        """Takes the findings, as rows of the 25, that the network's outputs answer."""
        super().__init__(name="weighted_severity")
        families = [FINDINGS[row].condition.family for row in rows]
        self._members = tf.constant(
            [[float(family is each) for family in families] for each in Family], tf.float32
        )

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss.

        Args:
            y_true: int [study, rows], -1 for missing.
            y_pred: float [study, rows, 3], logits.

        Returns:
            float32 scalar; 0 where the batch has no label at all.
        """
        y_true = tf.cast(y_true, tf.int32)
        known = y_true >= 0
        grade = tf.maximum(y_true, 0)
        weight = tf.where(known, tf.gather(tf.constant(_SEVERITY_WEIGHTS), grade), 0.0)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(grade, tf.cast(y_pred, tf.float32))
        # [family, rows] x [study, rows] -> [family]
        total = tf.einsum("fr,sr->f", self._members, entropy * weight)
        weights = tf.einsum("fr,sr->f", self._members, weight)
        present = tf.cast(weights > 0, tf.float32)
        return tf.reduce_sum(tf.math.divide_no_nan(total, weights)) / tf.maximum(tf.reduce_sum(present), 1.0)
