"""What a set of predictions is worth: scores, floors, intervals, and the same by condition and level."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import Head, mean_in_logits
from lumbar_tf.ensemble.stacking_run import StackingRun
from lumbar_tf.evaluation.bootstrap import Interval, bootstrap, paired_difference
from lumbar_tf.evaluation.cells import Cell, make_cells
from lumbar_tf.evaluation.evaluated_table import (
    CONDITIONS,
    FAMILIES,
    SINGLE_FINDINGS,
    answered_labels,
    prepare_table,
)
from lumbar_tf.evaluation.metrics import (
    SCORE_FIGURES,
    TERMS,
    Score,
    competition_score,
    condition_level_prior,
    condition_prior,
    study_terms,
)
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS
from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES

Floats = NDArray[np.float64]

Labels = NDArray[np.integer]


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
class Scorecard:
    """The evaluation of one table of predictions.

    Attributes:
        num_studies: studies with a prediction.
        num_unanswered: labelled findings of these studies without a prediction; left out of everything.
        head: what the table holds; see `prepare_table`.
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
    head: Head
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

    Both priors are the weighted frequencies of these very labels: the best constants for the log losses,
    though not for the any-severe term.
    """
    shape = (*labels.shape, NUM_SEVERITIES)
    return {
        "uniform": np.full(shape, 1.0 / NUM_SEVERITIES),
        "prior": np.broadcast_to(condition_prior(labels), shape),
        "prior by level": np.broadcast_to(condition_level_prior(labels), shape),
    }


def compare_members(blend: StackingRun) -> list[ScoreRow]:
    """Returns the lines floors, members as they are, their plain mean, and both heads of the nested stack."""
    tables = floor_tables(blend.labels)
    tables |= dict(zip(blend.members.names, blend.members.probabilities, strict=True))
    tables["plain mean"] = mean_in_logits(blend.members.probabilities)
    for head in reversed(Head):
        tables[f"stacked, {head.value} head"] = blend.nested.head(head)
    return [score_row(name, blend.labels, table) for name, table in tables.items()]


def evaluate_table(
    labels: Labels,
    probabilities: Floats,
    *,
    head: Head = Head.PROBABILITY,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Scorecard:
    """Evaluates predictions.

    Args:
        labels: int [num_studies, 25], -1 where missing.
        probabilities: float64 [num_studies, 25, 3], NaN where there is no prediction.
        head: what they are, see `prepare_table`.
        num_resamples: of the bootstrap over studies.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes disagree, there is no study, or no labelled finding has a prediction.
    """
    judged, num_unanswered = prepare_table(labels, probabilities, head=head)
    answered = judged.labels
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
    scores, priors, difference = (dict(zip(SCORE_FIGURES, each, strict=True)) for each in intervals)
    cells = make_cells(judged, prior, FAMILIES | CONDITIONS | SINGLE_FINDINGS, **options)
    return Scorecard(
        num_studies=len(labels),
        num_unanswered=num_unanswered,
        head=head,
        scores=scores,
        prior=priors,
        difference=difference,
        floors={name: competition_score(answered, table) for name, table in floors.items()},
        families=cells[: len(FAMILIES)],
        conditions=cells[len(FAMILIES) : len(FAMILIES) + len(CONDITIONS)],
        findings=cells[len(FAMILIES) + len(CONDITIONS) :],
    )


def json_safe(value: object) -> object:
    """Returns the value with enums by their value, and NaN, which JSON has not, as None."""
    if isinstance(value, dict):
        return {key: json_safe(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return None if isinstance(value, float) and np.isnan(value) else value


def scorecard_json(card: Scorecard) -> dict[str, object]:
    """Returns the scorecard as `metrics.json` holds it: `score` and the four terms are keys at the top."""
    content = asdict(card)
    scores = content.pop("scores")
    points = [asdict(point) for point in OPERATING_POINTS]
    whole = {**scores, "missing_terms": card.missing_terms, **content, "operating_points": points}
    return {key: json_safe(value) for key, value in whole.items()}


def score_rows_json(rows: Sequence[ScoreRow]) -> object:
    """Returns the lines of a comparison for `scores.json`."""
    return json_safe([asdict(row) for row in rows])
