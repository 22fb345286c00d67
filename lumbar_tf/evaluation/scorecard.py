"""What a set of predictions is worth: scores, floors, intervals, and the same by condition and level."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.blend import Blend
from lumbar_tf.ensemble.calibration import classwise_calibration_error
from lumbar_tf.ensemble.stacking import Head, mean_in_logits
from lumbar_tf.evaluation.bootstrap import Interval, bootstrap, paired_difference
from lumbar_tf.evaluation.discrimination import auc, brier_score, quadratic_kappa
from lumbar_tf.evaluation.metrics import (
    TERMS,
    Score,
    competition_score,
    condition_level_prior,
    condition_prior,
    family_rows,
    study_terms,
    weighted_log_loss,
)
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_SEVERITIES, Condition, Family, Severity

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: The figures that carry intervals, in the order of `StudyTerms.values`.
FIGURES: tuple[str, ...] = ("score", *TERMS)


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table that compares predictions.

    Attributes:
        name: of the member, the blend or the floor.
        score: over the labels that it has an answer for.
        num_unanswered: labels that it has no answer for.
    """

    name: str
    score: Score
    num_unanswered: int


@dataclass(frozen=True)
class Cell:
    """The figures of some findings pooled: a family, a condition, or a condition at a level."""

    name: str
    counts: tuple[int, ...]
    log_loss: float
    prior_log_loss: float
    auc_severe: float
    auc_not_normal: float
    kappa: float
    brier: float
    calibration_error: float


@dataclass(frozen=True)
class Scorecard:
    """The evaluation of one table of predictions.

    Attributes:
        num_studies: studies with a prediction.
        num_unanswered: labelled findings of these studies without a prediction; left out of everything.
        scores: figure -> value and interval.
        prior: the same of the condition-by-level prior, the hardest floor.
        difference: figure -> predictions less prior, on the same resamples; below 0 is better.
        floors: name -> score of "uniform", "prior" (by condition) and "prior by level" (by finding).
        families: three cells.
        conditions: five cells.
        findings: 25 cells.
    """

    num_studies: int
    num_unanswered: int
    scores: dict[str, Interval]
    prior: dict[str, Interval]
    difference: dict[str, Interval]
    floors: dict[str, Score]
    families: tuple[Cell, ...]
    conditions: tuple[Cell, ...]
    findings: tuple[Cell, ...]

    @property
    def missing_terms(self) -> tuple[str, ...]:
        """Terms that had no label: `score` is the mean of the others."""
        return tuple(name for name in TERMS if np.isnan(self.scores[name].value))


def answered_labels(labels: Labels, probabilities: Floats) -> tuple[Labels, int]:
    """Hides labels that have no prediction.

    Returns:
        The labels, `MISSING_LABEL` where the prediction is NaN too, and how many were hidden.
    """
    hidden = (labels != MISSING_LABEL) & np.isnan(probabilities).any(axis=-1)
    return np.where(hidden, MISSING_LABEL, labels), int(hidden.sum())


def score_row(name: str, labels: Labels, probabilities: Floats) -> ScoreRow:
    """Returns the score over what is answered.

    Args:
        name: of the line.
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3], NaN where there is no answer.
    """
    answered, num_unanswered = answered_labels(labels, probabilities)
    return ScoreRow(name, competition_score(answered, probabilities), num_unanswered)


def floor_tables(labels: Labels) -> dict[str, Floats]:
    """Returns the three answers that look at no image, name -> float64 [num_studies, 25, 3].

    Both priors are the weighted frequencies of these very labels, so no prior from elsewhere can be better.
    """
    shape = (*labels.shape, NUM_SEVERITIES)
    return {
        "uniform": np.full(shape, 1.0 / NUM_SEVERITIES),
        "prior": np.broadcast_to(condition_prior(labels), shape),
        "prior by level": np.broadcast_to(condition_level_prior(labels), shape),
    }


