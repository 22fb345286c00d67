"""Panels of an evaluation, drawn with matplotlib."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval
from lumbar_tf.evaluation.cells import PointFigures
from lumbar_tf.evaluation.curves import FALSE_POSITIVE_RATES, THRESHOLDS, DecisionCurve, RocCurve
from lumbar_tf.evaluation.operating_points import OperatingPoint
from lumbar_tf.evaluation.reliability import ReliabilityBins, reliability_bins
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import NUM_SEVERITIES, Severity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

Floats = NDArray[np.float64]

#: Width and height of a panel, its margins left, bottom, right and top, and the height of the sheet's title,
#: inches.
_WIDTH, _HEIGHT = 2.9, 2.9
_LEFT, _BOTTOM, _RIGHT, _TOP = 0.6, 0.48, 0.12, 0.46
_TITLE = 0.36

#: Horizontal position of a panel's middle, as a fraction of the width of its axes.
TITLE_PLACE = (_WIDTH / 2 - _LEFT) / (_WIDTH - _LEFT - _RIGHT)
_DPI = 150

#: Colours of a sheet. More are not distinguishable in lines and bands, and a page becomes a third as large.
_NUM_COLOURS = 64


@dataclass(frozen=True)
class Panel:
    """A panel to draw.

    Attributes:
        text: alternative text of the picture.
        draw: function that draws the panel into its axes.
    """

    text: str
    draw: Callable[["Axes"], None]


@dataclass(frozen=True)
class PanelPicture:
    """A drawn panel.

    Attributes:
        text: alternative text of the picture.
        png: the PNG file.
    """

    text: str
    png: bytes


def draw_panels(path: Path, rows: Sequence[Sequence[Panel]], *, title: str) -> list[list[PanelPicture]]:
    """Draws a sheet of panels, writes it as a PNG, atomically, and returns the pictures of the single panels.

    Args:
        path: the PNG.
        rows: rows of equal length.
        title: heading of the sheet; the single panels do not have it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    num_rows, num_columns = len(rows), len(rows[0])
    width, height = num_columns * _WIDTH, num_rows * _HEIGHT + _TITLE
    figure = Figure(figsize=(width, height), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    figure.text(_LEFT / width, 1 - 0.6 * _TITLE / height, title, fontsize=12, va="center")
    for row, line in enumerate(rows):
        for column, panel in enumerate(line):
            left, bottom = column * _WIDTH + _LEFT, (num_rows - 1 - row) * _HEIGHT + _BOTTOM
            size = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP)
            panel.draw(figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height)))
    canvas.draw()
    # Quantised before it is cut, so that all panels share one palette.
    sheet = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(_NUM_COLOURS)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(_encode(sheet))
    top, high, wide = (round(inches * _DPI) for inches in (_TITLE, _HEIGHT, _WIDTH))
    return [
        [
            PanelPicture(panel.text, _encode(sheet.crop((j * wide, y, (j + 1) * wide, y + high))))
            for j, panel in enumerate(line)
        ]
        for y, line in zip(range(top, top + num_rows * high, high), rows, strict=True)
    ]


def _encode(image: "Image.Image") -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


#: Maximum height of the bars behind a reliability curve, which show the share of the rows.
_HISTOGRAM_HEIGHT = 0.25
#: Bins with fewer rows are dominated by chance: their points are drawn faint.
FEW_ROWS = 20
_TITLE_SIZE, _TEXT_SIZE, _TICK_SIZE = 8.5, 7.5, 7
_BLUE, _SOFT, _PALE, _BEFORE = "tab:blue", "0.45", "0.88", "tab:orange"
#: Marker and fill of the operating points of a target, in their order: a hollow circle and a filled square.
_MARKERS = (("o", "white"), ("s", "black"))


def draw_reliability(
    axes: "Axes",
    is_class: NDArray[np.bool_],
    probability: Floats,
    title: str,
    *,
    before: ReliabilityBins | None = None,
) -> None:
    """Draws the observed against the predicted frequency of each bin.

    Args:
        axes: empty axes.
        is_class: bool [num_rows].
        probability: predicted probability of the class, float64 [num_rows].
        title: heading of the panel.
        before: bins before calibration.
    """
    if not is_class.size:
        _draw_nothing(axes, title)
        return
    bins = reliability_bins(is_class, probability)
    edges = np.linspace(0.0, 1.0, len(bins.counts) + 1)
    share = bins.counts / bins.counts.max()
    axes.bar(edges[:-1], share * _HISTOGRAM_HEIGHT, width=np.diff(edges), align="edge", color=_PALE, zorder=0)
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
    # Binomial standard error of the observed share, so that the deviation of a small bin is not overrated.
    error = np.sqrt(bins.observed * (1 - bins.observed) / np.maximum(bins.counts, 1))
    is_few = bins.counts < FEW_ROWS
    for chosen, alpha in ((~is_few, 1.0), (is_few & (bins.counts > 0), 0.3)):
        axes.errorbar(
            bins.predicted[chosen],
            bins.observed[chosen],
            yerr=error[chosen],
            fmt="o",
            markersize=4,
            capsize=2,
            color=_BLUE,
            alpha=alpha,
        )
    count = f"{int(is_class.sum())} of {is_class.size}, ECE {bins.expected_error:.3f}"
    if before is not None and before.counts.sum():
        _draw_before(axes, before)
        count += f" (before: {before.expected_error:.3f})"
    _finish(axes, f"{title}\n{count}", "predicted probability", "observed share")
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _draw_before(axes: "Axes", bins: ReliabilityBins) -> None:
    """Draws the points before calibration as hollow squares, and a legend of both kinds."""
    is_few = bins.counts < FEW_ROWS
    for chosen, alpha in ((~is_few, 1.0), (is_few & (bins.counts > 0), 0.4)):
        axes.plot(
            bins.predicted[chosen],
            bins.observed[chosen],
            "s",
            markersize=4,
            color=_BEFORE,
            markerfacecolor="white",
            alpha=alpha,
        )
    names = (("s", _BEFORE, "white", "before"), ("o", _BLUE, _BLUE, "after"))
    for marker, colour, fill, name in names:
        axes.plot([], [], marker, color=colour, markerfacecolor=fill, markersize=4, label=name)
    axes.legend(loc="upper left", fontsize=_TEXT_SIZE, frameon=False, handletextpad=0.4)


