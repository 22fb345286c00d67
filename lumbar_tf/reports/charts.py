"""Line charts as SVG in a page: its own colours, light and dark, and nothing to load."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: The chart, and its margins left, right, top, bottom, in units of the SVG: pixels where it is that wide.
WIDTH, HEIGHT = 380.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 8.0, 34.0
#: Ticks are at most so many apart.
_MAX_TICKS = 6


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        kind: its class in the page's style, such as `train`; lines of one kind look alike.
        name: of this one.
        points: x and y; a y that is not finite breaks nothing and is left out.
    """

    kind: str
    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DrawnLine:
    """A curve in the units of the SVG.

    Attributes:
        kind: see `Line`.
        name: see `Line`.
        path: `x,y x,y ...`.
        ends: the only point of a line that has one, as x and y.
    """

    kind: str
    name: str
    path: str
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Chart:
    """What the template draws.

    Attributes:
        title: over the chart.
        text: what it shows, in words, with the last values.
        x_label: below the axis.
        x_ticks: place and text of each.
        y_ticks: likewise.
        lines: the curves.
        kinds: which kinds of lines there are, in order.
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
        """The left, upper, right and lower edge of the plot."""
        return _LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM


def draw_chart(title: str, lines: Sequence[Line], *, x_label: str) -> Chart | None:
    """Lays out a chart whose y axis begins at 0 where that wastes less than half of it.

    Args:
        title: what y is.
        lines: the curves.
        x_label: what x is.

    Returns:
        The chart; None where no point is finite.
    """
    finite = [
        Line(each.kind, each.name, tuple(point for point in each.points if math.isfinite(point[1])))
        for each in lines
    ]
    finite = [each for each in finite if each.points]
    if not finite:
        return None
    xs, ys = zip(*(point for each in finite for point in each.points), strict=True)
    low, high = (0.0 if 0 <= min(ys) <= max(ys) / 2 else min(ys)), max(ys)
    x_scale = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    ends = "; ".join(f"{each.name} ends at {each.points[-1][1]:.3g}" for each in finite)
    return Chart(
        title=title,
        text=f"{title} by {x_label}. {ends}.",
        x_label=x_label,
        x_ticks=x_scale.ticks(is_whole=True),
        y_ticks=y_scale.ticks(is_whole=False),
        lines=tuple(_draw(each, x_scale, y_scale) for each in finite),
        kinds=tuple(dict.fromkeys(each.kind for each in finite)),
    )


def tick_step(span: float, *, is_whole: bool) -> float:
    """Returns a distance of ticks, 1, 2 or 5 times a power of ten, of which a span holds six at most.

    >>> tick_step(9, is_whole=True), tick_step(0.7, is_whole=False), tick_step(0.7, is_whole=True)
    (2.0, 0.2, 1.0)
    """
    least = span / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))
    return max(step, 1.0) if is_whole else step


@dataclass(frozen=True)
class _Scale:
    """From values to places on the page."""

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
        return tuple((self.place(each * step), f"{each * step:.4g}") for each in range(first, last + 1))


def _draw(line: Line, x_scale: _Scale, y_scale: _Scale) -> DrawnLine:
    places = [(x_scale.place(x), y_scale.place(y)) for x, y in line.points]
    path = " ".join(f"{x:g},{y:g}" for x, y in places)
    return DrawnLine(line.kind, line.name, path, places[0] if len(places) == 1 else None)
