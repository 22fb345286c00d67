"""Competition score, its terms, and prior baselines, in NumPy.

Probabilities are float64 [num_studies, 25, 3] in the order of `labels.FINDINGS`; labels are int [num_studies,
25] with `MISSING_LABEL` where there is no label. Findings without a label are left out of every value; a
value without any label is NaN, never 0.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import (
    FINDINGS,
    MISSING_LABEL,
    NUM_FINDINGS,
    NUM_SEVERITIES,
    Condition,
    Family,
    Severity,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: The competition's sample weights, by label (labels.Severity.weight): 1, 2, 4.
SEVERITY_WEIGHTS: Floats = np.array([severity.weight for severity in Severity])
#: scikit-learn's `log_loss` clips to this before it takes a logarithm (its `eps` up to version 1.2).
LOG_LOSS_CLIP = 1e-15

_CANAL_ROWS = [
    i for i, finding in enumerate(FINDINGS) if finding.condition is Condition.SPINAL_CANAL_STENOSIS
]


@dataclass(frozen=True)
class Score:
    """Competition score and its four terms; NaN for a term without labels.

    Attributes:
        score: mean of the terms that have labels; smaller is better.
        canal: weighted log loss of spinal canal stenosis.
        foraminal: the same of foraminal narrowing, left and right pooled.
        subarticular: the same of subarticular stenosis, left and right pooled.
        any_severe_spinal: weighted binary log loss of "any canal level is severe", one row for each study.
    """

    score: float
    canal: float
    foraminal: float
    subarticular: float
    any_severe_spinal: float

    @property
    def missing_terms(self) -> tuple[str, ...]:
        """Names of the terms without labels, which are not part of `score`."""
        return tuple(name for name in TERMS if math.isnan(getattr(self, name)))


#: Names of the four terms, in the order of the columns of `StudyTerms`.
TERMS: tuple[str, ...] = tuple(field.name for field in fields(Score) if field.name != "score")
#: Names of the score and its terms, in the order of `StudyTerms.values`.
SCORE_FIGURES: tuple[str, ...] = ("score", *TERMS)


@dataclass(frozen=True)
class StudyTerms:
    """Contributions of the studies to the terms; each term of any resample of studies is a ratio of sums.

    Attributes:
        losses: sum of weight x loss, float64 [num_studies, 4], columns as in `TERMS`.
        weights: sum of weights, float64 [num_studies, 4].
    """

    losses: Floats
    weights: Floats

    def chosen(self, indices: NDArray[np.intp]) -> "StudyTerms":
        """Returns the contributions of some studies."""
        return StudyTerms(self.losses[indices], self.weights[indices])

    def values(self, indices: NDArray[np.intp] | slice = slice(None)) -> Floats:
        """Returns (score, canal, foraminal, subarticular, any_severe_spinal) over some studies, [5]."""
        weights = self.weights[indices].sum(axis=0)
        losses = self.losses[indices].sum(axis=0)
        terms = np.divide(losses, weights, out=np.full(len(TERMS), np.nan), where=weights > 0)
        present = terms[~np.isnan(terms)]
        return np.concatenate([[present.mean() if present.size else np.nan], terms])


def family_rows(family: Family) -> list[int]:
    """Returns the indices of a family's findings, both sides, e.g. 0 to 4 for the canal."""
    return [index for index, finding in enumerate(FINDINGS) if finding.condition.family is family]


def sample_weights(labels: Labels) -> Floats:
    """Returns the competition's weight of each label: 1, 2 or 4, and 0 for a missing label.

    >>> sample_weights(np.array([0, 1, 2, -1])).tolist()
    [1.0, 2.0, 4.0, 0.0]
    """
    return np.where(labels == MISSING_LABEL, 0.0, SEVERITY_WEIGHTS[np.clip(labels, 0, None)])


