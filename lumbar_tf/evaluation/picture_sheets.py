"""The four picture sheets of an evaluation, one column for each condition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
from lumbar_tf.evaluation.reliability import common_rows, reliability_bins
from lumbar_tf.labels import Condition, Severity

RELIABILITY_NAME = "reliability.png"
ROC_NAME = "roc.png"
CONFUSION_NAME = "confusion.png"
DECISION_NAME = "decision_curves.png"
SHEET_NAMES = (RELIABILITY_NAME, CONFUSION_NAME, ROC_NAME, DECISION_NAME)


@dataclass(frozen=True)
class SheetData:
    """Data of the picture sheets.

    Attributes:
        evaluated: labels and predictions.
        cells: metrics of the five conditions, in their order.
        uncalibrated: predictions before calibration, float64 [num_studies, 25, 3], NaN where there is none;
            None draws no comparison.
        num_resamples: number of bootstrap resamples of the bands.
        seed: seed of the bootstrap.
    """

    evaluated: EvaluatedTable
    cells: Sequence[Cell]
    uncalibrated: NDArray[np.float64] | None = None
    num_resamples: int = 1000
    seed: int = 0

    def cell(self, condition: Condition) -> Cell:
        """Returns the metrics of a condition."""
        return self.cells[list(Condition).index(condition)]


def draw_sheets(data: SheetData, out: Path, *, title: str) -> dict[Condition, list[PanelPicture]]:
    """Writes the four sheets and returns the pictures of each condition.

    Args:
        data: the data.
        out: the output folder.
        title: heading of each sheet: the model and the number of studies.
    """
    notes = {
        RELIABILITY_NAME: "grey bars: share of rows; faint: bins of under 20 rows; lines: one standard error"
        + ("" if data.uncalibrated is None else "; squares: before calibration"),
        ROC_NAME: "bands: 95% bootstrap intervals over studies",
        CONFUSION_NAME: "the most probable grade",
        DECISION_NAME: "net benefit (Vickers and Elkin 2006); bands: 95% bootstrap intervals over studies",
    }
    pictures: dict[Condition, list[PanelPicture]] = {condition: [] for condition in Condition}
    for name, rows in _sheets(data).items():
        for line in draw_panels(out / name, rows, title=f"{title}: {notes[name]}"):
            for condition, picture in zip(Condition, line, strict=True):
                pictures[condition].append(picture)
    return pictures


def _sheets(data: SheetData) -> dict[str, list[list[Panel]]]:
    def rows(panel: Callable[..., Panel], kinds: Sequence[object]) -> list[list[Panel]]:
        return [[panel(data, condition, kind) for condition in Condition] for kind in kinds]

    return {
        RELIABILITY_NAME: rows(_reliability, list(Severity)),
        CONFUSION_NAME: [[_confusion(data, condition) for condition in Condition]],
        ROC_NAME: rows(_roc, list(Target)),
        DECISION_NAME: rows(_decision, list(Target)),
    }


def _reliability(data: SheetData, condition: Condition, severity: Severity) -> Panel:
    labels, answers, _ = data.evaluated.rows(CONDITIONS[condition.value])
    title = f"{condition.title}: {severity.title}"
    draw = partial(
        draw_reliability, is_class=labels == severity, probability=answers[:, severity], title=title
    )
    if data.uncalibrated is None:
        return Panel(f"Reliability diagram, {title}", draw)
    known, _, before = common_rows(data.evaluated, data.uncalibrated, CONDITIONS[condition.value])
    bins = reliability_bins(known == severity, before[:, severity])
    return Panel(f"Reliability diagram before and after calibration, {title}", partial(draw, before=bins))


def _roc(data: SheetData, condition: Condition, target: Target) -> Panel:
    rows = CONDITIONS[condition.value]
    curve = roc_curve(data.evaluated, rows, target, num_resamples=data.num_resamples, seed=data.seed)
    cell = data.cell(condition)
    area = cell.metrics["auc_severe" if target is Target.SEVERE else "auc_not_normal"]
    points = {
        point: cell.operating_points[point.name] for point in OPERATING_POINTS if point.target is target
    }
    title = f"{condition.title}: {target.title}"
    return Panel(f"ROC curve, {title}", partial(draw_roc, curve=curve, area=area, points=points, title=title))


def _confusion(data: SheetData, condition: Condition) -> Panel:
    counts, title = data.evaluated.confusion(CONDITIONS[condition.value]), condition.title
    return Panel(f"Confusion matrix, {title}", partial(draw_confusion, counts=counts, title=title))


def _decision(data: SheetData, condition: Condition, target: Target) -> Panel:
    rows = CONDITIONS[condition.value]
    curve = decision_curve(data.evaluated, rows, target, num_resamples=data.num_resamples, seed=data.seed)
    title = f"{condition.title}: {target.title}"
    return Panel(f"Decision curve, {title}", partial(draw_decision, curve=curve, title=title))
