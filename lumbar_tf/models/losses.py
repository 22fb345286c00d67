"""Losses of the graders: weighted log loss, the competition's metric, and an ordinal loss.

Targets are float [study, rows, 3]: one-hot, a mixture where crops were mixed, and all 0 where the label is
missing. The weight of a row is the sum over its grades k of y_k * w_k, with the competition's weights
w = 1, 2, 4; missing labels have weight 0 and contribute nothing.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from lumbar_tf.labels import FINDINGS, Condition, Family, Severity

_SEVERITY_WEIGHTS = tuple(severity.weight for severity in Severity)
#: Exponent n of the smooth maximum of five p(severe): with 8 it is at least 0.82 (5 ** (-1 / 8)) of the
#: maximum, and 0.99 of it if the second largest is half as large.
_SHARPNESS = 8.0
#: Log p(severe) of a level without a label, which excludes it from the maximum.
_NEVER = -1.0e4


def total_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sums a value over the replicas that share a batch; returns it unchanged on a single device.

    Keras adds the gradients of a scalar loss over replicas. A loss that divides by the sum of weights in the
    batch must divide by this total. No gradient flows through it.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(value))


class WeightedSeverityLoss(keras.losses.Loss):
    """Weighted log loss of the competition on logits, without missing labels.

    For each family the cross-entropy of its rows is averaged with weights 1, 2, 4 for Normal/Mild, Moderate,
    Severe, as in the terms (a) to (c) of the metric. The loss is the mean over the families that have a label
    in the batch, optionally weighted. With several replicas the averages are those of the whole batch.
    """

    def __init__(
        self,
        rows: Sequence[int],
        *,
        is_weighted: bool = True,
        family_weights: Mapping[Family, float] | None = None,
    ) -> None:
        """Takes the layout of the network's outputs.

        Args:
            rows: index among the 25 findings of each output row.
            is_weighted: use the competition's weights; False weighs all grades equally.
            family_weights: weights of the families in the mean; 1 for families that are not listed.
        """
        super().__init__(name="weighted_severity")
        families = [FINDINGS[row].condition.family for row in rows]
        self._members = tf.constant(
            [[float(family is row_family) for row_family in families] for family in Family], tf.float32
        )
        self._term_weights = [(family_weights or {}).get(family, 1.0) for family in Family]
        self._weights = tf.constant(_SEVERITY_WEIGHTS if is_weighted else (1.0,) * len(Severity), tf.float32)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss.

        Args:
            y_true: float [study, rows, 3], all 0 for missing.
            y_pred: float [study, rows, 3], logits.

        Returns:
            float32 scalar; 0 if the batch has no labels.
        """
        weights = tf.cast(y_true, tf.float32) * self._weights
        logs = tf.nn.log_softmax(tf.cast(y_pred, tf.float32))
        return _mean_of_terms(*self._terms(weights, logs), self._term_weights)

    def _terms(self, weights: tf.Tensor, logs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the summed weighted losses and the summed weights of the terms, each [term]."""
        # [family, rows] x [study, rows] -> [family]
        losses = tf.reduce_sum(weights * self._costs(logs), axis=-1)
        return (
            tf.einsum("fr,sr->f", self._members, losses),
            tf.einsum("fr,sr->f", self._members, tf.reduce_sum(weights, axis=-1)),
        )

    def _costs(self, logs: tf.Tensor) -> tf.Tensor:
        """Returns the loss for each true grade from log-probabilities, both [study, rows, 3]."""
        return -logs


class OrdinalSeverityLoss(WeightedSeverityLoss):
    """Weighted loss in which the cost of a wrong grade grows with its distance from the true grade.

    The three grades are encoded as two binary targets, "at least Moderate" and "Severe", and the loss is the
    mean of their binary cross-entropies (Frank and Hall 2001, "A simple approach to ordinal classification"),
    as in CORAL (Cao, Mirjalili, Raschka 2020, arXiv:1901.07884). The binary probabilities are sums of one
    softmax, so P(at least Moderate) >= P(Severe) holds and the network keeps three logits.
    """

    def _costs(self, logs: tf.Tensor) -> tf.Tensor:
        normal, moderate, severe = tf.unstack(logs, axis=-1)
        at_least_moderate = _log_sum(moderate, severe)
        less_than_severe = _log_sum(normal, moderate)
        return -0.5 * tf.stack(
            [normal + less_than_severe, at_least_moderate + less_than_severe, at_least_moderate + severe],
            axis=-1,
        )


class MetricLoss(WeightedSeverityLoss):
    """The full metric of the competition: weighted loss plus the any-severe-spinal term.

    The term is the binary log loss of "any labelled canal level is severe" for each study, weighted by the
    largest weight among its canal labels. The metric predicts it with the maximum of p(severe), whose
    gradient reaches a single level. This loss uses the mean of p(severe) with weights p^n, which approaches
    the maximum as n grows and never exceeds it. No gradient flows through the weights, so that each level
    gets a gradient of the same sign in proportion to its weight. Without canal rows this is the weighted
    loss.
    """

    def __init__(
        self,
        rows: Sequence[int],
        *,
        is_weighted: bool = True,
        family_weights: Mapping[Family, float] | None = None,
        sharpness: float = _SHARPNESS,
    ) -> None:
        """Takes the layout of the network's outputs.

        Args:
            rows: index among the 25 findings of each output row.
            is_weighted: use the competition's weights; False weighs all grades equally.
            family_weights: weights of the terms; the any-severe-spinal term has that of the canal.
            sharpness: exponent n of the smooth maximum.
        """
        super().__init__(rows, is_weighted=is_weighted, family_weights=family_weights)
        self._canal = [
            place
            for place, row in enumerate(rows)
            if FINDINGS[row].condition is Condition.SPINAL_CANAL_STENOSIS
        ]
        self._sharpness = sharpness
        if self._canal:
            self._term_weights.append((family_weights or {}).get(Family.CANAL, 1.0))

    def _terms(self, weights: tf.Tensor, logs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, sums = super()._terms(weights, logs)
        if not self._canal:
            return losses, sums
        canal = tf.gather(weights, self._canal, axis=1)
        largest = tf.reduce_max(tf.reduce_sum(canal, axis=-1), axis=1)
        # y_severe, recovered from its weight; for a mixture its share of severe.
        is_severe = tf.reduce_max(canal[..., Severity.SEVERE], axis=1) / self._weights[Severity.SEVERE]
        logs = tf.gather(logs, self._canal, axis=1)
        shares = self._log_shares(logs[..., Severity.SEVERE], tf.reduce_sum(canal, axis=-1) > 0)
        log_any = tf.reduce_logsumexp(shares + logs[..., Severity.SEVERE], axis=1)
        # The shares sum to 1, so 1 - sum(share * p) = sum(share * (1 - p)), which avoids cancellation.
        log_none = tf.reduce_logsumexp(shares + _log_sum(logs[..., 0], logs[..., 1]), axis=1)
        entropy = -(is_severe * log_any + (1.0 - is_severe) * log_none)
        return (
            tf.concat([losses, tf.reduce_sum(largest * entropy, keepdims=True)], axis=0),
            tf.concat([sums, tf.reduce_sum(largest, keepdims=True)], axis=0),
        )

    def _log_shares(self, logs: tf.Tensor, is_labelled: tf.Tensor) -> tf.Tensor:
        """Returns the log weights of the smooth maximum from log p(severe), both [study, level]."""
        logs = tf.where(is_labelled, logs, _NEVER)
        return tf.stop_gradient(tf.nn.log_softmax(self._sharpness * logs, axis=1))


def _log_sum(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(tf.stack([first, second]), axis=0)


def _mean_of_terms(losses: tf.Tensor, sums: tf.Tensor, term_weights: Sequence[float]) -> tf.Tensor:
    """Returns the weighted mean of the terms losses / sums, over the terms [term] with a positive sum."""
    # Keras adds the gradients of scalar losses over replicas. With the weights of the whole batch in the
    # denominator the sum is the gradient of the whole batch's loss.
    sums = total_over_replicas(sums)
    shares = tf.where(sums > 0, tf.constant(term_weights, tf.float32), 0.0)
    total = tf.reduce_sum(shares * tf.math.divide_no_nan(losses, sums))
    return tf.math.divide_no_nan(total, tf.reduce_sum(shares))


#: By their names in a configuration.
LOSSES: dict[str, Callable[..., keras.losses.Loss]] = {
    "weighted": WeightedSeverityLoss,
    "metric": MetricLoss,
    "ordinal": OrdinalSeverityLoss,
}


def build_loss(
    name: str,
    rows: Sequence[int],
    *,
    is_weighted: bool = True,
    family_weights: Mapping[Family, float] | None = None,
) -> keras.losses.Loss:
    """Returns the loss of a grader's configuration.

    Args:
        name: a key of `LOSSES`.
        rows: index among the 25 findings of each output row.
        is_weighted: use the competition's weights; False, for the first step of a two-step training, weighs
            all grades equally.
        family_weights: weights of the families in the mean; 1 for families that are not listed.
    """
    return LOSSES[name](rows, is_weighted=is_weighted, family_weights=family_weights)
