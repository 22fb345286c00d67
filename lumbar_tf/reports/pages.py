"""Self-contained HTML pages: templates, embedded pictures and SVG line charts."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf import __version__
from lumbar_tf.files import write_text_atomically

if TYPE_CHECKING:
    from jinja2 import Environment

#: Size of a chart in SVG units; at full width one unit is one pixel.
WIDTH, HEIGHT = 380.0, 230.0
#: Margins of the plot area, SVG units.
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 8.0, 34.0
#: Upper limit of tick intervals along an axis.
_MAX_TICKS = 6
#: Characters of a tick label that fit beside an axis.
_LONGEST_LABEL = 6


@cache
def page_templates() -> "Environment":
    """Returns the templates in `reports/templates`, with autoescape; an undefined variable is an error."""
    # Imported here so that a command's --help does not wait for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lumbar_tf.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["data_uri"] = data_uri
    return environment


def write_page(path: Path, template: str, values: dict[str, Any], *, is_synthetic: bool = False) -> None:
    """Renders a template to a file, atomically.

    Args:
        path: the HTML file.
        template: file name in `reports/templates`.
        values: the template's variables.
        is_synthetic: whether all studies are synthetic, which the page then states.
    """
    stream = (
        page_templates()
        .get_template(template)
        .generate(version=__version__, is_synthetic=is_synthetic, **values)
    )
    write_text_atomically(path, stream)


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    """Returns a `data:` URI that embeds a file, a PNG by default."""
    return f"data:{media_type};base64," + base64.b64encode(content).decode("ascii")


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        kind: CSS class, such as `train`; curves of one kind share a style.
        name: name of the curve, for its tooltip.
        points: (x, y) pairs; pairs whose y is not finite are skipped.
    """

    kind: str
    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DrawnLine:
    """A curve in SVG units.

    Attributes:
        kind: see `Line`.
        name: see `Line`.
        path: `x,y x,y ...`.
        ends: (x, y) of a curve with a single point, else None.
    """

    kind: str
    name: str
    path: str
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Chart:
    """A chart ready for the template `chart.html`.

    Attributes:
        title: heading.
        text: description for screen readers, with the last value of each curve.
        x_label: label of the x axis.
        x_ticks: position and text of each tick.
        y_ticks: position and text of each tick.
        lines: the curves.
        kinds: the kinds of curves present, in order.
    """

    title: str
    text: str
    x_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[DrawnLine, ...]
    kinds: tuple[str, ...]

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of the plot area."""
        return _LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM


def draw_chart(title: str, lines: Sequence[Line], *, x_label: str) -> Chart | None:
    """Lays out a chart.

    The y axis starts at 0 unless that would leave more than half of it empty.

    Args:
        title: name of the quantity on the y axis.
        lines: the curves.
        x_label: name of the quantity on the x axis.

    Returns:
        The chart; None if no point is finite.
    """
    finite = [
        Line(line.kind, line.name, tuple(point for point in line.points if math.isfinite(point[1])))
        for line in lines
    ]
    finite = [line for line in finite if line.points]
    if not finite:
        return None
    xs, ys = zip(*(point for line in finite for point in line.points), strict=True)
    low, high = (0.0 if 0 <= min(ys) <= max(ys) / 2 else min(ys)), max(ys)
    x_scale = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    ends = "; ".join(f"{line.name} ends at {line.points[-1][1]:.3g}" for line in finite)
    return Chart(
        title=title,
        text=f"{title} by {x_label}. {ends}.",
        x_label=x_label,
        x_ticks=x_scale.ticks(is_whole=True),
        y_ticks=y_scale.ticks(is_whole=False),
        lines=tuple(_draw(line, x_scale, y_scale) for line in finite),
        kinds=tuple(dict.fromkeys(line.kind for line in finite)),
    )


def tick_step(span: float, *, is_whole: bool) -> float:
    """Returns the tick spacing: 1, 2 or 5 times a power of ten, with at most six intervals in the span.

    >>> tick_step(9, is_whole=True), tick_step(0.7, is_whole=False), tick_step(0.7, is_whole=True)
    (2.0, 0.2, 1.0)
    """
    least = span / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))
    return max(step, 1.0) if is_whole else step


def tick_labels(values: Sequence[float]) -> list[str]:
    """Returns labels in one notation: the scientific one if a label would not fit beside an axis otherwise.

    >>> tick_labels([0.0, 0.5, 1.0]), tick_labels([0.0, 0.00015, 0.0003])
    (['0', '0.5', '1'], ['0', '1.5e-4', '3e-4'])
    """
    labels = [f"{value:.4g}" for value in values]
    if max(map(len, labels)) <= _LONGEST_LABEL:
        return labels
    parts = [f"{value:.2e}".partition("e") for value in values]
    return [
        f"{float(mantissa):g}e{int(exponent)}" if float(mantissa) else "0" for mantissa, _, exponent in parts
    ]


@dataclass(frozen=True)
class _Scale:
    """Linear map from values to SVG positions."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        span = self.high - self.low
        part = (value - self.low) / span if span > 0 else 0.5
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self, *, is_whole: bool) -> tuple[tuple[float, str], ...]:
        step = tick_step(self.high - self.low, is_whole=is_whole)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        if last < first or self.high == self.low:
            return ((self.place(self.low), f"{self.low:.3g}"),)
        values = [tick * step for tick in range(first, last + 1)]
        return tuple(zip(map(self.place, values), tick_labels(values), strict=True))


def _draw(line: Line, x_scale: _Scale, y_scale: _Scale) -> DrawnLine:
    places = [(x_scale.place(x), y_scale.place(y)) for x, y in line.points]
    path = " ".join(f"{x:g},{y:g}" for x, y in places)
    return DrawnLine(line.kind, line.name, path, places[0] if len(places) == 1 else None)
