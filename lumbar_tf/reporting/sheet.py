"""One picture a study: where the level points lie, and the calibrated probabilities of the 25 findings."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumbar_tf.imaging.study import Study
from lumbar_tf.labels import Condition, Flag, Level, Plane, Severity, Side, finding_index
from lumbar_tf.records.shards import replace_atomically
from lumbar_tf.reporting.results import StudyResult
from lumbar_tf.reporting.views import Floats, View, choose_slice, cut_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_FOOTER = "lumbar_tf - calibrated probabilities - research use, not a medical device"
_INCHES = (17.0, 9.6)
_DPI = 110
#: L1/L2 to L5/S1 is 110 to 160 mm; the rest is so that a reader can count the vertebrae, mm.
_SAGITTAL_MM = (165.0, 230.0)
#: Vertebra, canal, facets and the muscles around them, mm.
_AXIAL_MM = (110.0, 110.0)
#: A point farther than this from every slice is not shown on any, mm.
_MAX_DISTANCE_MM = 10.0
#: Beyond about one slice's spacing a point is drawn hollow: the slice does not show its place, mm.
_HOLLOW_MM = 5.0
#: Colours of Normal/Mild, Moderate, Severe that remain apart for colour-blind readers and in grey.
_SEVERITY_COLOURS = ("#a6cee3", "#fdae61", "#c51b29")
_POINT_COLOUR = "#ffe14d"
_MISSING_COLOUR = "0.82"
#: The order of footnote marks that typesetters use.
_FLAG_MARKS = dict(zip(Flag, ("*", "†", "‡", "§", "¶"), strict=True))
_FLAG_WORDS = {
    Flag.NO_SAGITTAL_T1: "answered without sagittal T1",
    Flag.NO_SAGITTAL_T2: "answered without sagittal T2",
    Flag.NO_AXIAL_T2: "answered without axial T2",
    Flag.NO_LANDMARK: "no level point",
    Flag.PRIOR_ONLY: "prior only: no image was looked at",
}
_CONDITION_WORDS = {
    Condition.SPINAL_CANAL_STENOSIS: "Spinal canal\nstenosis",
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: "LEFT neural\nforaminal\nnarrowing",
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: "RIGHT neural\nforaminal\nnarrowing",
    Condition.LEFT_SUBARTICULAR_STENOSIS: "LEFT\nsubarticular\nstenosis",
    Condition.RIGHT_SUBARTICULAR_STENOSIS: "RIGHT\nsubarticular\nstenosis",
}


def draw_sheet(path: Path, study: Study, result: StudyResult) -> None:
    """Draws the sheet of one study, atomically.

    Pictures lie along the patient's axes: axial slices seen from the feet with the patient's left at the
    right, sagittal ones with the front at the left. The study's id is the only thing said of the patient.

    Args:
        path: the PNG.
        study: its slices.
        result: its answer; probabilities or landmarks of NaN are shown as missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    pictures, table = figure.subfigures(1, 2, width_ratios=(1.32, 1.0))
    _draw_pictures(pictures, study, result.landmarks)
    _draw_table(table, result)
    # A study's id may hold a dollar sign, which must not start mathematics.
    figure.text(0.012, 0.972, f"Study {result.study_id}", fontsize=15, weight="bold", va="center", parse_math=False)
    figure.text(0.012, 0.014, _FOOTER, fontsize=9, color="0.3", va="center")
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def _points(landmarks: Floats, condition: Condition) -> Floats:
    """Returns a condition's points, one a level, float32 [5, 3]."""
    return landmarks[[finding_index(condition, level) for level in Level]]


