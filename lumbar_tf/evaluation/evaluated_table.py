"""Labels and predictions of one table, prepared for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.metrics import SEVERITY_WEIGHTS, family_rows, log_losses, sample_weights
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_SEVERITIES, Condition, Family, Finding, Severity

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: Number of findings in the list of worst cases.
NUM_WORST = 30

#: Indices of the pooled findings by name: of the three families, the five conditions, and the 25 findings.
FAMILIES: dict[str, list[int]] = {family.value: family_rows(family) for family in Family}
CONDITIONS: dict[str, list[int]] = {
    condition.value: [index for index, finding in enumerate(FINDINGS) if finding.condition is condition]
    for condition in Condition
}
SINGLE_FINDINGS: dict[str, list[int]] = {finding.name: [index] for index, finding in enumerate(FINDINGS)}


@dataclass(frozen=True, eq=False)
class EvaluatedTable:
    """Labels and predictions to evaluate.

    Attributes:
        labels: int [num_studies, 25], -1 where there is no label or no prediction.
        table: the predictions as given, float64 [num_studies, 25, 3]; used for log losses.
        answers: the predictions as probabilities (see `unweighted`), float64 [num_studies, 25, 3]; used for
            all other metrics.
    """

    labels: Labels
    table: Floats
    answers: Floats

    def rows(self, findings: Sequence[int]) -> tuple[Labels, Floats, NDArray[np.intp]]:
        """Returns the labelled rows of some findings, study by study.

        Returns:
            Labels [n], probabilities [n, 3], and indices of the studies [n].
        """
        known = self.labels[:, findings] != MISSING_LABEL
        return (
            self.labels[:, findings][known].astype(np.int64),
            self.answers[:, findings][known],
            np.nonzero(known)[0],
        )

    def chosen(self, studies: NDArray[np.intp]) -> "EvaluatedTable":
        """Returns the table of some studies.

        Args:
            studies: their indices.
        """
        return EvaluatedTable(self.labels[studies], self.table[studies], self.answers[studies])

    def confusion(self, findings: Sequence[int]) -> NDArray[np.int64]:
        """Returns the confusion matrix of the most probable grade, [3 labels, 3 predictions].

        Not scikit-learn's `confusion_matrix`, which raises on findings without labels.
        """
        labels, answers, _ = self.rows(findings)
        places = labels * NUM_SEVERITIES + answers.argmax(axis=-1)
        counts = np.bincount(places, minlength=NUM_SEVERITIES**2)
        return counts.reshape(NUM_SEVERITIES, NUM_SEVERITIES)


def answered_labels(labels: Labels, probabilities: Floats) -> tuple[Labels, int]:
    """Hides labels that have no prediction.

    Returns:
        The labels, `MISSING_LABEL` also where the prediction is NaN, and the number of hidden labels.
    """
    hidden = (labels != MISSING_LABEL) & np.isnan(probabilities).any(axis=-1)
    return np.where(hidden, MISSING_LABEL, labels), int(hidden.sum())


def unweighted(probabilities: Floats) -> Floats:
    """Returns p / weight, normalised: the probabilities behind predictions made for the weighted metric.

    The expected weighted loss is smallest where the prediction is proportional to weight x probability. This
    function inverts that relation.

    >>> unweighted(np.array([0.25, 0.5, 0.25])).round(3).tolist()
    [0.444, 0.444, 0.111]
    """
    parts = probabilities / SEVERITY_WEIGHTS
    return np.asarray(parts / parts.sum(axis=-1, keepdims=True))


def prepare_table(
    labels: Labels, probabilities: Floats, *, head: Head = Head.PROBABILITY
) -> tuple[EvaluatedTable, int]:
    """Returns the table to evaluate, and the number of labels that have no prediction and are hidden.

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3], NaN where there is no prediction.
        head: meaning of the predictions. The weighted log loss uses them as given; all other metrics are
            about probabilities, so predictions of the competition head are divided by the weights first.
    """
    answered, num_unanswered = answered_labels(labels, probabilities)
    answers = unweighted(probabilities) if head is Head.COMPETITION else probabilities
    return EvaluatedTable(answered, probabilities, answers), num_unanswered


@dataclass(frozen=True)
class WorstCase:
    """A label with a large loss.

    Attributes:
        study_id: the study.
        finding: condition and level.
        label: the annotated grade.
        predicted: the three probabilities as given in the table.
        cost: weight of the label x log loss.
    """

    study_id: str
    finding: Finding
    label: Severity
    predicted: tuple[float, float, float]
    cost: float


def worst_cases(
    study_ids: Sequence[str], labels: Labels, probabilities: Floats, *, num_worst: int = NUM_WORST
) -> tuple[WorstCase, ...]:
    """Returns the labelled findings with the largest weighted losses, in falling order; ties by position.

    Args:
        study_ids: [num_studies].
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3].
        num_worst: maximum number of cases.
    """
    costs = sample_weights(labels) * log_losses(labels, probabilities)
    order = np.argsort(-costs, axis=None, kind="stable")[:num_worst]
    cases = []
    for study, row in zip(*np.unravel_index(order, costs.shape), strict=True):
        if costs[study, row] > 0:
            low, middle, high = (float(value) for value in probabilities[study, row])
            cases.append(
                WorstCase(
                    study_ids[study],
                    FINDINGS[row],
                    Severity(int(labels[study, row])),
                    (low, middle, high),
                    float(costs[study, row]),
                )
            )
    return tuple(cases)
