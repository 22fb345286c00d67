"""Scores of a table of predictions with intervals, beside baselines, and metrics by condition and level."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import Head, mean_in_logits
from lumbar_tf.ensemble.stacking_run import StackingRun
from lumbar_tf.evaluation.bootstrap import Interval, score_differences, score_intervals
from lumbar_tf.evaluation.cells import Cell, cell_json, make_cells
from lumbar_tf.evaluation.evaluated_table import (
    CONDITIONS,
    FAMILIES,
    SINGLE_FINDINGS,
    answered_labels,
    prepare_table,
)
from lumbar_tf.evaluation.metrics import (
    TERMS,
    Score,
    competition_score,
    condition_level_prior,
    condition_prior,
    study_terms,
)
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS
from lumbar_tf.files import json_safe
from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class ScoreRow:
    """A row of a comparison of tables.

    Attributes:
        name: name of a member, a stacked head or a baseline.
        score: score over the labels that have a prediction.
        num_unanswered: number of labels without a prediction.
    """

    name: str
    score: Score
    num_unanswered: int


@dataclass(frozen=True)
class Scorecard:
    """Evaluation of one table of predictions.

    Attributes:
        num_studies: number of studies with a prediction.
        num_unanswered: number of labelled findings of these studies without a prediction; they are left out.
        head: meaning of the predictions; see `prepare_table`.
        scores: value and interval of the score and its terms, by name.
        prior: the same for the condition-by-level prior, the strongest baseline.
        difference: predictions minus prior, on the same resamples, by name; below 0 is better.
        floors: score of each baseline: "uniform", "prior" (by condition) and "prior by level" (by finding).
        families: metrics of the three families.
        conditions: metrics of the five conditions.
        findings: metrics of the 25 findings.
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

    def to_frame(self) -> "pd.DataFrame":
        """Returns all values as a table with one row for each metric of each group of findings.

        Returns:
            Columns `group` ("all", "family", "condition" or "finding"), `name`, `metric`, `value`, `low` and
            `high`. The rows of group "all" are the score and its terms. NaN where a value is undefined or has
            no interval.

        Example:
            >>> labels = np.random.default_rng(0).integers(0, 3, (20, 25))
            >>> card = evaluate_table(labels, np.full((20, 25, 3), 1 / 3), num_resamples=10)
            >>> table = card.to_frame().set_index(["group", "name", "metric"])
            >>> table.loc[("family", "canal", "log_loss"), "value"].round(4).item()
            1.0986
        """
        import pandas as pd

        groups = {"family": self.families, "condition": self.conditions, "finding": self.findings}
        rows = [("all", "all", metric, interval) for metric, interval in self.scores.items()]
        rows += [
            (group, cell.name, metric, interval)
            for group, cells in groups.items()
            for cell in cells
            for metric, interval in cell.metrics.items()
        ]
        return pd.DataFrame(
            [(*row, interval.value, interval.low, interval.high) for *row, interval in rows],
            columns=["group", "name", "metric", "value", "low", "high"],
        )


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
        head: meaning of the predictions, see `prepare_table`.
        num_resamples: number of bootstrap resamples of studies.
        seed: seed of the bootstrap.

    Raises:
        ValueError: shapes disagree, there is no study, or no labelled finding has a prediction.
    """
    evaluated, num_unanswered = prepare_table(labels, probabilities, head=head)
    answered = evaluated.labels
    if not (answered != MISSING_LABEL).any():
        raise ValueError(
            f"At least one labelled finding must have a prediction. Received: none in {len(labels)} studies."
        )
    floors = floor_tables(answered)
    prior = floors["prior by level"]
    terms, prior_terms = (study_terms(answered, table) for table in (probabilities, prior))
    options = {"num_resamples": num_resamples, "seed": seed}
    cells = make_cells(evaluated, prior, FAMILIES | CONDITIONS | SINGLE_FINDINGS, **options)
    return Scorecard(
        num_studies=len(labels),
        num_unanswered=num_unanswered,
        head=head,
        scores=score_intervals(terms, **options),
        prior=score_intervals(prior_terms, **options),
        difference=score_differences(terms, prior_terms, **options),
        floors={name: competition_score(answered, table) for name, table in floors.items()},
        families=cells[: len(FAMILIES)],
        conditions=cells[len(FAMILIES) : len(FAMILIES) + len(CONDITIONS)],
        findings=cells[len(FAMILIES) + len(CONDITIONS) :],
    )


def score_row(name: str, labels: Labels, probabilities: Floats) -> ScoreRow:
    """Returns the score over the labels that have a prediction.

    Args:
        name: name of the row.
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3], NaN where there is no prediction.
    """
    answered, num_unanswered = answered_labels(labels, probabilities)
    return ScoreRow(name, competition_score(answered, probabilities), num_unanswered)


def floor_tables(labels: Labels) -> dict[str, Floats]:
    """Returns three baselines that use no image, name -> float64 [num_studies, 25, 3].

    Both priors are the weighted frequencies of these labels: the best constants for the log losses, though
        not for the
    any-severe term.
    """
    shape = (*labels.shape, NUM_SEVERITIES)
    return {
        "uniform": np.full(shape, 1.0 / NUM_SEVERITIES),
        "prior": np.broadcast_to(condition_prior(labels), shape),
        "prior by level": np.broadcast_to(condition_level_prior(labels), shape),
    }


def compare_members(run: StackingRun) -> list[ScoreRow]:
    """Returns the scores of the baselines, the members, their plain mean, and both nested stacked heads."""
    tables = floor_tables(run.labels)
    tables |= dict(zip(run.members.names, run.members.probabilities, strict=True))
    tables["plain mean"] = mean_in_logits(run.members.probabilities)
    for head in reversed(Head):
        tables[f"stacked, {head.value} head"] = run.nested.head(head)
    return [score_row(name, run.labels, table) for name, table in tables.items()]


def scorecard_json(card: Scorecard) -> dict[str, object]:
    """Returns the scorecard as `metrics.json` has it: `score` and the four terms are keys at the top."""
    cells = {
        "families": [cell_json(cell) for cell in card.families],
        "conditions": [cell_json(cell) for cell in card.conditions],
        "findings": [cell_json(cell) for cell in card.findings],
    }
    content = {
        **{name: asdict(interval) for name, interval in card.scores.items()},
        "missing_terms": card.missing_terms,
        "num_studies": card.num_studies,
        "num_unanswered": card.num_unanswered,
        "head": card.head,
        "prior": {name: asdict(interval) for name, interval in card.prior.items()},
        "difference": {name: asdict(interval) for name, interval in card.difference.items()},
        "floors": {name: asdict(score) for name, score in card.floors.items()},
        **cells,
        "operating_points": [asdict(point) for point in OPERATING_POINTS],
    }
    return {key: json_safe(value) for key, value in content.items()}


def score_rows_json(rows: Sequence[ScoreRow]) -> object:
    """Returns the rows of a comparison as `scores.json` has them."""
    return json_safe([asdict(row) for row in rows])
