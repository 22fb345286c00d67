"""An evaluation as tables for the console."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.bootstrap import Interval
from lumbar_tf.evaluation.cells import Cell
from lumbar_tf.evaluation.comparison import SMALL_GROUP, ComparedTable, Subgroup
from lumbar_tf.evaluation.evaluation_run import EvaluationRun
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, TERMS
from lumbar_tf.evaluation.scorecard import Scorecard
from lumbar_tf.labels import Severity

if TYPE_CHECKING:
    from rich.table import Table
from typing import TYPE_CHECKING

from lumbar_tf.evaluation.scorecard import (
    ScoreRow,
)

if TYPE_CHECKING:
    from rich.table import Table


def scorecard_table(card: Scorecard, *, title: str) -> "Table":
    """Returns the score and its terms with intervals, beside the floors."""
    from rich.table import Table

    caption = "weighted log losses, 95% bootstrap intervals over studies; smaller is better"
    table = Table(title=title, caption=caption, title_justify="left")
    for name in ("", "value", *card.floors, "value - prior by level"):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for figure, interval in card.scores.items():
        floors = [number(getattr(score, figure), 4) for score in card.floors.values()]
        row = (interval_text(interval), *floors, interval_text(card.difference[figure]))
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
        values = (cell.log_loss.value, cell.prior_log_loss, cell.auc_severe.value, cell.auc_not_normal.value)
        agreement = (cell.kappa.value, cell.brier.value, cell.calibration_error)
        if sum(cell.counts):
            table.add_row(cell.name, *map(str, cell.counts), *map(number, (*values, *agreement)))
    return table


def difference_table(compared: Sequence[ComparedTable]) -> "Table":
    """Returns a line for each table that was compared: its score, and each figure less the first table's."""
    from rich.table import Table

    title = "each table, and less the first, over the labels that both answer"
    caption = (
        "differences on the same resamples of studies, the score's with its 95% interval; below 0 is better"
    )
    table = Table(title=title, caption=caption, title_justify="left")
    table.add_column("", overflow="fold")
    names = [name.replace("_", " ") for name in SCORE_FIGURES]
    for name in ("labels", "score", *(f"{name} - first" for name in names)):
        table.add_column(name, justify="right")
    for each in compared:
        score, *terms = (each.difference or {}).values() or (None,)
        table.add_row(
            each.name,
            f"{each.num_labels:,}",
            interval_text(each.scores["score"]),
            interval_text(score) if score else "",
            *(number(term.value, 4) for term in terms),
        )
    return table


def subgroup_table(subgroups: Sequence[Subgroup]) -> "Table":
    """Returns a line for each group of studies."""
    from rich.table import Table

    caption = f"small: under {SMALL_GROUP} studies, too few to lean on; more severe grades, larger losses"
    table = Table(title="sub-groups", caption=caption, title_justify="left")
    for name in ("", "group", "studies", "severe", *(name.replace("_", " ") for name in SCORE_FIGURES)):
        table.add_column(name, justify="left" if name in ("", "group") else "right")
    for each in subgroups:
        size = f"{each.num_studies}{' small' if each.is_small else ''}"
        values = [each.scores["score"], *(each.scores[name] for name in TERMS)]
        table.add_row(
            each.attribute, each.group, size, str(each.num_severe), interval_text(values[0]),
            *(number(value.value, 4) for value in values[1:]),
        )  # fmt: skip
    return table


def evaluation_notes(evaluated: EvaluationRun) -> list[str]:
    """Returns what a reader of the figures must know, a sentence each."""
    card = evaluated.card
    notes = missing_terms_note(card.missing_terms)
    if card.num_unanswered:
        notes.append(f"{card.num_unanswered} labelled findings have no prediction and are left out.")
    if evaluated.num_left_out:
        notes.append(f"{evaluated.num_left_out} labelled studies have no prediction and are left out.")
    if card.head is Head.COMPETITION:
        notes.append(
            "Log losses are of the table as it is; all else is of its numbers divided by the weights 1, 2, 4."
        )
    elif Head.COMPETITION.value in evaluated.model:
        notes.append(
            f"{evaluated.model} is named after the competition head, whose numbers are weighted: operating "
            "points, kappa, Brier score, ECE and net benefit mean little without --head=competition."
        )
    return notes


def interval_text(interval: Interval, digits: int = 4) -> str:
    """Returns a figure and its interval, or - where it is not defined."""
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


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