def compare_blend(blend: Blend) -> list[ScoreRow]:
    """Returns the lines floors, members as they are, their plain mean, and both heads of the nested stack."""
    tables = floor_tables(blend.labels)
    tables |= dict(zip(blend.members.names, blend.members.probabilities, strict=True))
    tables["plain mean"] = mean_in_logits(blend.members.probabilities)
    for head in reversed(Head):
        tables[f"stacked, {head.value} head"] = blend.nested.head(head)
    return [score_row(name, blend.labels, table) for name, table in tables.items()]


def _cell(name: str, labels: Labels, probabilities: Floats, prior: Floats) -> Cell:
    """Returns the figures of all findings given, pooled; `labels` int [...], the others [..., 3]."""
    known = labels != MISSING_LABEL
    chosen, answers = labels[known].astype(np.int64), probabilities[known]
    return Cell(
        name=name,
        counts=tuple(int((chosen == severity).sum()) for severity in Severity),
        log_loss=weighted_log_loss(chosen, answers),
        prior_log_loss=weighted_log_loss(chosen, prior[known]),
        auc_severe=auc(chosen == Severity.SEVERE, answers[:, Severity.SEVERE]),
        auc_not_normal=auc(chosen != Severity.NORMAL_MILD, -answers[:, Severity.NORMAL_MILD]),
        kappa=quadratic_kappa(chosen, answers.argmax(axis=-1)),
        brier=brier_score(chosen, answers),
        calibration_error=classwise_calibration_error(chosen, answers),
    )


def _condition_rows(condition: Condition) -> list[int]:
    return [index for index, finding in enumerate(FINDINGS) if finding.condition is condition]


def _cells(
    groups: Sequence[tuple[str, list[int]]], labels: Labels, probabilities: Floats, prior: Floats
) -> tuple[Cell, ...]:
    return tuple(
        _cell(name, labels[:, rows], probabilities[:, rows], prior[:, rows]) for name, rows in groups
    )


def evaluate_table(
    labels: Labels, probabilities: Floats, *, num_resamples: int = 1000, seed: int = 0
) -> Scorecard:
    """Evaluates predictions.

    Args:
        labels: int [num_studies, 25], -1 where missing.
        probabilities: float64 [num_studies, 25, 3], NaN where there is no prediction.
        num_resamples: of the bootstrap over studies.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes disagree, there is no study, or no labelled finding has a prediction.
    """
    answered, num_unanswered = answered_labels(labels, probabilities)
    if not (answered != MISSING_LABEL).any():
        raise ValueError(
            f"Some labelled finding must have a prediction. Received: none in {len(labels)} studies."
        )
    floors = floor_tables(answered)
    prior = floors["prior by level"]
    own, of_prior = (study_terms(answered, each).values for each in (probabilities, prior))
    options = {"num_resamples": num_resamples, "seed": seed}
    intervals = (
        bootstrap(own, len(labels), **options),
        bootstrap(of_prior, len(labels), **options),
        paired_difference(own, of_prior, len(labels), **options),
    )
    scores, priors, difference = (dict(zip(FIGURES, each, strict=True)) for each in intervals)
    figures = (answered, probabilities, prior)
    return Scorecard(
        num_studies=len(labels),
        num_unanswered=num_unanswered,
        scores=scores,
        prior=priors,
        difference=difference,
        floors={name: competition_score(answered, table) for name, table in floors.items()},
        families=_cells([(each.value, family_rows(each)) for each in Family], *figures),
        conditions=_cells([(each.value, _condition_rows(each)) for each in Condition], *figures),
        findings=_cells([(each.name, [index]) for index, each in enumerate(FINDINGS)], *figures),
    )


def _jsonable(value: object) -> object:
    """Returns the value with NaN, which JSON has not, as None."""
    if isinstance(value, dict):
        return {key: _jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def scorecard_json(card: Scorecard) -> object:
    """Returns the scorecard as `metrics.json` holds it: `score` and the four terms are keys at the top."""
    content = asdict(card)
    scores = content.pop("scores")
    return _jsonable({**scores, "missing_terms": card.missing_terms, **content})


def score_rows_json(rows: Sequence[ScoreRow]) -> object:
    """Returns the lines of a comparison for `scores.json`."""
    return _jsonable([asdict(row) for row in rows])
