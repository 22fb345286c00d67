"""Training of ensemble members as self-contained HTML pages.

runs/<plane>/<member>/training.html   training of a member and its scores so far
runs/<plane>/<member>/training.json   its row on the page of all members
runs/training.html                    all members of all planes

The pages are derived from the files of a run and rewritten when a fold ends.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lumbar_tf.evaluation.console_tables import number
from lumbar_tf.evaluation.operating_points import Target
from lumbar_tf.files import write_json_atomically
from lumbar_tf.labels import Level, Severity
from lumbar_tf.reports.pages import HEIGHT, WIDTH, Chart, Line, draw_chart, write_page
from lumbar_tf.reports.training_summary import FoldSummary, MemberSummary, summarize_member
from lumbar_tf.training.localization_metrics import EDGES_MM
from lumbar_tf.training.runs import PlaneRun

PAGE_NAME = "training.html"
SUMMARY_NAME = "training.json"

#: Keys of `history.json` that are neither losses nor metrics, and the titles of their charts.
_PLAIN_CURVES = {"learning_rate": "Learning rate", "seconds": "Seconds per epoch"}
#: Losses and metrics of `history.json`: prefix of the key, CSS class of the curve, and the set of studies.
_STUDY_SETS = (
    ("", "train", "training"),
    ("watched_", "watched", "early stopping"),
    ("val_", "held", "held out"),
)
#: Pages of other commands in sibling folders of the runs, by the names used in the documentation.
_OTHER_PAGES = (
    ("evaluation/evaluation.html", "evaluation of predictions"),
    ("worklist/worklist.html", "labels to review"),
    ("inspection/inspection.html", "inspection of the data"),
)


@dataclass(frozen=True)
class MemberLine:
    """A member's row on the page of all members.

    Attributes:
        name: such as `sagittal_t2/mobilenet_v2`.
        is_localizer: whether it is a localizer instead of a grader.
        num_done: folds that are done.
        num_folds: number of folds.
        num_epochs: trained epochs over all folds.
        seconds: duration of these epochs.
        result: the main metric as text; "" until it is known.
        finished_at: end of the last fold's training, UTC, ISO 8601; "" until a fold is trained.
    """

    name: str
    is_localizer: bool
    num_done: int
    num_folds: int
    num_epochs: int
    seconds: float
    result: str
    finished_at: str


def write_training_pages(run: PlaneRun, member: str, *, is_synthetic: bool = False) -> None:
    """Writes a member's page and the page of all members, atomically.

    Args:
        run: the plane's run.
        member: `LOCALIZER` or the name of a backbone.
        is_synthetic: whether all studies are synthetic.
    """
    summary = summarize_member(run, member)
    folder = run.member_directory(member)
    write_page(folder / PAGE_NAME, "training.html", _member_values(run, summary), is_synthetic=is_synthetic)
    write_json_atomically(folder / SUMMARY_NAME, asdict(_line(summary)))
    write_training_index(run.runs, is_synthetic=is_synthetic)


def write_training_index(runs: Path, *, is_synthetic: bool = False) -> Path:
    """Writes the page of all members from their `training.json` files, and returns its path."""
    paths = sorted(runs.glob(f"*/*/{SUMMARY_NAME}"), key=lambda path: (path.parts[-3], path.parts[-2]))
    lines = [MemberLine(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    values = {
        # Localizers first, in the order of training.
        "lines": sorted(lines, key=lambda line: not line.is_localizer),
        "page_name": PAGE_NAME,
        "others": _other_pages(runs, prefix=".."),
    }
    write_page(runs / PAGE_NAME, "training_index.html", values, is_synthetic=is_synthetic)
    return runs / PAGE_NAME


def _member_values(run: PlaneRun, summary: MemberSummary) -> dict[str, Any]:
    charts = list(draw_charts(summary.folds))
    return {
        "member": summary,
        "result": _result(summary),
        "charts": charts,
        "kinds": dict.fromkeys(kind for chart in charts for kind in chart.kinds),
        "kind_names": {kind: name for _, kind, name in _STUDY_SETS},
        "width": WIDTH,
        "height": HEIGHT,
        "levels": {level.value: level.title for level in Level},
        "edges_mm": EDGES_MM,
        "severities": list(Severity),
        "severe": Target.SEVERE,
        "not_normal": Target.NOT_NORMAL,
        "number": number,
        "others": _other_pages(run.runs, prefix="../../.."),
    }


def draw_charts(folds: tuple[FoldSummary, ...]) -> Iterator[Chart]:
    """Draws the curves of all folds: loss, metrics, learning rate and duration of epochs."""
    keys = dict.fromkeys(key for fold in folds for row in fold.history for key in row)
    metrics = [
        key.removeprefix(prefix) for prefix, *_ in _STUDY_SETS[1:] for key in keys if key.startswith(prefix)
    ]
    for name in dict.fromkeys(["loss", *metrics]):
        lines = [
            line
            for prefix, kind, studies in _STUDY_SETS
            if prefix or name == "loss"
            for line in _lines(folds, prefix + name, kind, studies)
        ]
        chart = draw_chart(name.replace("_", " ").capitalize(), lines, x_label="epoch")
        if chart is not None:
            yield chart
    for key, title in _PLAIN_CURVES.items():
        chart = draw_chart(title, list(_lines(folds, key, "train", "training")), x_label="epoch")
        if chart is not None:
            yield chart


def _lines(folds: tuple[FoldSummary, ...], key: str, kind: str, studies: str) -> Iterator[Line]:
    for fold in folds:
        points = tuple((row["epoch"], row[key]) for row in fold.history if key in row)
        if points:
            yield Line(kind, f"fold {fold.number}, {studies}", points)


def _result(summary: MemberSummary) -> str:
    """Returns the main metric of a member as text."""
    if summary.error is not None:
        return f"median error {summary.error['median_mm']:.1f} mm"
    if summary.out_of_fold is None:
        return ""
    losses = []
    for score in summary.out_of_fold.families:
        loss, prior = (score.cell.metrics[name].value for name in ("log_loss", "prior_log_loss"))
        losses.append(f"{score.family.value} {loss:.3f} (prior {prior:.3f})")
    return "weighted log loss " + ", ".join(losses)


def _line(summary: MemberSummary) -> MemberLine:
    return MemberLine(
        name=summary.name,
        is_localizer=summary.is_localizer,
        num_done=summary.num_done,
        num_folds=len(summary.folds),
        num_epochs=sum(len(fold.history) for fold in summary.folds),
        seconds=round(sum(fold.seconds for fold in summary.folds), 1),
        result=_result(summary),
        finished_at=max((fold.record.finished_at for fold in summary.folds if fold.record), default=""),
    )


def _other_pages(runs: Path, *, prefix: str) -> list[tuple[str, str]]:
    """Returns (relative URL, title) of the pages of other commands that exist."""
    return [(f"{prefix}/{name}", title) for name, title in _OTHER_PAGES if (runs.parent / name).is_file()]
