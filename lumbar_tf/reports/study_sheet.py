"""Sheet of a study: its level points and the calibrated probabilities of its 25 findings in one picture."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.study import Study
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import Condition, Level, Plane, Side, finding_index
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.probability_table import MISSING_COLOUR, draw_table
from lumbar_tf.reports.slice_pictures import (
    Floats,
    ResampledSlice,
    choose_slice,
    display_window,
    resample_slice,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_FOOTER = "lumbar_tf - calibrated probabilities - research use, not a medical device"
_INCHES = (17.0, 8.1)
_DPI = 110
#: Size of a sagittal picture, mm: L1/L2 to L5/S1 spans 110 to 160 mm; the rest lets a reader count vertebrae.
_SAGITTAL_MM = (165.0, 230.0)
#: Size of an axial picture, mm: vertebra, canal, facets and the surrounding muscles.
_AXIAL_MM = (110.0, 110.0)
#: Largest distance of a point from the slice on which it is shown, mm.
_MAX_DISTANCE_MM = 10.0
#: Points farther from the slice than this, about one slice spacing, are drawn hollow, mm.
_HOLLOW_MM = 5.0
_POINT_COLOUR = "#ffe14d"
#: Lower edge of the note on the training data, whose upper edge is that of the sheet, and its width.
_NOTE_BOTTOM, _NOTE_WIDTH = 0.974, 0.976
_NOTE_POINTS = 11.0
#: Behind black text.
_NOTE_COLOUR = "#f6c9a8"
#: Visible on bright fluid and on dark bone.
_CROSS_COLOUR = "#ff3b1f"


def draw_study_sheet(path: Path, study: Study, result: StudyFindings) -> None:
    """Draws the sheet of one study, atomically.

    Pictures have radiological orientation: axial slices are viewed from the feet with the patient's left at
    the right, sagittal ones have anterior at the left. The study id is the only patient data on the sheet.

    Args:
        path: the PNG.
        study: the study's slices.
        result: the study's findings; probabilities or landmarks of NaN are shown as missing.
    """
    figure = _make_sheet(study, result)
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def sheet_pixels(study: Study, result: StudyFindings) -> NDArray[np.uint8]:
    """Returns the sheet of `draw_study_sheet` as RGB, uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _make_sheet(study, result)
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def sheet_pdf(study: Study, result: StudyFindings) -> bytes:
    """Returns the sheet of `draw_study_sheet` as a PDF document of one page, with selectable text."""
    from matplotlib import rc_context

    figure = _make_sheet(study, result)
    document = BytesIO()
    # Embedded TrueType fonts, because text in Matplotlib's own Type 3 fonts is not found by all readers.
    with rc_context({"pdf.fonttype": 42}):
        figure.savefig(document, dpi=_DPI, format="pdf", metadata={"Title": _FOOTER, "CreationDate": None})
    return document.getvalue()


def _make_sheet(study: Study, result: StudyFindings) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.32, 1.0), left=0, right=1, bottom=0, top=1, wspace=0)
    pictures, table = (figure.add_subfigure(grid[0, place]) for place in range(2))
    _draw_pictures(pictures, study, result.landmarks)
    draw_table(table, result)
    _draw_training_note(figure, result)
    # A dollar sign in a study id must not start a formula.
    figure.text(
        0.012, 0.951, f"Study {result.study_id}", fontsize=15, weight="bold", va="center", parse_math=False
    )
    figure.text(0.012, 0.014, _FOOTER, fontsize=9, color="0.3", va="center")
    return figure


def _draw_training_note(figure: "Figure", result: StudyFindings) -> None:
    """Draws the note on the training data as the top line: bold on a band if they are synthetic."""
    from matplotlib.patches import Rectangle

    is_synthetic = result.training.is_synthetic
    if is_synthetic:
        band = Rectangle((0, _NOTE_BOTTOM), 1, 1 - _NOTE_BOTTOM, facecolor=_NOTE_COLOUR, edgecolor="none")
        figure.add_artist(band)
    text = figure.text(
        0.012,
        (1 + _NOTE_BOTTOM) / 2,
        result.training_note,
        fontsize=_NOTE_POINTS,
        weight="bold" if is_synthetic else "normal",
        va="center_baseline",
        parse_math=False,
    )
    width = text.get_window_extent().width / figure.bbox.width
    # Wide letters: a smaller font rather than a cut sentence.
    text.set_fontsize(_NOTE_POINTS * min(1.0, _NOTE_WIDTH / width))