def log_losses(labels: Labels, probabilities: Floats) -> Floats:
    """Returns -ln p(label) of each finding, and 0 where the label is missing.

    As in scikit-learn, probabilities are clipped to [1e-15, 1 - 1e-15] and each row is divided by its sum.

    Args:
        labels: int [...].
        probabilities: float64 [..., 3].

    Returns:
        float64 [...].

    Raises:
        ValueError: a labelled finding has no finite, non-negative prediction, or shapes disagree.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if probabilities.shape != (*labels.shape, NUM_SEVERITIES):
        raise ValueError(
            f"`probabilities` must have the labels' shape {labels.shape} and {NUM_SEVERITIES} columns. "
            f"Received: {probabilities.shape}."
        )
    if labels.size and (labels.min() < MISSING_LABEL or labels.max() >= NUM_SEVERITIES):
        raise ValueError(f"`labels` must be -1 (missing), 0, 1 or 2. Received: {np.unique(labels).tolist()}.")
    is_labelled = np.asarray(labels != MISSING_LABEL)
    is_usable = np.all(np.isfinite(probabilities) & (probabilities >= 0), axis=-1, keepdims=True)
    is_wrong = is_labelled & ~is_usable[..., 0]
    if is_wrong.any():
        place = tuple(int(i) for i in np.argwhere(is_wrong)[0])
        raise ValueError(
            "Every labelled finding must have three finite, non-negative probabilities. "
            f"Received: {probabilities[place].tolist()} at index {place}."
        )
    clipped = np.clip(np.where(is_usable, probabilities, 1.0), LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    chosen = np.take_along_axis(clipped, np.clip(labels, 0, None)[..., None].astype(np.intp), axis=-1)[..., 0]
    return np.where(is_labelled, -np.log(chosen / clipped.sum(axis=-1)), 0.0)


def weighted_log_loss(labels: Labels, probabilities: Floats) -> float:
    """Returns the log loss with weights 1, 2 and 4 over all labelled findings.

    Args:
        labels: int [...].
        probabilities: float64 [..., 3].

    >>> round(weighted_log_loss(np.array([0, 2]), np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])), 6)
    1.247665
    """
    weights = sample_weights(np.asarray(labels))
    total = float(weights.sum())
    return float((weights * log_losses(labels, probabilities)).sum()) / total if total else math.nan


def _any_severe_rows(labels: Labels, probabilities: Floats) -> tuple[Floats, Floats]:
    """Returns each study's (weight x loss, weight) of the any-severe term, two arrays [num_studies]."""
    canal = labels[:, _CANAL_ROWS]
    # The competition drops rows without a label before grouping by study: such a level contributes no label,
    # no weight and no prediction.
    is_labelled = canal != MISSING_LABEL
    severe = np.where(is_labelled, probabilities[:, _CANAL_ROWS, Severity.SEVERE], 0.0).max(axis=1)
    weights = sample_weights(canal).max(axis=1)
    severe = np.clip(severe, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    is_severe = (canal == Severity.SEVERE).any(axis=1)
    return weights * -np.log(np.where(is_severe, severe, 1 - severe)), weights


def any_severe_spinal(labels: Labels, probabilities: Floats) -> float:
    """Returns the any-severe-spinal term.

    One row for each study: the label is whether any labelled canal level is severe, the prediction is the
        largest
    p(severe) of those levels, and the weight is the largest of their sample weights. Studies without any
    canal label are left out.

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3].
    """
    losses, weights = _any_severe_rows(labels, probabilities)
    return float(losses.sum() / weights.sum()) if weights.sum() else math.nan


def study_terms(labels: Labels, probabilities: Floats) -> StudyTerms:
    """Returns the contributions of the studies to the four terms of the score.

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3].

    Raises:
        ValueError: shapes disagree, or a labelled finding has no prediction.
    """
    if np.asarray(labels).ndim != 2 or np.asarray(labels).shape[1] != NUM_FINDINGS:
        raise ValueError(
            f"`labels` must be [num_studies, {NUM_FINDINGS}]. Received: {np.asarray(labels).shape}."
        )
    weights = sample_weights(labels)
    losses = weights * log_losses(labels, probabilities)
    any_losses, any_weights = _any_severe_rows(labels, probabilities)
    groups = [family_rows(family) for family in Family]
    return StudyTerms(
        losses=np.stack([*(losses[:, rows].sum(axis=1) for rows in groups), any_losses], axis=1),
        weights=np.stack([*(weights[:, rows].sum(axis=1) for rows in groups), any_weights], axis=1),
    )


def competition_score(labels: Labels, probabilities: Floats) -> Score:
    """Returns the RSNA 2024 score: the mean of four weighted log losses, smaller is better.

    Source: the competition's metric "mean of weighted log losses and an any-severe-spinal prediction".

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3].

    >>> labels = np.zeros((1, 25), int)
    >>> round(competition_score(labels, np.full((1, 25, 3), 1 / 3)).canal, 6)
    1.098612
    """
    return Score(*study_terms(labels, probabilities).values().tolist())


def _frequencies(labels: Labels, groups: Iterable[list[int]], class_weights: Floats) -> Floats:
    prior = np.full((NUM_FINDINGS, NUM_SEVERITIES), 1.0 / NUM_SEVERITIES)
    for rows in groups:
        counts = np.array([(labels[:, rows] == severity).sum() for severity in Severity], np.float64)
        weighted = counts * class_weights
        if weighted.sum():
            prior[rows] = weighted / weighted.sum()
    return prior


def condition_prior(labels: Labels, class_weights: Floats = SEVERITY_WEIGHTS) -> Floats:
    """Returns the weighted class frequencies of each condition, the best constant for its log loss, [25, 3].

    Args:
        labels: int [num_studies, 25].
        class_weights: weight of a label of each severity, [3].

    Returns:
        float64 [25, 3], rows sum to 1, equal at all levels; uniform where there is no label.
    """
    groups = (
        [i for i, finding in enumerate(FINDINGS) if finding.condition is condition] for condition in Condition
    )
    return _frequencies(labels, groups, class_weights)


def condition_level_prior(labels: Labels, class_weights: Floats = SEVERITY_WEIGHTS) -> Floats:
    """Returns the weighted class frequencies of each finding, [25, 3]: `condition_prior` by level."""
    return _frequencies(labels, ([row] for row in range(NUM_FINDINGS)), class_weights)
