"""Table of the calibrated probabilities of a study's 25 findings, drawn with matplotlib."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import Condition, Flag, Level, Severity, finding_index
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.finding_texts import FLAG_TEXTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.patches import Rectangle

Floats = NDArray[np.float32]
Colour = str | tuple[float, float, float]

#: Background of a missing picture or result.
MISSING_COLOUR = "0.82"
#: Colours of Normal/Mild, Moderate, Severe, distinguishable by colour-blind readers and in greyscale.
_SEVERITY_COLOURS = ("#a6cee3", "#fdae61", "#c51b29")
_HEADING = "Calibrated probabilities, with the most probable grade"
#: RGB shade of a cell that is certainly Severe; Normal/Mild is white. Black text stays readable on both.
_SEVERE_SHADE = (0.96, 0.62, 0.58)
#: Maximum characters per line of a condition's heading.
_HEADING_WIDTH = 12
#: Footnote marks in the customary typographic order.
_FLAG_MARKS = dict(zip(Flag, ("*", "†", "‡", "§", "¶", "‖"), strict=True))


def _heading(condition: Condition) -> str:
    """Returns the condition's title in short lines, with its side in capitals."""
    side = condition.side
    title = condition.title if side is None else condition.title.replace(side.value.capitalize(), side.name)
    return "\n".join(textwrap.wrap(title, _HEADING_WIDTH, break_long_words=False))


def draw_table(figure: "SubFigure", result: StudyFindings) -> None:
    """Draws a table of conditions by levels with shades, stacked bars, numbers, footnotes and legend.

    Args:
        figure: an empty part of a sheet.
        result: the study's findings; a row with NaN is shown as missing.
    """
    axes = figure.add_axes((0.145, 0.25, 0.845, 0.6))
    axes.set(xlim=(0, len(Level)), ylim=(len(Condition), 0), xticks=[], yticks=[])
    axes.set_axis_off()
    figure.text(0.145, 0.925, _HEADING, fontsize=10, weight="bold", va="center")
    for column, level in enumerate(Level):
        axes.text(column + 0.5, -0.09, level.title, ha="center", va="bottom", fontsize=11, weight="bold")
    for line, condition in enumerate(Condition):
        axes.text(-0.07, line + 0.5, _heading(condition), ha="right", va="center", fontsize=9)
        for column, level in enumerate(Level):
            row = finding_index(condition, level)
            marks = "".join(_FLAG_MARKS[flag] for flag in result.flags_of(row))
            _draw_cell(axes, column, line, result.probability[row], marks, grade=result.grade_of(row))
    _draw_legend(figure, result)


def _draw_cell(
    axes: "Axes", column: int, line: int, probability: Floats, marks: str, *, grade: Severity | None
) -> None:
    """Draws one finding: shaded by expected severity, a stacked bar, and three numbers in percent.

    A finding that rests on no image is grey and names no grade, so that the prior is not taken for a finding.
    """
    shade = MISSING_COLOUR if grade is None else _shade(expected_severity(probability))
    axes.add_patch(_rectangle(column + 0.02, line + 0.03, 0.96, 0.94, shade, edge="0.75"))
    axes.text(column + 0.95, line + 0.17, marks, ha="right", va="center", fontsize=10, color="0.1")
    if not np.isfinite(probability).all():
        axes.text(column + 0.5, line + 0.5, "no result", ha="center", va="center", fontsize=9, color="0.25")
        return
    title = "prior only" if grade is None else grade.title
    axes.text(column + 0.06, line + 0.17, title, ha="left", va="center", fontsize=7.5)
    start = 0.06
    for severity, colour, x in zip(Severity, _SEVERITY_COLOURS, (0.06, 0.5, 0.94), strict=True):
        width = 0.88 * float(probability[severity])
        axes.add_patch(_rectangle(column + start, line + 0.33, width, 0.27, colour, edge="none"))
        start += width
        axes.text(
            column + x,
            line + 0.78,
            f"{100 * float(probability[severity]):.0f}%",
            ha=("left", "center", "right")[severity],
            va="center",
            fontsize=9,
            weight="bold" if severity is grade else "normal",
        )


def _rectangle(x: float, y: float, width: float, height: float, colour: Colour, *, edge: str) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.8)


def expected_severity(probability: Floats) -> float:
    """Returns the mean grade, 0 Normal/Mild to 2 Severe.

    >>> expected_severity(np.array([0.5, 0.25, 0.25], np.float32))
    0.75
    """
    return float(probability @ np.arange(len(Severity)))


def _shade(expected: float) -> Colour:
    share = min(max(expected / (len(Severity) - 1), 0.0), 1.0)
    red, green, blue = (1 + (channel - 1) * share for channel in _SEVERE_SHADE)
    return red, green, blue


def _draw_legend(figure: "SubFigure", result: StudyFindings) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, label=severity.title)
        for severity, colour in zip(Severity, _SEVERITY_COLOURS, strict=True)
    ]
    patches += [
        Patch(facecolor=_shade(expected), edgecolor="0.6", label=f"shade: {grade}")
        for expected, grade in ((0.0, "all Normal/Mild"), (2.0, "all Severe"))
    ]
    figure.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(0.13, 0.245),
        ncols=5,
        fontsize=8,
        columnspacing=1.2,
        handlelength=1.4,
        frameon=False,
    )
    lines = [_footnote(flag, result) for place, flag in enumerate(Flag) if result.flags[:, place].any()]
    lines = lines or ["All planes were available and all level points were found."]
    figure.text(0.145, 0.195, "\n".join(lines), va="top", fontsize=9, linespacing=1.5)


def _footnote(flag: Flag, result: StudyFindings) -> str:
    count = int(result.flags[:, list(Flag).index(flag)].sum())
    return f"{_FLAG_MARKS[flag]}  {FLAG_TEXTS[flag].footnote} ({count} of {len(result.flags)} findings)"
