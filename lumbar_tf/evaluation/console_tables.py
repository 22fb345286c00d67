"""Tables and notes of an evaluation for the console."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lumbar_tf.ensemble.loss_attribution import LossAttribution
from lumbar_tf.ensemble.prediction_sets import FEW_ROWS
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.bootstrap import Interval
from lumbar_tf.evaluation.cells import FEW_LABELS, METRICS, Cell, Metric
from lumbar_tf.evaluation.comparison import SMALL_GROUP, ComparedTable, Subgroup
from lumbar_tf.evaluation.evaluation_run import EvaluationRun
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, TERMS
from lumbar_tf.evaluation.scorecard import Scorecard, ScoreRow
from lumbar_tf.evaluation.set_metrics import SetEvaluation
from lumbar_tf.labels import Severity
from lumbar_tf.tables.groups import UNKNOWN

if TYPE_CHECKING:
    from rich.table import Table

#: Metrics of subgroups on the console, by their names in `METRICS`; metrics.json has all.
SUBGROUP_METRICS = ("log_loss", "auc_severe", "auc_not_normal", "calibration_error")

#: Explanation of the table of what points cost.
POINTS_CAPTION = (
    "weighted log loss of the findings whose point is annotated and predicted, without the any-severe term; "
    "the members are not calibrated"
)


def scorecard_table(card: Scorecard, *, title: str) -> "Table":
    """Returns the score and its terms with intervals, beside the baselines."""
    from rich.table import Table

    caption = "weighted log losses, 95% bootstrap intervals over studies; smaller is better"
    table = Table(title=title, caption=caption, title_justify="left")
    for name in ("", "value", *card.floors, "value - prior by level"):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for term, interval in card.scores.items():
        floors = [number(getattr(score, term), 4) for score in card.floors.values()]
        row = (interval_text(interval), *floors, interval_text(card.difference[term]))
        table.add_row(term.replace("_", " "), *row)
    return table


def cell_table(cells: Sequence[Cell]) -> "Table":
    """Returns one row of metrics for each cell that has labels."""
    from rich.table import Table

    table = Table()
    headings = (severity.title for severity in Severity), (metric.title for metric in METRICS)
    for name in ("", *headings[0], *headings[1]):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for cell in cells:
        if sum(cell.counts):
            values = (number(cell.metrics[metric.name].value) for metric in METRICS)
            table.add_row(cell.name, *map(str, cell.counts), *values)
    return table


def comparison_table(rows: Sequence[ScoreRow], *, title: str) -> "Table":
    """Returns one row for each baseline, member and stacked head; '-' is a term without labels."""
    from rich.table import Table

    table = Table(title=title, caption="weighted log losses; smaller is better", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (*SCORE_FIGURES, "unanswered"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [number(getattr(row.score, name), 4) for name in SCORE_FIGURES]
        table.add_row(row.name, *values, str(row.num_unanswered or ""))
    return table


def difference_table(compared: Sequence[ComparedTable]) -> "Table":
    """Returns one row for each compared table: its score, and its differences from the first table."""
    from rich.table import Table

    title = "tables compared with the first, over the labels that both have a prediction for"
    caption = (
        "differences on the same resamples of studies, the score's with its 95% interval; below 0 is better"
    )
    table = Table(title=title, caption=caption, title_justify="left")
    table.add_column("", overflow="fold")
    names = [name.replace("_", " ") for name in SCORE_FIGURES]
    for name in ("labels", "score", *(f"{name} - first" for name in names)):
        table.add_column(name, justify="right")
    for row in compared:
        score, *terms = (row.difference or {}).values() or (None,)
        table.add_row(
            row.name,
            f"{row.num_labels:,}",
            interval_text(row.scores["score"]),
            interval_text(score) if score else "",
            *(number(term.value, 4) for term in terms),
        )
    return table


def subgroup_table(subgroups: Sequence[Subgroup]) -> "Table":
    """Returns one row for each group of studies."""
    from rich.table import Table

    caption = (
        f"small: fewer than {SMALL_GROUP} studies, an unreliable interval; "
        "groups with more severe labels have larger losses"
    )
    table = Table(title="subgroups", caption=caption, title_justify="left")
    for name in ("", "group", "studies", "severe", *(name.replace("_", " ") for name in SCORE_FIGURES)):
        table.add_column(name, justify="left" if name in ("", "group") else "right")
    for subgroup in subgroups:
        size = f"{subgroup.num_studies}{' small' if subgroup.is_small else ''}"
        terms = (number(subgroup.scores[name].value, 4) for name in TERMS)
        score = interval_text(subgroup.scores["score"])
        table.add_row(subgroup.attribute, subgroup.group, size, str(subgroup.num_severe), score, *terms)
    return table


def subgroup_metrics_table(subgroups: Sequence[Subgroup]) -> "Table":
    """Returns metrics of each group of studies, one row for each family with labels."""
    from rich.table import Table

    metrics = [metric for metric in METRICS if metric.name in SUBGROUP_METRICS]
    caption = f"*: fewer than {FEW_LABELS} labels of either answer, an unreliable interval"
    table = Table(title="subgroups, by family", caption=caption, title_justify="left")
    for name in ("", "group", "family"):
        table.add_column(name, overflow="fold")
    for metric in metrics:
        table.add_column(metric.title, justify="right")
    for subgroup in subgroups:
        for cell in subgroup.families:
            values = (_metric_text(cell, metric) for metric in metrics)
            if sum(cell.counts):
                table.add_row(subgroup.attribute, subgroup.group, cell.name, *values)
    return table


def _metric_text(cell: Cell, metric: Metric) -> str:
    found = cell.metrics[metric.name]
    if not metric.has_interval:
        return number(found.value)
    return f"{interval_text(found, 3)}{'*' if cell.has_few(metric.target) else ''}"


def set_caption(evaluated: SetEvaluation) -> str:
    """Returns the explanation of a table of prediction sets."""
    nominal = evaluated.nominal_coverage
    target = "" if np.isnan(nominal) else f" (wanted: {nominal:.0%} of each grade)"
    return (
        f"coverage: share of the labels of a grade that are in their set{target}; "
        f"unreliable with fewer than {FEW_ROWS} labels"
    )


def set_table(evaluated: SetEvaluation) -> "Table":
    """Returns coverage by grade and size of the prediction sets of families and conditions."""
    from rich.table import Table

    caption = f"{set_caption(evaluated)} (*)"
    table = Table(title="prediction sets", caption=caption, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (*(grade.title for grade in Severity), "mean size", "one grade", "accuracy of these"):
        table.add_column(name, justify="right")
    for cell in (*evaluated.families, *evaluated.conditions):
        if sum(cell.counts):
            coverage = (
                f"{interval_text(interval, 3)}{'*' if grade in cell.few else ''}"
                for grade, interval in zip(Severity, cell.coverage, strict=True)
            )
            others = (cell.mean_size, cell.singletons, cell.singleton_accuracy)
            table.add_row(cell.name, *coverage, *(number(value.value) for value in others))
    return table


def points_table(points: Mapping[str, LossAttribution]) -> "Table":
    """Returns what points cost: a row for the stack and for each member."""
    from rich.table import Table

    table = Table(title="what points cost", caption=POINTS_CAPTION, title_justify="left")
    table.add_column("", overflow="fold")
    for name in ("findings", "at annotated", "annotated slice", "at predicted", "in slice", "slice choice"):
        table.add_column(name, justify="right")
    for name, costs in points.items():
        table.add_row(
            name,
            f"{costs.num_findings:,}",
            number(costs.at_annotated),
            number(costs.in_annotated_slice),
            number(costs.at_predicted),
            f"{costs.in_annotated_slice - costs.at_annotated:+z.3f}",
            f"{costs.at_predicted - costs.in_annotated_slice:+z.3f}",
        )
    return table


def evaluation_notes(run: EvaluationRun) -> list[str]:
    """Returns notes that are needed to read the values, one sentence each."""
    card = run.card
    notes = _missing_terms_note(card.missing_terms)
    if card.num_unanswered:
        notes.append(f"{card.num_unanswered} labelled findings have no prediction and are left out.")
    if run.num_left_out:
        notes.append(f"{run.num_left_out} labelled studies have no prediction and are left out.")
    if card.head is Head.COMPETITION:
        notes.append(
            "Log losses use the predictions as given; all other metrics divide them by the weights 1, 2, 4."
        )
    elif Head.COMPETITION.value in run.model:
        notes.append(
            f"{run.model} is named after the competition head, whose predictions are weighted: operating "
            "points, kappa, Brier score, ECE and net benefit are misleading without --head=competition."
        )
    if run.groups and run.groups.num_ignored:
        notes.append(f"{run.groups.num_ignored} rows of the table of groups are of other studies.")
    if run.groups and run.groups.num_absent:
        notes.append(f"{run.groups.num_absent} studies are not in the table of groups: group {UNKNOWN}.")
    if run.sets and run.sets.num_without:
        notes.append(f"{run.sets.num_without} labelled findings have no prediction set.")
    for name, costs in list(run.points.items())[:1]:
        notes.append(f"{name}, weighted log loss: {costs}.")
        if costs.cause:
            notes.append(f"Likely cause of this loss: {costs.cause}.")
    return notes


def comparison_notes(rows: Sequence[ScoreRow], *, num_uncovered: int) -> list[str]:
    """Returns notes that are needed to read a comparison, one sentence each."""
    notes = _missing_terms_note(rows[0].score.missing_terms)
    if any(row.num_unanswered for row in rows):
        notes.append("A row with unanswered labels is scored on its other labels only.")
    if num_uncovered:
        notes.append(f"{num_uncovered} labelled studies are in no table and were not used.")
    return notes


def _missing_terms_note(missing: Sequence[str]) -> list[str]:
    names = ", ".join(name.replace("_", " ") for name in missing)
    return [f"No labels for {names}: the score is the mean of the other terms."] if missing else []


def number(value: float, digits: int = 3) -> str:
    """Returns a value as text, - where undefined."""
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def interval_text(interval: Interval, digits: int = 4) -> str:
    """Returns a value and its interval as text, - where undefined."""
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