def _draw_pictures(figure: "SubFigure", study: Study, landmarks: Floats) -> None:
    canal = _points(landmarks, Condition.SPINAL_CANAL_STENOSIS)
    sagittals = (
        ("Sagittal T2, canal", Plane.SAGITTAL_T2, Condition.SPINAL_CANAL_STENOSIS),
        ("Sagittal T1, RIGHT foramina", Plane.SAGITTAL_T1, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING),
        ("Sagittal T1, LEFT foramina", Plane.SAGITTAL_T1, Condition.LEFT_NEURAL_FORAMINAL_NARROWING),
    )
    upper = figure.add_gridspec(1, 3, left=0.02, right=0.99, top=0.915, bottom=0.325, wspace=0.04)
    for place, (title, plane, condition) in enumerate(sagittals):
        axes = figure.add_subplot(upper[0, place])
        _draw_sagittal(axes, study, plane, _points(landmarks, condition), title)
    lower = figure.add_gridspec(1, 5, left=0.02, right=0.99, top=0.262, bottom=0.04, wspace=0.04)
    figure.text(0.02, 0.302, "Axial T2 at each level point, seen from the feet", fontsize=10, weight="bold")
    for place, level in enumerate(Level):
        _draw_axial(figure.add_subplot(lower[0, place]), study, level, canal[place])


def _draw_sagittal(axes: "Axes", study: Study, plane: Plane, points: Floats, title: str) -> None:
    axes.set_title(title, fontsize=10, weight="bold", loc="left", pad=4)
    known = np.isfinite(points).all(axis=-1)
    slices = study.planes.get(plane, ())
    if not slices:
        _draw_nothing(axes, f"no {plane.series_description}\nin this study")
        return
    if not known.any():
        _draw_nothing(axes, "no points")
        return
    chosen = choose_slice(slices, points, max_distance_mm=_MAX_DISTANCE_MM)
    if chosen is None:
        _draw_nothing(axes, f"no slice within {_MAX_DISTANCE_MM:.0f} mm\nof the points")
        return
    view = cut_view(chosen, points[known].mean(axis=0).astype(float), size_mm=_SAGITTAL_MM, is_sagittal=True)
    _draw_image(axes, view, edges=("A", "P"))
    for level, point in zip(Level, points, strict=True):
        if np.isfinite(point).all():
            _draw_point(axes, view, point, name=level.title)
    notes = [f"slice at {_lateral(view.centre[0])}"]
    if not known.all():
        notes.append("no point: " + ", ".join(level.title for level, each in zip(Level, known, strict=True) if not each))
    _caption(axes, "\n".join(notes))


def _draw_axial(axes: "Axes", study: Study, level: Level, point: Floats) -> None:
    axes.set_title(level.title, fontsize=10, weight="bold", loc="left", pad=3)
    slices = study.planes.get(Plane.AXIAL_T2, ())
    if not slices:
        _draw_nothing(axes, "no Axial T2\nin this study")
        return
    if not np.isfinite(point).all():
        _draw_nothing(axes, "no level point")
        return
    chosen = choose_slice(slices, point[np.newaxis], max_distance_mm=_MAX_DISTANCE_MM)
    if chosen is None:
        _draw_nothing(axes, f"no slice within\n{_MAX_DISTANCE_MM:.0f} mm of the point")
        return
    view = cut_view(chosen, point.astype(float), size_mm=_AXIAL_MM, is_sagittal=False)
    _draw_image(axes, view, edges=(_initial(Side.RIGHT), _initial(Side.LEFT)))
    _draw_point(axes, view, point)
    _caption(axes, f"{abs(view.place(point)[2]):.1f} mm off")


def _initial(side: Side) -> str:
    return side.name[0]


def _lateral(x_mm: float) -> str:
    """Says a patient x: LPS +x is left."""
    side = Side.LEFT if x_mm > 0 else Side.RIGHT
    return f"x = {abs(x_mm):.0f} mm {_initial(side)}"


