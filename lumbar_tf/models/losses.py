"""Losses that the metric and missing labels ask for.

Targets are float [study, rows, 3]: one-hot, a mixture where crops were mixed, all 0 where nobody graded.
A row's weight is y_k * w_k summed over its grades k, with the competition's weights w = 1, 2, 4;
a missing label weighs 0, so nothing is learnt from it.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from lumbar_tf.labels import FINDINGS, Condition, Family, Severity
from lumbar_tf.models.strategy import total_over_replicas

_SEVERITY_WEIGHTS = tuple(severity.weight for severity in Severity)
#: How much the largest of five p(severe) outweighs the others: with 8 the smooth maximum is at least 0.82
#: (5 ** (-1 / 8)) of it, and 0.99 where the second largest is half of it.
_SHARPNESS = 8.0
#: Logarithm of the probability that a level without a label is severe: the maximum passes it over.
_NEVER = -1.0e4


class WeightedSeverityLoss(keras.losses.Loss):
    """The competition's weighted log loss on logits, missing labels left out.

    For each family the cross-entropy of its rows is averaged with weights 1, 2, 4 for Normal/Mild,
    Moderate, Severe, as in the metric's terms (a) to (c); the loss is the mean over families that have a
    label in the batch, each with its own weight if one is given. Over several replicas the averages are
    those of the whole batch.
    """

    def __init__(
        self,
        rows: Sequence[int],
        *,
        is_weighted: bool = True,
        family_weights: Mapping[Family, float] | None = None,
    ) -> None:
        """Takes what the network answers.

        Args:
            rows: the findings, as rows of the 25.
            is_weighted: False charges all grades alike.
            family_weights: of families' terms in the mean; 1 where a family is not named.
        """
        super().__init__(name="weighted_severity")
        families = [FINDINGS[row].condition.family for row in rows]
        self._members = tf.constant(
            [[float(family is each) for family in families] for each in Family], tf.float32
        )
        self._term_weights = [(family_weights or {}).get(each, 1.0) for each in Family]
        self._weights = tf.constant(_SEVERITY_WEIGHTS if is_weighted else (1.0,) * len(Severity), tf.float32)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss.

        Args:
            y_true: float [study, rows, 3], all 0 for missing.
            y_pred: float [study, rows, 3], logits.

        Returns:
            float32 scalar; 0 where the batch has no label at all.
        """
        weights = tf.cast(y_true, tf.float32) * self._weights
        logs = tf.nn.log_softmax(tf.cast(y_pred, tf.float32))
        return _mean_of_terms(*self._terms(weights, logs), self._term_weights)

    def _terms(self, weights: tf.Tensor, logs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each term's summed weight x loss and summed weight, two arrays [term]."""
        # [family, rows] x [study, rows] -> [family]
        losses = tf.reduce_sum(weights * self._costs(logs), axis=-1)
        return (
            tf.einsum("fr,sr->f", self._members, losses),
            tf.einsum("fr,sr->f", self._members, tf.reduce_sum(weights, axis=-1)),
        )

    def _costs(self, logs: tf.Tensor) -> tf.Tensor:
        """Returns what the answer costs for each true grade, from and to [study, rows, 3]."""
        return -logs


class OrdinalSeverityLoss(WeightedSeverityLoss):
    """As the weighted loss, but a wrong grade costs more the farther it is off.

    The three grades are two questions, "at least Moderate?" and "Severe?", and the loss is the mean of
    their binary cross-entropies: Frank and Hall 2001, "A simple approach to ordinal classification", and
    the loss of CORAL (Cao, Mirjalili, Raschka 2020, arXiv:1901.07884). Here the answers are
    sums of one softmax, so P(at least Moderate) >= P(Severe) holds and the outputs stay three logits.
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
    """The competition's whole metric: the weighted loss with the any-severe-spinal term.

    Each study adds the binary log loss of "some labelled canal level is severe", weighted by the largest
    weight among its canal labels. The metric predicts it by the largest p(severe), which pulls on one level
    alone; here it is the mean of p(severe) with weights p^n, which becomes the maximum as n grows and never
    exceeds it. The weights are taken as they are: every level is pulled the same way, by its share.
    Without canal rows this is the weighted loss.
    """

    def __init__(
        self,
        rows: Sequence[int],
        *,
        is_weighted: bool = True,
        family_weights: Mapping[Family, float] | None = None,
        sharpness: float = _SHARPNESS,
    ) -> None:
        """Takes what the network answers.

        Args:
            rows: the findings, as rows of the 25.
            is_weighted: False charges all grades alike.
            family_weights: of the terms; the any-severe term has the canal's.
            sharpness: n.
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
        # y_severe again from its weight: the share of a mixture in which the level is severe.
        is_severe = tf.reduce_max(canal[..., Severity.SEVERE], axis=1) / self._weights[Severity.SEVERE]
        logs = tf.gather(logs, self._canal, axis=1)
        shares = self._log_shares(logs[..., Severity.SEVERE], tf.reduce_sum(canal, axis=-1) > 0)
        log_any = tf.reduce_logsumexp(shares + logs[..., Severity.SEVERE], axis=1)
        # The shares sum to 1, so 1 - sum of share * p is the sum of share * (1 - p), which keeps its digits.
        log_none = tf.reduce_logsumexp(shares + _log_sum(logs[..., 0], logs[..., 1]), axis=1)
        entropy = -(is_severe * log_any + (1.0 - is_severe) * log_none)
        return (
            tf.concat([losses, tf.reduce_sum(largest * entropy, keepdims=True)], axis=0),
            tf.concat([sums, tf.reduce_sum(largest, keepdims=True)], axis=0),
        )

    def _log_shares(self, logs: tf.Tensor, is_labelled: tf.Tensor) -> tf.Tensor:
        """Returns the logarithm of each level's share in the smooth maximum, from and to [study, level]."""
        logs = tf.where(is_labelled, logs, _NEVER)
        return tf.stop_gradient(tf.nn.log_softmax(self._sharpness * logs, axis=1))


def _log_sum(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(tf.stack([first, second]), axis=0)


def _mean_of_terms(losses: tf.Tensor, sums: tf.Tensor, term_weights: Sequence[float]) -> tf.Tensor:
    """Divides each term by its weights' sum and averages those that have any, [term] to a scalar."""
    # Keras leaves a scalar loss as it is and adds the replicas' gradients: with the whole batch's weights
    # below the line that is the gradient of the whole batch's loss.
    sums = total_over_replicas(sums)
    shares = tf.where(sums > 0, tf.constant(term_weights, tf.float32), 0.0)
    total = tf.reduce_sum(shares * tf.math.divide_no_nan(losses, sums))
    return tf.math.divide_no_nan(total, tf.reduce_sum(shares))


#: By the name that a configuration gives.
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
    """Builds the loss that a grader's configuration names.

    Args:
        name: a key of `LOSSES`.
        rows: the findings that the network answers, as rows of the 25.
        is_weighted: False charges all grades alike, for the first of two steps.
        family_weights: of families' terms in the mean; 1 where a family is not named.
    """
    return LOSSES[name](rows, is_weighted=is_weighted, family_weights=family_weights)
