"""Evaluation as a self-contained HTML page, with links to the reports of the worst cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.cells import FEW_LABELS, METRICS, Cell
from lumbar_tf.evaluation.comparison import SMALL_GROUP, Subgroup
from lumbar_tf.evaluation.console_tables import POINTS_CAPTION, evaluation_notes, number, set_caption
from lumbar_tf.evaluation.evaluated_table import WorstCase, unweighted
from lumbar_tf.evaluation.evaluation_run import EvaluationRun
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS
from lumbar_tf.evaluation.scorecard import Scorecard
from lumbar_tf.evaluation.set_metrics import SetCell, SetEvaluation
from lumbar_tf.labels import FINDINGS, Condition, Level, Severity
from lumbar_tf.reports.pages import write_page
from lumbar_tf.reports.prediction_folder import report_link

PAGE_NAME = "evaluation.html"

#: A row of a condition's tables: name, metrics, and whether levels are pooled.
_Line = tuple[str, Cell, bool]


@dataclass(frozen=True)
class LinkedCase:
    """A finding with a large loss, and the link to its report.

    Attributes:
        case: label and predicted probabilities.
        predicted_grade: the most probable grade.
        link: URL of the finding in its study's report, relative to the page; None without a report.
    """

    case: WorstCase
    predicted_grade: Severity
    link: str | None


def write_evaluation_page(
    path: Path,
    evaluated: EvaluationRun,
    *,
    reports: Path | None = None,
    model_version: str = "",
    training_note: str = "",
    is_synthetic: bool = False,
) -> None:
    """Writes the page, atomically; it is smaller than 8 MB.

    Args:
        path: the HTML file.
        evaluated: the evaluation.
        reports: folder of the study reports, to which the worst cases are linked.
        model_version: version of the exported model that made the predictions; "" if unknown.
        training_note: note on the training data of that model; "" if unknown.
        is_synthetic: whether all studies are synthetic.
    """
    card = evaluated.card
    worst = _link_cases(path, evaluated.worst, card.head, reports)
    subgroups = {
        attribute: list(groups)
        for attribute, groups in groupby(evaluated.subgroups, key=lambda group: group.attribute)
    }
    values = {
        "evaluated": evaluated,
        "model_version": model_version,
        "training_note": training_note,
        "worst": worst,
        "num_linked": sum(case.link is not None for case in worst),
        "card": card,
        "num_resamples": evaluated.num_resamples,
        "notes": evaluation_notes(evaluated),
        "families": [(cell.name.capitalize(), cell, False) for cell in card.families if sum(cell.counts) > 0],
        "conditions": [(condition, _lines(card, condition)) for condition in _graded(card)],
        "subgroups": subgroups,
        "subgroup_lines": {attribute: _subgroup_lines(groups) for attribute, groups in subgroups.items()},
        "points": OPERATING_POINTS,
        "points_caption": POINTS_CAPTION,
        "set_caption": evaluated.sets and set_caption(evaluated.sets),
        "set_lines": evaluated.sets and _set_lines(evaluated.sets),
        "severities": list(Severity),
        "metrics": METRICS,
        "few_labels": FEW_LABELS,
        "small_group": SMALL_GROUP,
        "number": number,
    }
    write_page(path, "evaluation.html", values, is_synthetic=is_synthetic)


def _link_cases(page: Path, cases: Sequence[WorstCase], head: Head, reports: Path | None) -> list[LinkedCase]:
    linked = []
    for case in cases:
        shares = np.array(case.predicted)
        # The most probable grade refers to probabilities without the metric's weights.
        shares = unweighted(shares) if head is Head.COMPETITION else shares
        link = report_link(page, reports, case.study_id, case.finding)
        linked.append(LinkedCase(case, Severity(int(shares.argmax())), link))
    return linked


def _set_lines(evaluated: SetEvaluation) -> list[tuple[str, list[tuple[str, SetCell]]]]:
    """Returns the cells with labels under headings: families, levels, conditions by level, subgroups."""
    by_name = {cell.name: cell for cell in (*evaluated.conditions, *evaluated.findings)}
    by_condition = {
        condition.title: [
            ("All levels", by_name[condition.value]),
            *((f.level.title, by_name[f.name]) for f in FINDINGS if f.condition is condition),
        ]
        for condition in Condition
    }
    parts = {
        "Both sides pooled": [(cell.name.capitalize(), cell) for cell in evaluated.families],
        "Levels, all conditions pooled": [
            (level.title, cell) for level, cell in zip(Level, evaluated.levels, strict=True)
        ],
        **by_condition,
        **{
            f"{subgroup.attribute}: {subgroup.group}": [
                (cell.name.capitalize(), cell) for cell in subgroup.families
            ]
            for subgroup in evaluated.subgroups
        },
    }
    kept = [(title, [line for line in lines if sum(line[1].counts)]) for title, lines in parts.items()]
    return [(title, lines) for title, lines in kept if lines]


def _subgroup_lines(groups: Sequence[Subgroup]) -> list[_Line]:
    """Returns rows for the families with labels, group below group."""
    by_family = zip(*(group.families for group in groups), strict=True)
    return [
        (f"{cell.name.capitalize()}: {group.group}", cell, False)
        for cells in by_family
        for group, cell in zip(groups, cells, strict=True)
        if sum(cell.counts)
    ]


def _graded(card: Scorecard) -> list[Condition]:
    return [condition for condition, cell in zip(Condition, card.conditions, strict=True) if sum(cell.counts)]


def _lines(card: Scorecard, condition: Condition) -> list[_Line]:
    """Returns rows for the condition and for each of its levels with labels."""
    pooled = next(cell for cell in card.conditions if cell.name == condition.value)
    levels = [
        (finding.level.title, cell, False)
        for finding, cell in zip(FINDINGS, card.findings, strict=True)
        if finding.condition is condition and sum(cell.counts) > 0
    ]
    return [("All levels", pooled, True), *levels]