def draw_roc(
    axes: "Axes",
    curve: RocCurve,
    area: Interval,
    points: Mapping[OperatingPoint, PointFigures],
    title: str,
) -> None:
    """Draws sensitivity against the false-positive rate, with its band and the operating points."""
    if np.isnan(area.value):
        _draw_nothing(axes, title, "one class only")
        return
    band = curve.sensitivity
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
    axes.fill_between(FALSE_POSITIVE_RATES, band.low, band.high, color=_BLUE, alpha=0.2, linewidth=0)
    # The curve starts at (0, 0); its value at rate 0 is the top of the first vertical segment.
    rates, found = np.r_[0.0, FALSE_POSITIVE_RATES], np.r_[0.0, band.value]
    axes.plot(rates, found, color=_BLUE, linewidth=1.4)
    for (point, figures), (marker, fill) in zip(points.items(), _MARKERS, strict=True):
        label = "most probable grade" if point.threshold is None else f"P at least {point.threshold:g}"
        place = (1 - figures.specificity.value, figures.sensitivity.value)
        axes.plot(
            *place, marker, color="black", markerfacecolor=fill, markersize=5, label=label, linestyle="none"
        )
    axes.legend(loc="lower right", fontsize=_TEXT_SIZE, frameon=False, handletextpad=0.1)
    text = f"{curve.num_positive} of {curve.num_rows}, AUC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]"
    _finish(axes, f"{title}\n{text}", "1 - specificity", "sensitivity")
    axes.set(xlim=(-0.01, 1), ylim=(0, 1.01))


def draw_decision(axes: "Axes", curve: DecisionCurve, title: str) -> None:
    """Draws net benefit against the threshold, beside that of a yes and of a no for every row."""
    best = curve.treat_all.max()
    if not best > 0:  # no rows, or none of the class
        _draw_nothing(axes, title, "no such label")
        return
    band = curve.net_benefit
    axes.axhline(0.0, color="black", linewidth=1, linestyle=":", label="no to all")
    axes.plot(THRESHOLDS, curve.treat_all, color=_SOFT, linewidth=1.2, linestyle="--", label="yes to all")
    axes.fill_between(THRESHOLDS, band.low, band.high, color=_BLUE, alpha=0.2, linewidth=0)
    axes.plot(THRESHOLDS, band.value, color=_BLUE, linewidth=1.4, label="predictions")
    axes.legend(loc="upper right", fontsize=_TEXT_SIZE, frameon=False)
    _finish(axes, title, "threshold probability", "net benefit")
    axes.locator_params(axis="y", nbins=5)
    # A negative net benefit is worse than a no for every row; its size is of no interest.
    axes.set(
        xlim=(0, float(THRESHOLDS[-1])), ylim=(-0.25 * best, max(1.15 * best, 1.05 * np.nanmax(band.high)))
    )


def draw_confusion(axes: "Axes", counts: NDArray[np.int64], title: str) -> None:
    """Draws counts [3 labels, 3 predictions], shaded by the share of the label's row."""
    if not counts.sum():
        _draw_nothing(axes, title)
        return
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 0.65 else "black"
        text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=_TITLE_SIZE, color=colour)
    titles = [severity.title for severity in Severity]
    _finish(axes, f"{title}\nshare of the label's row", "most probable grade", "label")
    axes.set_xticks(range(NUM_SEVERITIES), titles)
    axes.set_yticks(range(NUM_SEVERITIES), titles, rotation=90, va="center")


def _finish(axes: "Axes", title: str, below: str, beside: str) -> None:
    axes.set_title(title, fontsize=_TITLE_SIZE, x=TITLE_PLACE)
    axes.set_xlabel(below, fontsize=_TEXT_SIZE, labelpad=2)
    axes.set_ylabel(beside, fontsize=_TEXT_SIZE, labelpad=2)
    axes.tick_params(labelsize=_TICK_SIZE, length=2.5, pad=2)


def _draw_nothing(axes: "Axes", title: str, reason: str = "no labels") -> None:
    axes.set_title(title, fontsize=_TITLE_SIZE, x=TITLE_PLACE)
    axes.text(0.5, 0.5, reason, ha="center", va="center", color=_SOFT, transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
