"""Temperature of one set of predictions, and the bins of a reliability diagram. NumPy only."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: Probabilities are not taken below this before their logarithm: a member's "never" is worth 14 nats.
MIN_PROBABILITY = 1e-6
#: Equal-width bins of the expected calibration error, as in Guo et al. 2017, "On Calibration of Modern Neural
#: Networks", section 2.
NUM_BINS = 15
#: The temperature is searched for within these bounds, by golden section in its logarithm.
TEMPERATURE_BOUNDS = (0.05, 20.0)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def centred_logs(probabilities: Floats) -> Floats:
    """Returns ln(clip(p, 1e-6, 1)) less its mean over the three classes; NaN rows stay NaN.

    Args:
        probabilities: float64 [..., 3].

    >>> centred_logs(np.array([1 / 3, 1 / 3, 1 / 3])).tolist()
    [0.0, 0.0, 0.0]
    """
    logs = np.log(np.clip(probabilities, MIN_PROBABILITY, 1.0))
    return logs - logs.mean(axis=-1, keepdims=True)


def softmax(logits: Floats) -> Floats:
    """Returns the softmax over the last axis, float64, rows sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Returns softmax(ln p / temperature), [..., 3]; above 1 softens, NaN rows stay NaN.

    >>> apply_temperature(np.array([0.64, 0.32, 0.04]), 2.0).round(3).tolist()
    [0.511, 0.361, 0.128]
    """
    return softmax(centred_logs(probabilities) / temperature)


def fit_temperature(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> float:
    """Returns the temperature with the smallest (weighted) log loss.

    Source: Guo et al. 2017, section 4.2. Rows without a label or a prediction are left out.

    Args:
        labels: int [...].
        probabilities: float64 [..., 3].
        weights: float64 [...], or None for 1 each.

    Returns:
        A number within `TEMPERATURE_BOUNDS`; 1.0 where nothing is labelled.
    """
    usable = (labels != MISSING_LABEL) & np.isfinite(probabilities).all(axis=-1)
    if not usable.any():
        return 1.0
    logs = centred_logs(probabilities[usable])
    chosen = np.take_along_axis(logs, labels[usable][:, None].astype(np.intp), axis=-1)[:, 0]
    row_weights = np.ones(len(chosen)) if weights is None else weights[usable]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float(row_weights @ (np.log(np.exp(logs * scale).sum(axis=-1)) - chosen * scale))

    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    while high - low > 1e-6:  # the loss is convex in 1/temperature, so unimodal here
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram of one class: bin by bin, what was said and what happened.

    Attributes:
        predicted: mean probability in each bin, float64 [num_bins], NaN where it is empty.
        observed: share of rows in the bin that are of the class, [num_bins], NaN where it is empty.
        counts: rows in each bin, int [num_bins].
    """

    predicted: Floats
    observed: Floats
    counts: NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean over rows of |predicted - observed| of their bin; NaN if empty."""
        if not self.counts.sum():
            return math.nan
        gaps = np.nan_to_num(np.abs(self.predicted - self.observed))
        return float((gaps * self.counts).sum() / self.counts.sum())


def reliability_bins(
    is_class: NDArray[np.bool_], probability: Floats, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sorts rows into equal-width bins of their probability.

    Args:
        is_class: whether each row is of the class, bool [num_rows].
        probability: what was predicted for the class, float64 [num_rows] in [0, 1].
        num_bins: number of bins; bin k holds [k/num_bins, (k+1)/num_bins), the last one 1.0 too.

    >>> reliability_bins(np.array([True, False]), np.array([0.5, 0.5]), num_bins=2).observed.tolist()
    [nan, 0.5]
    """
    places = np.clip((probability * num_bins).astype(np.int64), 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    empty = np.full(num_bins, np.nan)
    sums = (np.bincount(places, weights=values, minlength=num_bins) for values in (probability, is_class))
    predicted, observed = (np.divide(s, counts, out=empty.copy(), where=counts > 0) for s in sums)
    return ReliabilityBins(predicted, observed, counts)


def classwise_calibration_error(labels: Labels, probabilities: Floats, num_bins: int = NUM_BINS) -> float:
    """Returns the class-wise expected calibration error: the mean over classes of each one's error.

    Source: Kull et al. 2019, "Beyond temperature scaling", section 2 (equal-width bins).

    Args:
        labels: int [num_rows]; missing ones are left out.
        probabilities: float64 [num_rows, 3].
        num_bins: bins a class.
    """
    usable = labels != MISSING_LABEL
    return float(
        np.mean(
            [
                reliability_bins(labels[usable] == k, probabilities[usable, k], num_bins).expected_error
                for k in range(NUM_SEVERITIES)
            ]
        )
    )
