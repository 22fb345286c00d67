"""A sheet of augmented crops beside the plain ones, with their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import replace_atomically
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, NUM_LEVELS, Level, Severity
from lumbar_tf.reports.preview_crops import Preview, StudyCrops
from lumbar_tf.reports.probability_table import MISSING_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of a column and of the words at the left, inches.
_COLUMN, _MARGIN = 1.75, 0.85
#: Height of the title, and of the lines of text above and below a row of crops, inches.
_TITLE, _LINE = 0.75, 0.17
_DPI = 110
#: Shares below this are not written.
_LEAST_SHARE = 0.005


def draw_preview(
    path: Path, previews: Sequence[Preview], layout: CropLayout, *, title: str, note: str
) -> None:
    """Draws the sheet, atomically: two rows a study, the plain crops above the augmented ones.

    Each picture is the crop's central slice as the network sees it, in one window, so that brightness can be
    compared. Dots tell the crop's slices: hollow ones are masked.
    Below stand the target of each finding that the crop shows.

    Args:
        path: the PNG.
        previews: from `collect_previews`, at least one.
        layout: the plane's layout.
        title: the first line.
        note: below it, a sentence on what is drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = max(len(_rows_of(layout, crop)) for crop in range(len(layout.sides)))
    # Dots above a crop, targets below it.
    height = _COLUMN + (1.4 + lines) * _LINE
    width = _MARGIN + _COLUMN * len(layout.sides)
    figure = Figure(figsize=(width, _TITLE + 2 * len(previews) * height + 0.1), facecolor="white")
    FigureCanvasAgg(figure)
    _write(figure, 0.1, 0.18, title, size=11, weight="bold")
    _write(figure, 0.1, 0.42, f"{note} Filled dots are slices seen, hollow ones masked.", size=8)
    for crop in range(len(layout.sides)):
        _write(figure, _MARGIN + crop * _COLUMN, 0.66, _name(layout, crop), size=9, weight="bold")
    for number, preview in enumerate(previews):
        for place, (word, crops) in enumerate((("plain", preview.plain), ("augmented", preview.augmented))):
            top = _TITLE + (2 * number + place) * height
            if place == 0:
                _write(figure, 0.1, top + _COLUMN / 2, f"study {number + 1}", size=9, weight="bold")
            _write(figure, 0.1, top + _COLUMN / 2 + 0.2, word, size=8)
            for crop in range(len(layout.sides)):
                _draw_crop(figure, (_MARGIN + crop * _COLUMN, top), crops, crop, layout)
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def describe_target(target: NDArray[np.float32]) -> str:
    """Writes a target in words; the share without a label is what is missing to 1.

    >>> describe_target(np.array([0, 1, 0], np.float32))
    'Moderate'
    >>> describe_target(np.array([0.7, 0, 0.2], np.float32))
    'N/M .70  Sev .20  ? .10'
    >>> describe_target(np.zeros(3, np.float32))
    'no label'
    """
    if target.max() > 1 - _LEAST_SHARE:
        return Severity(int(target.argmax())).title
    if target.sum() < _LEAST_SHARE:
        return "no label"
    names = ("N/M", "Mod", "Sev", "?")
    shares = [*target.tolist(), 1.0 - float(target.sum())]
    words = [f"{name} {share:.2f}" for name, share in zip(names, shares) if share >= _LEAST_SHARE]
    return "  ".join(words).replace(" 0.", " .")


def _rows_of(layout: CropLayout, crop: int) -> list[int]:
    """Returns the places, among the layout's rows, of the findings that a crop shows."""
    return [place for place, views in enumerate(layout.row_views) if views[crop]]


def _name(layout: CropLayout, crop: int) -> str:
    level = list(Level)[crop // (len(layout.sides) // NUM_LEVELS)].title
    side = layout.sides[crop]
    return level if side is None else f"{level} {side.value}"


def _write(figure: "Figure", x: float, y: float, text: str, *, size: float, weight: str = "normal") -> None:
    """Writes at a place in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, fontsize=size, weight=weight, va="center", parse_math=False)


def _draw_crop(
    figure: "Figure", corner: tuple[float, float], crops: StudyCrops, crop: int, layout: CropLayout
) -> None:
    width, height = figure.get_size_inches()
    left, top = corner
    edge = _COLUMN - 0.1
    dots = "".join("●" if is_seen else "○" for is_seen in crops.mask[crop])
    _write(figure, left, top + 0.5 * _LINE, dots, size=6)
    top += _LINE
    axes = figure.add_axes((left / width, 1 - (top + edge) / height, edge / width, edge / height))
    _show(axes, crops, crop)
    for line, place in enumerate(_rows_of(layout, crop)):
        finding = FINDINGS[layout.rows[place]]
        words = f"{finding.condition.family.value}: {describe_target(crops.targets[place])}"
        _write(figure, left, top + edge + (0.6 + line) * _LINE, words, size=6.5)


def _show(axes: "Axes", crops: StudyCrops, crop: int) -> None:
    axes.set(xticks=[], yticks=[])
    if not crops.mask[crop].any():
        axes.set_facecolor(MISSING_COLOUR)
        axes.text(0.5, 0.5, "no slice", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    centre = crops.image[crop, crops.mask.shape[1] // 2]
    axes.imshow(centre, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
