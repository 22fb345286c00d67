"""One picture a study: where the level points lie, and the calibrated probabilities of the 25 findings."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.study import Study
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import Condition, Level, Plane, Side, finding_index
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.probability_table import MISSING_COLOUR, draw_table
from lumbar_tf.reports.slice_resampling import Floats, View, choose_slice, cut_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_FOOTER = "lumbar_tf - calibrated probabilities - research use, not a medical device"
_INCHES = (17.0, 8.1)
_DPI = 110
#: L1/L2 to L5/S1 is 110 to 160 mm; the rest is so that a reader can count the vertebrae, mm.
_SAGITTAL_MM = (165.0, 230.0)
#: Vertebra, canal, facets and the muscles around them, mm.
_AXIAL_MM = (110.0, 110.0)
#: A point farther than this from every slice is not shown on any, mm.
_MAX_DISTANCE_MM = 10.0
#: Beyond about one slice's spacing a point is drawn hollow: the slice does not show its place, mm.
_HOLLOW_MM = 5.0
_POINT_COLOUR = "#ffe14d"
#: Seen on white fluid as on black bone.
_CROSS_COLOUR = "#ff3b1f"


def draw_study_sheet(path: Path, study: Study, result: StudyFindings) -> None:
    """Draws the sheet of one study, atomically.

    Pictures lie along the patient's axes: axial slices seen from the feet with the patient's left at the
    right, sagittal ones with the front at the left. The study's id is the only thing said of the patient.

    Args:
        path: the PNG.
        study: its slices.
        result: its answer; probabilities or landmarks of NaN are shown as missing.
    """
    figure = _make_sheet(study, result)
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def sheet_pixels(study: Study, result: StudyFindings) -> NDArray[np.uint8]:
    """Returns what `draw_study_sheet` draws as colours, uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _make_sheet(study, result)
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _make_sheet(study: Study, result: StudyFindings) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.32, 1.0), left=0, right=1, bottom=0, top=1, wspace=0)
    pictures, table = (figure.add_subfigure(grid[0, place]) for place in range(2))
    _draw_pictures(pictures, study, result.landmarks)
    draw_table(table, result)
    # A study's id may hold a dollar sign, which must not start mathematics.
    figure.text(
        0.012, 0.97, f"Study {result.study_id}", fontsize=15, weight="bold", va="center", parse_math=False
    )
    figure.text(0.012, 0.014, _FOOTER, fontsize=9, color="0.3", va="center")
    return figure


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
    upper = figure.add_gridspec(1, 3, left=0.02, right=0.99, top=0.895, bottom=0.365, wspace=0.04)
    for place, (title, plane, condition) in enumerate(sagittals):
        axes = figure.add_subplot(upper[0, place])
        _draw_sagittal(axes, study, plane, _points(landmarks, condition), title)
    lower = figure.add_gridspec(1, 5, left=0.02, right=0.99, top=0.272, bottom=0.045, wspace=0.04)
    figure.text(0.02, 0.322, "Axial T2 at each level point, seen from the feet", fontsize=10, weight="bold")
    note = f"Points: filled within {_HOLLOW_MM:.0f} mm of the slice shown, hollow beyond."
    figure.text(0.99, 0.322, note, fontsize=8.5, color="0.3", ha="right")
    for place, level in enumerate(Level):
        _draw_axial(figure.add_subplot(lower[0, place]), study, level, canal[place])


def _draw_sagittal(axes: "Axes", study: Study, plane: Plane, points: Floats, title: str) -> None:
    axes.set_title(title, fontsize=10, weight="bold", loc="left", pad=4)
    axes.set_box_aspect(_SAGITTAL_MM[1] / _SAGITTAL_MM[0])
    known = np.isfinite(points).all(axis=-1)
    slices = study.planes.get(plane, ())
    if not slices:
        _draw_nothing(axes, f"no {plane.series_description}\nin this study")
        return
    if not known.any():
        _draw_nothing(axes, "no points found")
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
        absent = [level.title for level, point in zip(Level, points, strict=True) if np.isnan(point).any()]
        notes.append("no point: " + ", ".join(absent))
    _caption(axes, "\n".join(notes))


def _draw_axial(axes: "Axes", study: Study, level: Level, point: Floats) -> None:
    axes.set_title(level.title, fontsize=10, weight="bold", loc="left", pad=3)
    axes.set_box_aspect(_AXIAL_MM[1] / _AXIAL_MM[0])
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
    # A cross, because a dot would hide a narrow canal.
    axes.plot(*view.place(point)[:2], "+", markersize=8, markeredgewidth=1.4, color=_CROSS_COLOUR)
    _caption(axes, f"{abs(view.place(point)[2]):.1f} mm off")


def _initial(side: Side) -> str:
    return side.name[0]


def _lateral(x_mm: float) -> str:
    """Says a patient x: LPS +x is left."""
    side = Side.LEFT if x_mm > 0 else Side.RIGHT
    rounded = f"{abs(x_mm):.0f}"
    return "x = 0 mm" if rounded == "0" else f"x = {rounded} mm {_initial(side)}"


def _draw_nothing(axes: "Axes", words: str) -> None:
    axes.set_facecolor(MISSING_COLOUR)
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
            x,
            0.5,
            letter,
            ha=align,
            va="center",
            fontsize=11,
            weight="bold",
            color="white",
            transform=axes.transAxes,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "black", "alpha": 0.55, "linewidth": 0},
        )


def _draw_point(axes: "Axes", view: View, point: Floats, *, name: str) -> None:
    x, y, distance = view.place(point)
    fill, edge = (_POINT_COLOUR, "black") if abs(distance) <= _HOLLOW_MM else ("none", _POINT_COLOUR)
    axes.plot(x, y, "o", markersize=5.5, markerfacecolor=fill, markeredgecolor=edge, clip_on=True)
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