def _points(landmarks: Floats, condition: Condition) -> Floats:
    """Returns a condition's points, one per level, float32 [5, 3]."""
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
    figure.text(0.02, 0.322, "Axial T2 at each level point, viewed from the feet", fontsize=10, weight="bold")
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
        _draw_placeholder(axes, f"no {plane.series_description}\nin this study")
        return
    if not known.any():
        _draw_placeholder(axes, "no points found")
        return
    chosen = choose_slice(slices, points, max_distance_mm=_MAX_DISTANCE_MM)
    if chosen is None:
        _draw_placeholder(axes, f"no slice within {_MAX_DISTANCE_MM:.0f} mm\nof the points")
        return
    around = points[known].mean(axis=0).astype(float)
    resampled = resample_slice(chosen, around, size_mm=_SAGITTAL_MM, is_sagittal=True)
    _draw_image(axes, resampled, edges=("A", "P"))
    for level, point in zip(Level, points, strict=True):
        if np.isfinite(point).all():
            _draw_point(axes, resampled, point, name=level.title)
    notes = [f"slice at {_lateral(resampled.centre[0])}"]
    if not known.all():
        absent = [level.title for level, point in zip(Level, points, strict=True) if np.isnan(point).any()]
        notes.append("no point: " + ", ".join(absent))
    _caption(axes, "\n".join(notes))


def _draw_axial(axes: "Axes", study: Study, level: Level, point: Floats) -> None:
    axes.set_title(level.title, fontsize=10, weight="bold", loc="left", pad=3)
    axes.set_box_aspect(_AXIAL_MM[1] / _AXIAL_MM[0])
    slices = study.planes.get(Plane.AXIAL_T2, ())
    if not slices:
        _draw_placeholder(axes, "no Axial T2\nin this study")
        return
    if not np.isfinite(point).all():
        _draw_placeholder(axes, "no level point")
        return
    chosen = choose_slice(slices, point[np.newaxis], max_distance_mm=_MAX_DISTANCE_MM)
    if chosen is None:
        _draw_placeholder(axes, f"no slice within\n{_MAX_DISTANCE_MM:.0f} mm of the point")
        return
    resampled = resample_slice(chosen, point.astype(float), size_mm=_AXIAL_MM, is_sagittal=False)
    _draw_image(axes, resampled, edges=(_initial(Side.RIGHT), _initial(Side.LEFT)))
    # A cross, because a dot would hide a narrow canal.
    axes.plot(*resampled.place(point)[:2], "+", markersize=8, markeredgewidth=1.4, color=_CROSS_COLOUR)
    _caption(axes, f"{abs(resampled.place(point)[2]):.1f} mm off")


def _initial(side: Side) -> str:
    return side.name[0]


def _lateral(x_mm: float) -> str:
    """Formats a patient x, such as `x = 12 mm L`; LPS +x is left."""
    side = Side.LEFT if x_mm > 0 else Side.RIGHT
    rounded = f"{abs(x_mm):.0f}"
    return "x = 0 mm" if rounded == "0" else f"x = {rounded} mm {_initial(side)}"


def _draw_placeholder(axes: "Axes", text: str) -> None:
    axes.set_facecolor(MISSING_COLOUR)
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, color="0.25", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_image(axes: "Axes", resampled: ResampledSlice, *, edges: tuple[str, str]) -> None:
    """Draws a slice in millimetres in its own window, with a letter at the left and right edge."""
    width, height = resampled.size_mm
    low, high = display_window(resampled.image)
    axes.set_facecolor("black")
    axes.imshow(
        resampled.image,
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


def _draw_point(axes: "Axes", resampled: ResampledSlice, point: Floats, *, name: str) -> None:
    x, y, distance = resampled.place(point)
    fill, edge = (_POINT_COLOUR, "black") if abs(distance) <= _HOLLOW_MM else ("none", _POINT_COLOUR)
    axes.plot(x, y, "o", markersize=5.5, markerfacecolor=fill, markeredgecolor=edge, clip_on=True)
    # Posterior to the point, where muscle leaves room for the name.
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
