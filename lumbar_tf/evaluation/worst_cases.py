"""The findings that cost the score most: where to look first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.metrics import log_losses, sample_weights
from lumbar_tf.labels import FINDINGS, Finding, Severity

NUM_WORST = 30


@dataclass(frozen=True)
class WorstCase:
    """A label and what was said.

    Attributes:
        study_id: the study.
        finding: condition and level.
        label: the grade given.
        predicted: the three probabilities as the table has them.
        cost: weight of the label x log loss.
    """

    study_id: str
    finding: Finding
    label: Severity
    predicted: tuple[float, float, float]
    cost: float


def worst_cases(
    study_ids: Sequence[str],
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    *,
    num_worst: int = NUM_WORST,
) -> tuple[WorstCase, ...]:
    """Returns the labelled findings with the largest weighted losses, the largest first; ties by place.

    Args:
        study_ids: [num_studies].
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3].
        num_worst: how many at most.
    """
    costs = sample_weights(labels) * log_losses(labels, probabilities)
    order = np.argsort(-costs, axis=None, kind="stable")[:num_worst]
    found = []
    for study, row in zip(*np.unravel_index(order, costs.shape), strict=True):
        if costs[study, row] > 0:
            low, middle, high = (float(value) for value in probabilities[study, row])
            found.append(
                WorstCase(
                    study_ids[study],
                    FINDINGS[row],
                    Severity(int(labels[study, row])),
                    (low, middle, high),
                    float(costs[study, row]),
                )
            )
    return tuple(found)
