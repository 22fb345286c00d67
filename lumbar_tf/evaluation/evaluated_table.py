"""Labels and predictions of one table, prepared for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.metrics import (
    SEVERITY_WEIGHTS,
    family_rows,
    log_losses,
    sample_weights,
)
from lumbar_tf.labels import (
    FINDINGS,
    MISSING_LABEL,
    Condition,
    Family,
    Finding,
    Severity,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class EvaluatedTable:
    """What is judged.

    Attributes:
        labels: int [num_studies, 25], -1 where missing or not answered.
        table: the answers as they were given, float64 [num_studies, 25, 3]; the log loss is theirs.
        answers: the same as probabilities (see `unweighted`); everything else is theirs.
    """

    labels: Labels
    table: Floats
    answers: Floats

    def rows(self, findings: Sequence[int]) -> tuple[Labels, Floats, NDArray[np.intp]]:
        """Returns the labelled rows of some findings: labels [n], answers [n, 3], indices of studies [n]."""
        known = self.labels[:, findings] != MISSING_LABEL
        return (
            self.labels[:, findings][known].astype(np.int64),
            self.answers[:, findings][known],
            np.nonzero(known)[0],
        )


def condition_rows(condition: Condition) -> list[int]:
    """Returns the five rows of a condition."""
    return [index for index, finding in enumerate(FINDINGS) if finding.condition is condition]


#: Name -> rows of every cell: three families, five conditions, 25 findings.
FAMILIES: dict[str, list[int]] = {each.value: family_rows(each) for each in Family}

CONDITIONS: dict[str, list[int]] = {each.value: condition_rows(each) for each in Condition}

SINGLE_FINDINGS: dict[str, list[int]] = {each.name: [index] for index, each in enumerate(FINDINGS)}


def answered_labels(labels: Labels, probabilities: Floats) -> tuple[Labels, int]:
    """Hides labels that have no prediction.

    Returns:
        The labels, `MISSING_LABEL` where the prediction is NaN too, and how many were hidden.
    """
    hidden = (labels != MISSING_LABEL) & np.isnan(probabilities).any(axis=-1)
    return np.where(hidden, MISSING_LABEL, labels), int(hidden.sum())


def unweighted(probabilities: Floats) -> Floats:
    """Returns p / weight, divided by its sum: the probabilities behind answers made for the weighted metric.

    The expected weighted loss is least where the answer is proportional to weight x probability, so this
    undoes it, exactly where the answers were made so.

    >>> unweighted(np.array([0.25, 0.5, 0.25])).round(3).tolist()
    [0.444, 0.444, 0.111]
    """
    parts = probabilities / SEVERITY_WEIGHTS
    return np.asarray(parts / parts.sum(axis=-1, keepdims=True))


def prepare_table(
    labels: Labels, probabilities: Floats, *, head: Head = Head.PROBABILITY
) -> tuple[EvaluatedTable, int]:
    """Returns what there is to judge, and how many labels have no answer and are hidden.

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3], NaN where there is no answer.
        head: what they are. The weighted log loss takes them as they are; all else, which is about
            probabilities, divides those of the competition head by the weights first.
    """
    answered, num_unanswered = answered_labels(labels, probabilities)
    answers = unweighted(probabilities) if head is Head.COMPETITION else probabilities
    return EvaluatedTable(answered, probabilities, answers), num_unanswered


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
