"""Writes an evaluation as one self-contained HTML page."""

from itertools import groupby
from pathlib import Path

from lumbar_tf import __version__
from lumbar_tf.evaluation.cells import FEW_LABELS, Cell
from lumbar_tf.evaluation.console_tables import evaluation_notes
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS, Target
from lumbar_tf.evaluation.output import Evaluated, number
from lumbar_tf.evaluation.scorecard import Scorecard
from lumbar_tf.evaluation.subgroups import SMALL_GROUP
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import FINDINGS, Condition
from lumbar_tf.reporting.page_templates import data_uri, page_templates

PAGE_NAME = "evaluation.html"

#: A line of a condition's tables: name, figures, and whether levels are pooled.
_Line = tuple[str, Cell, bool]


def write_evaluation_page(path: Path, evaluated: Evaluated) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        evaluated: what was found.
    """
    card = evaluated.card
    stream = (
        page_templates()
        .get_template("evaluation.html")
        .generate(
            version=__version__,
            evaluated=evaluated,
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
            severe=Target.SEVERE,
            not_normal=Target.NOT_NORMAL,
            few_labels=FEW_LABELS,
            small_group=SMALL_GROUP,
            number=number,
            data_uri=data_uri,
        )
    )
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(stream)


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
