"""What an evaluation leaves behind: files in a folder, and tables for the console."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.comparison import ComparedTable, compare_tables
from lumbar_tf.evaluation.metrics import SCORE_FIGURES
from lumbar_tf.evaluation.named_tables import read_named_tables
from lumbar_tf.evaluation.panels import PanelPicture
from lumbar_tf.evaluation.picture_sheets import Drawing, draw_sheets
from lumbar_tf.evaluation.scorecard import (
    Scorecard,
    ScoreRow,
    evaluate_table,
    floor_tables,
    json_safe,
    prepare_table,
    score_row,
    score_rows_json,
    scorecard_json,
)
from lumbar_tf.evaluation.subgroups import Grouping, Subgroup, score_subgroups
from lumbar_tf.evaluation.uncalibrated_baseline import CalibrationChange, calibration_changes, read_before
from lumbar_tf.evaluation.worst_cases import WorstCase, worst_cases
from lumbar_tf.files import write_json_atomically
from lumbar_tf.labels import Condition, row_id
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import align, covered_studies, read_tables

if TYPE_CHECKING:
    from rich.table import Table

METRICS_NAME = "metrics.json"
SCORES_NAME = "scores.json"

#: Of an evaluation: figures, comparison, sub-groups, pictures.
_NUM_PARTS = 4


@dataclass(frozen=True, eq=False)
class EvaluationRun:
    """What `evaluate_files` found.

    Attributes:
        model: the name of the table that was judged.
        card: the figures.
        num_left_out: labelled studies without a prediction.
        comparison: the table and the others; empty where there is no other.
        subgroups: scores of groups of studies; empty where nothing tells them apart.
        worst: the findings that cost most.
        pictures: the panels of each condition.
        num_resamples: of the bootstrap.
        before: calibration before and after the members were combined; empty where no members were given.
    """

    model: str
    card: Scorecard
    num_left_out: int
    comparison: tuple[ComparedTable, ...]
    subgroups: tuple[Subgroup, ...]
    worst: tuple[WorstCase, ...]
    pictures: Mapping[Condition, Sequence[PanelPicture]]
    num_resamples: int
    before: tuple[CalibrationChange, ...] = ()

    @property
    def title(self) -> str:
        """The model's name and the number of studies."""
        return f"{self.model}, {self.card.num_studies} studies"


