"""The four sheets of an evaluation, a column a condition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from lumbar_tf.evaluation.calibration import reliability_bins, rows_before
from lumbar_tf.evaluation.cells import Cell
from lumbar_tf.evaluation.curves import decision_curve, roc_curve
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, EvaluatedTable
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS, Target
from lumbar_tf.evaluation.plots import (
    Panel,
    PanelPicture,
    draw_confusion,
    draw_decision,
    draw_panels,
    draw_reliability,
    draw_roc,
)
from lumbar_tf.labels import NUM_SEVERITIES, Condition, Severity

RELIABILITY_NAME = "reliability.png"

ROC_NAME = "roc.png"

CONFUSION_NAME = "confusion.png"

DECISION_NAME = "decision_curves.png"

SHEET_NAMES = (RELIABILITY_NAME, CONFUSION_NAME, ROC_NAME, DECISION_NAME)


@dataclass(frozen=True)
class Drawing:
    """What is drawn of.

    Attributes:
        judged: labels and answers.
        cells: of the five conditions, in their order.
        before: answers before calibration, float64 [num_studies, 25, 3], NaN where there is none; None for
            no comparison.
        num_resamples: of the bands.
        seed: of the bands.
    """

    judged: EvaluatedTable
    cells: Sequence[Cell]
    before: NDArray[np.float64] | None = None
    num_resamples: int = 1000
    seed: int = 0

    def cell(self, condition: Condition) -> Cell:
        """Returns a condition's figures."""
        return self.cells[list(Condition).index(condition)]


def draw_sheets(drawing: Drawing, out: Path, *, title: str) -> dict[Condition, list[PanelPicture]]:
    """Writes the four sheets and returns each condition's pictures.

    Args:
        drawing: what is drawn of.
        out: the folder.
        title: over each sheet: the model and the number of studies.
    """
    about = {
        RELIABILITY_NAME: "grey bars: share of rows; faint: bins of under 20 rows; lines: one standard error"
        + ("" if drawing.before is None else "; squares: before calibration"),
        ROC_NAME: "bands: 95% bootstrap intervals over studies",
        CONFUSION_NAME: "the most probable grade",
        DECISION_NAME: "net benefit (Vickers and Elkin 2006); bands: 95% bootstrap intervals over studies",
    }
    pictures: dict[Condition, list[PanelPicture]] = {condition: [] for condition in Condition}
    for name, rows in _sheets(drawing).items():
        for line in draw_panels(out / name, rows, title=f"{title}: {about[name]}"):
            for condition, picture in zip(Condition, line, strict=True):
                pictures[condition].append(picture)
    return pictures


def _sheets(drawing: Drawing) -> dict[str, list[list[Panel]]]:
    def rows(panel: Callable[..., Panel], kinds: Sequence[object]) -> list[list[Panel]]:
        return [[panel(drawing, condition, kind) for condition in Condition] for kind in kinds]

    return {
        RELIABILITY_NAME: rows(_reliability, list(Severity)),
        CONFUSION_NAME: [[_confusion(drawing, condition) for condition in Condition]],
        ROC_NAME: rows(_roc, list(Target)),
        DECISION_NAME: rows(_decision, list(Target)),
    }


def _reliability(drawing: Drawing, condition: Condition, severity: Severity) -> Panel:
    labels, answers, _ = drawing.judged.rows(CONDITIONS[condition.value])
    title = f"{condition.title}: {severity.title}"
    draw = partial(
        draw_reliability, is_class=labels == severity, probability=answers[:, severity], title=title
    )
    if drawing.before is None:
        return Panel(f"Reliability diagram, {title}", draw)
    known, _, earlier = rows_before(drawing.judged, drawing.before, CONDITIONS[condition.value])
    bins = reliability_bins(known == severity, earlier[:, severity])
    return Panel(f"Reliability diagram before and after calibration, {title}", partial(draw, before=bins))


def _roc(drawing: Drawing, condition: Condition, target: Target) -> Panel:
    cell = drawing.cell(condition)
    curve = roc_curve(
        drawing.judged,
        CONDITIONS[condition.value],
        target,
        num_resamples=drawing.num_resamples,
        seed=drawing.seed,
    )
    area = cell.auc_severe if target is Target.SEVERE else cell.auc_not_normal
    points = {each: cell.operating_points[each.name] for each in OPERATING_POINTS if each.target is target}
    title = f"{condition.title}: {target.title}"
    return Panel(f"ROC curve, {title}", partial(draw_roc, curve=curve, area=area, points=points, title=title))


def _confusion(drawing: Drawing, condition: Condition) -> Panel:
    labels, answers, _ = drawing.judged.rows(CONDITIONS[condition.value])
    counts = confusion_matrix(labels, answers.argmax(axis=-1), labels=range(NUM_SEVERITIES))
    return Panel(
        f"Confusion matrix, {condition.title}", partial(draw_confusion, counts=counts, title=condition.title)
    )


def _decision(drawing: Drawing, condition: Condition, target: Target) -> Panel:
    curve = decision_curve(
        drawing.judged,
        CONDITIONS[condition.value],
        target,
        num_resamples=drawing.num_resamples,
        seed=drawing.seed,
    )
    title = f"{condition.title}: {target.title}"
    return Panel(f"Decision curve, {title}", partial(draw_decision, curve=curve, title=title))