def _draw_nothing(axes: "Axes", words: str) -> None:
    axes.set_facecolor(_MISSING_COLOUR)
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=10, color="0.25", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_image(axes: "Axes", view: View, *, edges: tuple[str, str]) -> None:
    """Shows a view in millimetres, windowed to its own values, with a letter at the left and right edge."""
    width, height = view.size_mm
    values = view.image[np.isfinite(view.image)]
    low, high = np.percentile(values, (1.0, 99.5)) if values.size else (0.0, 1.0)
    axes.set_facecolor("black")
    axes.imshow(
        view.image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(-width / 2, width / 2, height / 2, -height / 2),
        interpolation="bilinear",
    )
    axes.set(xlim=(-width / 2, width / 2), ylim=(height / 2, -height / 2), xticks=[], yticks=[])
    for x, letter, align in ((0.02, edges[0], "left"), (0.98, edges[1], "right")):
        axes.text(
            x, 0.5, letter, ha=align, va="center", fontsize=11, weight="bold", color="white", transform=axes.transAxes
        )


def _draw_point(axes: "Axes", view: View, point: Floats, *, name: str = "") -> None:
    x, y, distance = view.place(point)
    fill = _POINT_COLOUR if abs(distance) <= _HOLLOW_MM else "none"
    axes.plot(x, y, "o", markersize=5.5, markerfacecolor=fill, markeredgecolor=_POINT_COLOUR, clip_on=True)
    if name:
        # Behind the point, where muscle leaves room beside the canal.
        axes.annotate(
            name,
            (x, y),
            (9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            weight="bold",
            color=_POINT_COLOUR,
            annotation_clip=True,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "black", "alpha": 0.45, "linewidth": 0},
        )


def _caption(axes: "Axes", text: str) -> None:
    axes.text(
        0.02,
        0.015,
        text,
        ha="left",
        va="bottom",
        fontsize=8,
        color="white",
        transform=axes.transAxes,
        bbox={"boxstyle": "square,pad=0.2", "facecolor": "black", "alpha": 0.55, "linewidth": 0},
    )


def _draw_table(figure: "SubFigure", result: StudyResult) -> None:
    axes = figure.add_axes((0.145, 0.285, 0.845, 0.61))
    axes.set(xlim=(0, len(Level)), ylim=(len(Condition), 0), xticks=[], yticks=[])
    axes.set_axis_off()
    for column, level in enumerate(Level):
        axes.text(column + 0.5, -0.09, level.title, ha="center", va="bottom", fontsize=11, weight="bold")
    for line, condition in enumerate(Condition):
        axes.text(-0.07, line + 0.5, _CONDITION_WORDS[condition], ha="right", va="center", fontsize=9)
        for column, level in enumerate(Level):
            row = finding_index(condition, level)
            marks = "".join(_FLAG_MARKS[flag] for flag, is_set in zip(Flag, result.flags[row], strict=True) if is_set)
            _draw_cell(axes, column, line, result.probability[row], marks)
    _draw_legend(figure, result)


def _draw_cell(axes: "Axes", column: int, line: int, probability: Floats, marks: str) -> None:
    """Draws one finding: shaded by expected severity, a stacked bar, and three numbers in percent."""
    is_known = bool(np.isfinite(probability).all())
    expected = float(probability @ np.arange(len(Severity))) if is_known else 0.0
    shade = _expected_colour(expected) if is_known else _MISSING_COLOUR
    axes.add_patch(_rectangle(column + 0.02, line + 0.03, 0.96, 0.94, shade, edge="0.75"))
    axes.text(column + 0.95, line + 0.17, marks, ha="right", va="center", fontsize=10, color="0.1")
    if not is_known:
        axes.text(column + 0.5, line + 0.5, "no answer", ha="center", va="center", fontsize=9, color="0.25")
        return
    likeliest = int(np.argmax(probability))
    axes.text(column + 0.06, line + 0.17, Severity(likeliest).title, ha="left", va="center", fontsize=7.5)
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
            weight="bold" if severity == likeliest else "normal",
        )


def _rectangle(x: float, y: float, width: float, height: float, colour: object, *, edge: str) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.8)
