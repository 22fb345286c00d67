"""Pictures of an evaluation: reliability diagrams and confusion matrices, as PNG."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.calibration import reliability_bins
from lumbar_tf.evaluation.discrimination import confusion
from lumbar_tf.evaluation.metrics import family_rows
from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES, Family, Severity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

_INCHES = 3.1
_DPI = 110
#: Bars of a share of the rows behind a reliability curve are drawn below this height.
_HISTOGRAM_HEIGHT = 0.25
#: Bins with fewer rows say more about chance than about calibration; their points are drawn faint.
_FEW_ROWS = 20


def family_table(labels: Labels, probabilities: Floats, family: Family) -> tuple[Labels, Floats]:
    """Returns a family's labelled and answered rows: labels int [num_rows], probabilities [num_rows, 3]."""
    rows = family_rows(family)
    known = (labels[:, rows] != MISSING_LABEL) & np.isfinite(probabilities[:, rows]).all(axis=-1)
    return labels[:, rows][known].astype(np.int64), probabilities[:, rows][known]


def _draw_reliability(axes: "Axes", is_class: NDArray[np.bool_], probability: Floats, title: str) -> None:
    bins = reliability_bins(is_class, probability)
    edges = np.linspace(0.0, 1.0, len(bins.counts) + 1)
    share = bins.counts / max(bins.counts.max(), 1)
    axes.bar(
        edges[:-1], share * _HISTOGRAM_HEIGHT, width=np.diff(edges), align="edge", color="0.88", zorder=0
    )
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    # Binomial standard error of the observed share, so that a thin bin does not look like a fault.
    error = np.sqrt(bins.observed * (1 - bins.observed) / np.maximum(bins.counts, 1))
    for chosen, alpha in (
        (bins.counts >= _FEW_ROWS, 1.0),
        ((bins.counts > 0) & (bins.counts < _FEW_ROWS), 0.3),
    ):
        axes.errorbar(
            bins.predicted[chosen],
            bins.observed[chosen],
            yerr=error[chosen],
            fmt="o",
            markersize=4,
            capsize=2,
            color="tab:blue",
            alpha=alpha,
        )
    axes.set_title(
        f"{title}\n{int(is_class.sum())} of {len(is_class)}, ECE {bins.expected_error:.3f}", fontsize=9
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.tick_params(labelsize=7)


def plot_reliability(labels: Labels, probabilities: Floats, path: Path, *, title: str = "") -> None:
    """Writes reliability diagrams, a row for each family and a column for each severity.

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3]; rows of NaN are left out.
        path: of the PNG.
        title: over the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES * NUM_SEVERITIES, _INCHES * len(Family) + 0.4), layout="constrained")
    grid = figure.subplots(len(Family), NUM_SEVERITIES, squeeze=False)
    for family, line in zip(Family, grid, strict=True):
        chosen, answers = family_table(labels, probabilities, family)
        for severity, axes in zip(Severity, line, strict=True):
            name = f"{family.value}, {severity.title}"
            if chosen.size:
                _draw_reliability(axes, chosen == severity, answers[:, severity], name)
            else:
                _draw_nothing(axes, name)
    figure.supxlabel("predicted probability (grey: share of rows; faint: under 20 rows)", fontsize=9)
    figure.supylabel("observed share", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=_DPI)


def _draw_nothing(axes: "Axes", name: str) -> None:
    axes.set_title(name, fontsize=9)
    axes.text(0.5, 0.5, "no labels", ha="center", va="center", color="0.5", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _draw_confusion(axes: "Axes", counts: NDArray[np.int64], name: str) -> None:
    """Draws counts [3 true, 3 predicted], shaded by the share of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    titles = [severity.title for severity in Severity]
    axes.set_xticks(range(NUM_SEVERITIES), titles, fontsize=7)
    axes.set_yticks(range(NUM_SEVERITIES), titles, fontsize=7, rotation=90, va="center")
    axes.set_title(name, fontsize=9)


def plot_confusion(labels: Labels, probabilities: Floats, path: Path, *, title: str = "") -> None:
    """Writes confusion matrices of the largest probability, one for each family.

    Args:
        labels: int [num_studies, 25].
        probabilities: float64 [num_studies, 25, 3]; rows of NaN are left out.
        path: of the PNG.
        title: over the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES * len(Family), _INCHES + 0.5), layout="constrained")
    for family, axes in zip(Family, figure.subplots(1, len(Family)), strict=True):
        chosen, answers = family_table(labels, probabilities, family)
        if chosen.size:
            _draw_confusion(axes, confusion(chosen, answers.argmax(axis=-1)), family.value)
        else:
            _draw_nothing(axes, family.value)
    figure.supxlabel("largest predicted", fontsize=9)
    figure.supylabel("label", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=_DPI)
