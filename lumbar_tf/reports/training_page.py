"""Writes what a member's training has left as one self-contained HTML page, and a page of all members.

runs/<plane>/<member>/training.html   how it was trained, and what it is worth so far
runs/<plane>/<member>/training.json   the line of it on the page of all members
runs/training.html                    all members of all planes

They are made from files that a run leaves anyway and written anew when a fold ends.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lumbar_tf import __version__
from lumbar_tf.evaluation.console_tables import number
from lumbar_tf.evaluation.operating_points import Target
from lumbar_tf.files import write_json_atomically, write_text_atomically
from lumbar_tf.labels import Level, Severity
from lumbar_tf.reports.charts import HEIGHT, WIDTH, Chart, Line, draw_chart
from lumbar_tf.reports.page_templates import page_templates
from lumbar_tf.reports.training_summary import FoldSummary, MemberSummary, summarize_member
from lumbar_tf.training.localization_metrics import EDGES_MM
from lumbar_tf.training.runs import PlaneRun

PAGE_NAME = "training.html"
SUMMARY_NAME = "training.json"

#: Of `history.json`, but for `loss` and what is judged: what each is on the page.
_PLAIN_CURVES = {"learning_rate": "Learning rate", "seconds": "Seconds an epoch"}
#: Prefix in `history.json`, class of the line, and whose number it is.
_JUDGED = (("", "train", "training"), ("watched_", "watched", "kept out"), ("val_", "held", "held out"))
#: Pages that other commands leave beside the runs, by the names that the documents give their folders.
_OTHER_PAGES = (
    ("evaluation/evaluation.html", "evaluation of predictions"),
    ("worklist/worklist.html", "labels that out-of-fold answers disagree with"),
    ("inspection/inspection.html", "a look at the data"),
)


@dataclass(frozen=True)
class MemberLine:
    """A member on the page of all.

    Attributes:
        name: `sagittal_t2/mobilenet_v2`.
        is_localizer: whether it points instead of grading.
        num_done: folds that are done.
        num_folds: of how many.
        num_epochs: that were trained, over all folds.
        seconds: that they took.
        result: the figure to look at, in words; "" until there is one.
        finished_at: when its last fold was trained, UTC, ISO 8601; "" until one is.
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
    """Writes a member's page and the page of all members, each whole or not at all.

    Args:
        run: the plane's run.
        member: the localizer or a backbone's name.
        is_synthetic: whether the studies are synthetic.
    """
    summary = summarize_member(run, member)
    folder = run.member_directory(member)
    _write(folder / PAGE_NAME, "training.html", _member_values(run, summary), is_synthetic=is_synthetic)
    write_json_atomically(folder / SUMMARY_NAME, asdict(_line(summary)))
    write_training_index(run.runs, is_synthetic=is_synthetic)


def write_training_index(runs: Path, *, is_synthetic: bool = False) -> Path:
    """Writes the page of all members, from what each has left, and returns its path."""
    paths = sorted(runs.glob(f"*/*/{SUMMARY_NAME}"), key=lambda path: (path.parts[-3], path.parts[-2]))
    lines = [MemberLine(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    values = {
        # The localizers come first, as in training.
        "lines": sorted(lines, key=lambda line: not line.is_localizer),
        "page_name": PAGE_NAME,
        "others": _other_pages(runs, prefix=".."),
    }
    _write(runs / PAGE_NAME, "training_index.html", values, is_synthetic=is_synthetic)
    return runs / PAGE_NAME


def _write(path: Path, template: str, values: dict[str, Any], *, is_synthetic: bool) -> None:
    stream = (
        page_templates()
        .get_template(template)
        .generate(version=__version__, is_synthetic=is_synthetic, **values)
    )
    write_text_atomically(path, stream)


def _member_values(run: PlaneRun, summary: MemberSummary) -> dict[str, Any]:
    charts = list(draw_charts(summary.folds))
    return {
        "member": summary,
        "result": _result(summary),
        "charts": charts,
        "kinds": dict.fromkeys(kind for chart in charts for kind in chart.kinds),
        "kind_names": {kind: name for _, kind, name in _JUDGED},
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
    """Draws the curves of all folds: the loss, what else is judged, the learning rate and the time."""
    keys = dict.fromkeys(key for fold in folds for row in fold.history for key in row)
    judged = [
        key.removeprefix(prefix) for prefix, *_ in _JUDGED[1:] for key in keys if key.startswith(prefix)
    ]
    for name in dict.fromkeys(["loss", *judged]):
        lines = [
            line
            for prefix, kind, whose in _JUDGED
            if prefix or name == "loss"
            for line in _lines(folds, prefix + name, kind, whose)
        ]
        chart = draw_chart(name.replace("_", " ").capitalize(), lines, x_label="epoch")
        if chart is not None:
            yield chart
    for key, title in _PLAIN_CURVES.items():
        chart = draw_chart(title, list(_lines(folds, key, "train", "training")), x_label="epoch")
        if chart is not None:
            yield chart


def _lines(folds: tuple[FoldSummary, ...], key: str, kind: str, whose: str) -> Iterator[Line]:
    for fold in folds:
        points = tuple((row["epoch"], row[key]) for row in fold.history if key in row)
        if points:
            yield Line(kind, f"fold {fold.number}, {whose}", points)


def _result(summary: MemberSummary) -> str:
    """The figure to look at first, in words."""
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
    """Returns the relative addresses of pages beside the runs, and what they are."""
    return [(f"{prefix}/{name}", title) for name, title in _OTHER_PAGES if (runs.parent / name).is_file()]
