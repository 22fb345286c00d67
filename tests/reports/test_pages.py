import math

import pytest

from lumbar_tf.reports.pages import HEIGHT, WIDTH, Line, draw_chart, tick_step


def test_points_have_the_positions_of_their_values() -> None:
    chart = draw_chart("Loss", [Line("train", "a", ((1, 4.0), (2, 2.0), (3, 0.0)))], x_label="epoch")
    assert chart is not None
    left, top, right, bottom = chart.frame
    places = [tuple(map(float, pair.split(","))) for pair in chart.lines[0].path.split()]
    assert places == [(left, top), ((left + right) / 2, (top + bottom) / 2), (right, bottom)]
    assert [text for _, text in chart.x_ticks] == ["1", "2", "3"]
    assert [text for _, text in chart.y_ticks] == ["0", "1", "2", "3", "4"]
    assert chart.y_ticks[0][0] == bottom and chart.y_ticks[-1][0] == top
    assert chart.text == "Loss by epoch. a ends at 0."


def test_the_y_axis_starts_at_zero_unless_half_of_it_stays_empty() -> None:
    near, far = (
        draw_chart("", [Line("train", "a", ((1, low), (2, 10.0)))], x_label="epoch") for low in (9.0, 1.0)
    )
    assert near is not None and far is not None
    assert near.y_ticks[0][1] == "9" and far.y_ticks[0][1] == "0"


@pytest.mark.parametrize("values", [(math.nan, 1.0, 2.0), (math.inf, 1.0, 2.0)])
def test_points_that_are_not_finite_are_skipped(values: tuple[float, ...]) -> None:
    chart = draw_chart("", [Line("train", "a", tuple(enumerate(values)))], x_label="epoch")
    assert chart is not None and len(chart.lines[0].path.split()) == 2


def test_without_finite_points_there_is_no_chart() -> None:
    assert draw_chart("", [], x_label="epoch") is None
    assert draw_chart("", [Line("train", "a", ((1, math.nan),))], x_label="epoch") is None


def test_a_single_point_is_drawn_in_the_middle() -> None:
    chart = draw_chart("", [Line("train", "a", ((1, 0.5),))], x_label="epoch")
    assert chart is not None and chart.lines[0].ends is not None
    assert 0 < chart.lines[0].ends[0] < WIDTH and 0 < chart.lines[0].ends[1] < HEIGHT
    assert chart.x_ticks[0][1] == "1" and chart.y_ticks[0][1] == "0.5"


@pytest.mark.parametrize("span", [1e-8, 3e-4, 0.7, 1.0, 6.0, 6.1, 99.0, 12345.0])
def test_there_are_two_to_six_steps_of_one_two_or_five(span: float) -> None:
    step = tick_step(span, is_whole=False)
    assert 1.9 <= span / step <= 6.0 + 1e-6
    assert f"{step:.0e}"[0] in "125"