def evaluate_files(
    predictions: Path | Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    *,
    head: Head = Head.PROBABILITY,
    before: Sequence[Path] = (),
    groupings: Sequence[Grouping] = (),
    num_resamples: int = 1000,
    seed: int = 0,
    progress: ProgressMaker = silent_progress,
) -> EvaluationRun:
    """Scores a table of predictions against label tables and writes metrics.json and pictures.

    Args:
        predictions: a CSV row_id,normal_mild,moderate,severe of one model; where there are several, the first
            is judged, and the others, which may hold several models each, are compared with it.
        labels: label tables in the layout of train.csv.
        out: the folder, made where it is absent.
        head: what the first table holds, see `scorecard.judge`.
        before: tables of the members as they come, whose plain mean stands for "before calibration".
        groupings: ways to tell studies apart, for scores of sub-groups.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        progress: shows the parts that are done.

    Raises:
        ValueError: the first table holds several models, or a table a study without labels.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_named_tables([predictions] if isinstance(predictions, Path) else predictions)
    members = align(tables, all_ids)
    study_ids = covered_studies(tables[:1], all_ids)
    index_of = {study_id: index for index, study_id in enumerate(all_ids)}
    rows = [index_of[study_id] for study_id in study_ids]
    chosen, probabilities = all_labels[rows], members.probabilities[0, rows]
    options = {"num_resamples": num_resamples, "seed": seed}
    judged, _ = prepare_table(chosen, probabilities, head=head)
    earlier = read_before(before, study_ids) if before else None
    out.mkdir(parents=True, exist_ok=True)
    with progress(_NUM_PARTS) as advance:
        card = evaluate_table(chosen, probabilities, head=head, **options)
        advance(1)
        named = dict(zip(members.names, members.probabilities, strict=True))
        comparison = compare_tables(all_labels, named, **options) if len(tables) > 1 else ()
        advance(1)
        subgroups = score_subgroups(study_ids, judged.labels, judged.table, groupings, **options)
        advance(1)
        title = f"{tables[0].model}, {len(study_ids)} studies"
        pictures = draw_sheets(Drawing(judged, card.conditions, before=earlier, **options), out, title=title)
        advance(1)
    evaluated = EvaluationRun(
        model=tables[0].model,
        card=card,
        num_left_out=len(all_ids) - len(study_ids),
        comparison=comparison,
        subgroups=subgroups,
        worst=worst_cases(study_ids, judged.labels, judged.table),
        pictures=pictures,
        num_resamples=num_resamples,
        before=() if earlier is None else calibration_changes(judged, earlier),
    )
    write_json_atomically(out / METRICS_NAME, evaluated_json(evaluated))
    return evaluated


def evaluated_json(evaluated: EvaluationRun) -> dict[str, object]:
    """Returns the content of metrics.json."""
    return {
        **scorecard_json(evaluated.card),
        "model": evaluated.model,
        "num_left_out": evaluated.num_left_out,
        "num_resamples": evaluated.num_resamples,
        "comparison": [json_safe(asdict(each)) for each in evaluated.comparison],
        "before": [json_safe(asdict(each)) for each in evaluated.before],
        "subgroups": [json_safe(asdict(each)) for each in evaluated.subgroups],
        "worst_cases": [
            {
                "row_id": row_id(each.study_id, each.finding),
                "label": each.label.title,
                "predicted": list(each.predicted),
                "cost": each.cost,
            }
            for each in evaluated.worst
        ],
    }


def compare_files(predictions: Sequence[Path], labels: Sequence[Path]) -> list[ScoreRow]:
    """Scores every model of several tables on the same labelled studies, floors first.

    Args:
        predictions: tables of one or several models.
        labels: label tables in the layout of train.csv.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_tables(predictions)
    study_ids = covered_studies(tables, all_ids)
    index_of = {study_id: index for index, study_id in enumerate(all_ids)}
    chosen = all_labels[[index_of[study_id] for study_id in study_ids]]
    members = align(tables, study_ids)
    answers = {**floor_tables(chosen), **dict(zip(members.names, members.probabilities, strict=True))}
    return [score_row(name, chosen, values) for name, values in answers.items()]


def write_scores(rows: Sequence[ScoreRow], out: Path) -> None:
    """Writes scores.json: the lines of a comparison."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SCORES_NAME).write_text(json.dumps(score_rows_json(rows), indent=1), encoding="utf-8")


def comparison_table(rows: Sequence[ScoreRow], *, title: str) -> "Table":
    """Returns floors, members and blends, a line each; '-' is a term without labels."""
    from rich.table import Table

    table = Table(title=title, caption="weighted log losses; smaller is better", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (*SCORE_FIGURES, "unanswered"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [number(getattr(row.score, name), 4) for name in SCORE_FIGURES]
        table.add_row(row.name, *values, str(row.num_unanswered or ""))
    return table


def comparison_notes(rows: Sequence[ScoreRow], *, num_uncovered: int) -> list[str]:
    """Returns what a reader of the comparison must know, a sentence each."""
    notes = missing_terms_note(rows[0].score.missing_terms)
    if any(row.num_unanswered for row in rows):
        notes.append("A line with unanswered labels is scored on its other labels only.")
    if num_uncovered:
        notes.append(f"{num_uncovered} labelled studies are in no table and had no part in this.")
    return notes


def missing_terms_note(missing: Sequence[str]) -> list[str]:
    """Returns a sentence on terms without labels, if there are any."""
    names = ", ".join(name.replace("_", " ") for name in missing)
    return [f"No labels for {names}: the score is the mean of the other terms."] if missing else []


def number(value: float, digits: int = 3) -> str:
    """Returns a figure, or - where it is not defined."""
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
