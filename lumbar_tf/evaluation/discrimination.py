"""How well predictions rank and agree, of one table without resamples: AUC and confusion. NumPy only.

Every function takes rows of one or more findings, labels int [num_rows] without missing ones, and
returns NaN where the figure is not defined (one class only, no rows).
"""

import math

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import NUM_SEVERITIES

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]


def auc(is_positive: NDArray[np.bool_], scores: Floats) -> float:
    """Returns the area under the ROC curve, ties counted half (Mann-Whitney U).

    Args:
        is_positive: bool [num_rows].
        scores: larger means more likely positive, [num_rows].

    >>> auc(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]))
    0.75
    """
    num_positive = int(is_positive.sum())
    num_negative = is_positive.size - num_positive
    if not num_positive or not num_negative:
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mid_ranks[inverse][is_positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def confusion(labels: Labels, predictions: Labels) -> NDArray[np.int64]:
    """Returns counts [3 true, 3 predicted].

    >>> confusion(np.array([0, 2, 2]), np.array([0, 1, 2])).tolist()
    [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    """
    flat = np.bincount(labels * NUM_SEVERITIES + predictions, minlength=NUM_SEVERITIES**2)
    return flat.reshape(NUM_SEVERITIES, NUM_SEVERITIES)
