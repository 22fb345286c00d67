"""What an evaluation leaves behind: files in a folder, and tables for the console."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.data.tables import read_label_tables
from lumbar_tf.ensemble.oof import align, covered_studies, read_tables
from lumbar_tf.evaluation.bootstrap import Interval
from lumbar_tf.evaluation.plots import plot_confusion, plot_reliability
from lumbar_tf.evaluation.scorecard import (
    FIGURES,
    Cell,
    Scorecard,
    ScoreRow,
    evaluate_table,
    floor_tables,
    score_row,
    score_rows_json,
    scorecard_json,
)
from lumbar_tf.labels import Severity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

METRICS_NAME = "metrics.json"
SCORES_NAME = "scores.json"
RELIABILITY_NAME = "reliability.png"
CONFUSION_NAME = "confusion.png"

#: Columns of text where the output is no terminal, so that a log holds whole tables.
_LOG_WIDTH = 150


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate_files` found.

    Attributes:
        card: the figures.
        title: the model's name and the number of studies.
        num_left_out: labelled studies without a prediction.
    """

    card: Scorecard
    title: str
    num_left_out: int


def evaluate_files(
    predictions: Path, labels: Sequence[Path], out: Path, *, num_resamples: int = 1000, seed: int = 0
) -> Evaluated:
    """Scores a table of predictions against label tables and writes metrics.json and pictures.

    Args:
        predictions: a CSV row_id,normal_mild,moderate,severe of one model.
        labels: label tables in the layout of train.csv.
        out: the folder.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: the table holds several models, or a study without labels.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_tables([predictions])
    if len(tables) != 1:
        names = [table.model for table in tables]
        raise ValueError(f"{predictions} must hold one model's rows. Received: {names}.")
    study_ids = covered_studies(tables, all_ids)
    probabilities = align(tables, study_ids).probabilities[0]
    index_of = {study_id: index for index, study_id in enumerate(all_ids)}
    chosen = all_labels[[index_of[study_id] for study_id in study_ids]]
    card = evaluate_table(chosen, probabilities, num_resamples=num_resamples, seed=seed)
    title = f"{tables[0].model}, {card.num_studies} studies"
    write_evaluation(card, chosen, probabilities, out, title=title)
    return Evaluated(card, title, len(all_ids) - len(study_ids))


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


def write_evaluation(
    card: Scorecard, labels: NDArray[np.integer], probabilities: NDArray[np.float64], out: Path, *, title: str
) -> None:
    """Writes metrics.json, reliability.png and confusion.png.

    Args:
        card: of these labels and probabilities.
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3].
        out: the folder, made where it is absent.
        title: over the pictures.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / METRICS_NAME).write_text(json.dumps(scorecard_json(card), indent=1), encoding="utf-8")
    plot_reliability(labels, probabilities, out / RELIABILITY_NAME, title=title)
    plot_confusion(labels, probabilities, out / CONFUSION_NAME, title=title)


def write_scores(rows: Sequence[ScoreRow], out: Path) -> None:
    """Writes scores.json: the lines of a comparison."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SCORES_NAME).write_text(json.dumps(score_rows_json(rows), indent=1), encoding="utf-8")


def make_console() -> "Console":
    """Returns a console as wide as the terminal, or as a log should be."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _LOG_WIDTH)


def comparison_table(rows: Sequence[ScoreRow], *, title: str) -> "Table":
    """Returns floors, members and blends, a line each; '-' is a term without labels."""
    from rich.table import Table

    table = Table(title=title, caption="weighted log losses; smaller is better", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (*FIGURES, "unanswered"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [_number(getattr(row.score, name), 4) for name in FIGURES]
        table.add_row(row.name, *values, str(row.num_unanswered or ""))
    return table


def comparison_notes(rows: Sequence[ScoreRow], *, num_uncovered: int) -> list[str]:
    """Returns what a reader of the comparison must know, a sentence each."""
    notes = _missing_terms_note(rows[0].score.missing_terms)
    if any(row.num_unanswered for row in rows):
        notes.append("A line with unanswered labels is scored on its other labels only.")
    if num_uncovered:
        notes.append(f"{num_uncovered} labelled studies are in no table and had no part in this.")
    return notes


def scorecard_table(card: Scorecard, *, title: str) -> "Table":
    """Returns the score and its terms with intervals, beside the floors."""
    from rich.table import Table

    caption = "weighted log losses, 95% bootstrap intervals over studies; smaller is better"
    table = Table(title=title, caption=caption, title_justify="left")
    for name in ("", "value", *card.floors, "value - prior by level"):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for figure, interval in card.scores.items():
        floors = [_number(getattr(score, figure), 4) for score in card.floors.values()]
        row = (_interval(interval), *floors, _interval(card.difference[figure]))
        table.add_row(figure.replace("_", " "), *row)
    return table


def cell_table(cells: Sequence[Cell]) -> "Table":
    """Returns a line of figures for each cell that has labels."""
    from rich.table import Table

    table = Table()
    figures = ("log loss", "prior's", "AUC severe", "AUC not normal", "kappa", "Brier", "ECE")
    for name in ("", *(severity.title for severity in Severity), *figures):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for cell in cells:
        values = (cell.log_loss, cell.prior_log_loss, cell.auc_severe, cell.auc_not_normal)
        agreement = (cell.kappa, cell.brier, cell.calibration_error)
        if sum(cell.counts):
            table.add_row(cell.name, *map(str, cell.counts), *map(_number, (*values, *agreement)))
    return table


def scorecard_notes(card: Scorecard, *, num_left_out: int) -> list[str]:
    """Returns what a reader of the scorecard must know, a sentence each."""
    notes = _missing_terms_note(card.missing_terms)
    if card.num_unanswered:
        notes.append(f"{card.num_unanswered} labelled findings have no prediction and are left out.")
    if num_left_out:
        notes.append(f"{num_left_out} labelled studies have no prediction and are left out.")
    return notes


def _missing_terms_note(missing: Sequence[str]) -> list[str]:
    names = ", ".join(name.replace("_", " ") for name in missing)
    return [f"No labels for {names}: the score is the mean of the other terms."] if missing else []


def _number(value: float, digits: int = 3) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _interval(interval: Interval) -> str:
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
