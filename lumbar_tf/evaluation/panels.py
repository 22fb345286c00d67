"""Sheets of equal panels: drawn once, kept whole as a PNG, and cut for a page with a layout of its own."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumbar_tf.files import replace_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

#: Width and height of a panel, and its margins left, bottom, right, top, and the sheet's title, inches.
_WIDTH, _HEIGHT = 2.9, 2.9
_LEFT, _BOTTOM, _RIGHT, _TOP = 0.6, 0.48, 0.12, 0.46
_TITLE = 0.36
#: Where the middle of a panel lies over its axes, in parts of their width.
TITLE_PLACE = (_WIDTH / 2 - _LEFT) / (_WIDTH - _LEFT - _RIGHT)
_DPI = 150
#: Lines, a band and their edges: more colours are not told apart, and a page is a third as large.
_NUM_COLOURS = 64


@dataclass(frozen=True)
class Panel:
    """What to draw in one place.

    Attributes:
        text: what the picture shows, in words.
        draw: draws it.
    """

    text: str
    draw: Callable[["Axes"], None]


@dataclass(frozen=True)
class PanelPicture:
    """A panel that was drawn.

    Attributes:
        text: what it shows, in words.
        png: the file.
    """

    text: str
    png: bytes


def draw_panels(path: Path, rows: Sequence[Sequence[Panel]], *, title: str) -> list[list[PanelPicture]]:
    """Draws panels, writes the sheet as a PNG, whole or not at all, and returns the panels one by one.

    Args:
        path: the PNG.
        rows: rows of equal length.
        title: over the sheet; panels that are cut from it do not have it.
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
    # Quantised once: panels that are cut from it share its palette.
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
