"""Writes an evaluation as one self-contained HTML page; its worst cases lead to the studies' reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from lumbar_tf import __version__
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.cells import FEW_LABELS, METRICS, Cell
from lumbar_tf.evaluation.comparison import SMALL_GROUP
from lumbar_tf.evaluation.console_tables import evaluation_notes, number
from lumbar_tf.evaluation.evaluated_table import WorstCase, unweighted
from lumbar_tf.evaluation.evaluation_run import EvaluationRun
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS
from lumbar_tf.evaluation.scorecard import Scorecard
from lumbar_tf.files import write_text_atomically
from lumbar_tf.labels import FINDINGS, Condition, Severity
from lumbar_tf.reports.page_templates import data_uri, page_templates
from lumbar_tf.reports.report_links import report_link

PAGE_NAME = "evaluation.html"

#: A line of a condition's tables: name, figures, and whether levels are pooled.
_Line = tuple[str, Cell, bool]


@dataclass(frozen=True)
class LinkedCase:
    """One of the findings that cost most.

    Attributes:
        case: the label and what was said.
        said: the most probable grade.
        link: the finding in its study's report, relative to the page; None where there is no report.
    """

    case: WorstCase
    said: Severity
    link: str | None


def write_evaluation_page(
    path: Path,
    evaluated: EvaluationRun,
    *,
    reports: Path | None = None,
    model_version: str = "",
    is_synthetic: bool = False,
) -> None:
    """Writes the page, whole or not at all; under 8 MB.

    Args:
        path: the HTML file.
        evaluated: what was found.
        reports: the folder of the studies' reports, which the worst cases link to.
        model_version: of the export that answered; "" where unknown.
        is_synthetic: whether the studies are synthetic.
    """
    card = evaluated.card
    worst = _link_cases(path, evaluated.worst, card.head, reports)
    stream = (
        page_templates()
        .get_template("evaluation.html")
        .generate(
            version=__version__,
            evaluated=evaluated,
            model_version=model_version,
            is_synthetic=is_synthetic,
            worst=worst,
            num_linked=sum(each.link is not None for each in worst),
            card=card,
            num_resamples=evaluated.num_resamples,
            notes=evaluation_notes(evaluated),
            families=[
                (cell.name.capitalize(), cell, False) for cell in card.families if sum(cell.counts) > 0
            ],
            conditions=[(condition, _lines(card, condition)) for condition in _graded(card)],
            subgroups={
                attribute: list(groups)
                for attribute, groups in groupby(evaluated.subgroups, key=lambda each: each.attribute)
            },
            points=OPERATING_POINTS,
            metrics=METRICS,
            few_labels=FEW_LABELS,
            small_group=SMALL_GROUP,
            number=number,
            data_uri=data_uri,
        )
    )
    write_text_atomically(path, stream)


def _link_cases(page: Path, cases: Sequence[WorstCase], head: Head, reports: Path | None) -> list[LinkedCase]:
    linked = []
    for case in cases:
        shares = np.array(case.predicted)
        # The most probable grade is that of probabilities, without the metric's weights.
        shares = unweighted(shares) if head is Head.COMPETITION else shares
        link = report_link(page, reports, case.study_id, case.finding)
        linked.append(LinkedCase(case, Severity(int(shares.argmax())), link))
    return linked


def _graded(card: Scorecard) -> list[Condition]:
    return [condition for condition, cell in zip(Condition, card.conditions, strict=True) if sum(cell.counts)]


def _lines(card: Scorecard, condition: Condition) -> list[_Line]:
    """Returns the condition, and each of its levels that has labels."""
    pooled = next(cell for cell in card.conditions if cell.name == condition.value)
    levels = [
        (finding.level.title, cell, False)
        for finding, cell in zip(FINDINGS, card.findings, strict=True)
        if finding.condition is condition and sum(cell.counts) > 0
    ]
    return [("All levels", pooled, True), *levels]
