"""What moved is named, what did not is left in peace."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lumbar_tf.monitoring.drift import MODERATE_PSI, compare_window, homogeneity, stability_index
from lumbar_tf.monitoring.log import LogRow
from lumbar_tf.monitoring.reference import Reference, make_reference

NUM_QUANTITIES = 60
Draw = Callable[[np.random.Generator], dict[str, float | None]]


def _study(rng: np.random.Generator) -> dict[str, float | None]:
    """Sixty probabilities, some sizes, and a plane that is missing now and then."""
    values: dict[str, float | None] = {
        f"p{number}": float(rng.beta(0.4, 3)) for number in range(NUM_QUANTITIES)
    }
    values["rows"] = float(rng.choice([320, 384, 512], p=[0.7, 0.2, 0.1]))
    values["constant"] = 1.0
    values["sharpness"] = None if rng.random() < 0.1 else float(rng.normal(0.2, 0.03))
    return values


def _rows(count: int, seed: int, draw: Draw = _study, model: str = "1") -> list[LogRow]:
    rng = np.random.default_rng(seed)
    return [LogRow(datetime(2026, 11, 1, tzinfo=UTC), model, draw(rng)) for _ in range(count)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return make_reference([row.values for row in _rows(1975, 0)], model="1", made_from="a test")


def _changed(name: str, change: Callable[[Any, np.random.Generator], float | None]) -> Draw:
    def draw(rng: np.random.Generator) -> dict[str, float | None]:
        values = _study(rng)
        return {**values, name: change(values[name], rng)}

    return draw


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("p3", lambda value, rng: min(1.0, value + 0.15)),
        ("p3", lambda value, rng: value * 0.5),
        ("rows", lambda value, rng: 640.0 if rng.random() < 0.5 else value),
        ("rows", lambda value, rng: 384.0),
        ("constant", lambda value, rng: 2.0 if rng.random() < 0.3 else 1.0),
        ("sharpness", lambda value, rng: None if rng.random() < 0.5 else value),
        ("sharpness", lambda value, rng: None if value is None else value * 0.8),
    ],
)
def test_only_moved_quantities_are_named(
    reference: Reference, name: str, change: Callable[[Any, np.random.Generator], float | None]
) -> None:
    comparison = compare_window(reference, _rows(200, 1, _changed(name, change)))
    assert [shift.name for shift in comparison.moved] == [name]


@pytest.mark.parametrize(("count", "windows"), [(30, 40), (60, 40), (300, 15)])
def test_a_window_of_the_same_cohort_has_not_moved(reference: Reference, count: int, windows: int) -> None:
    """A false alarm in any of 63 quantities: at most 1 in 100 windows is promised."""
    alarms = sum(bool(compare_window(reference, _rows(count, 10 + seed)).moved) for seed in range(windows))
    # 40 windows at 1%: more than 2 alarms have odds of 1 in 130.
    assert alarms <= 2
    if count == 30:
        # The usual rule, the index alone, calls many of them moved.
        shifts = compare_window(reference, _rows(count, 10)).shifts
        assert sum(shift.psi >= MODERATE_PSI for shift in shifts) > 20


def test_a_large_window_with_a_tiny_difference_has_not_moved(reference: Reference) -> None:
    comparison = compare_window(
        reference, _rows(3000, 2, _changed("p0", lambda value, rng: min(1, value * 1.08)))
    )
    (shift,) = (found for found in comparison.shifts if found.name == "p0")
    assert shift.p_value < 0.05
    assert not comparison.moved


def test_the_index_is_the_published_sum_and_the_test_is_scipys() -> None:
    before, now = np.array([5000, 3000, 2000]), np.array([4000, 3000, 3000])
    # (0.4 - 0.5) ln(0.4 / 0.5) + 0 + (0.3 - 0.2) ln(0.3 / 0.2), by hand.
    assert stability_index(before, now) == pytest.approx(0.0223144 + 0.0405465, abs=1e-4)
    for counts in ([before, now], [[9, 0, 3, 7], [2, 5, 1, 0]]):
        expected = stats.chi2_contingency(counts, correction=False).pvalue
        assert homogeneity(*np.array(counts)) == pytest.approx(expected, rel=1e-9)
    assert homogeneity(np.array([5, 0, 0]), np.array([9, 0, 0])) == 1
    assert np.isfinite(stability_index(np.array([100, 0]), np.array([0, 100])))


def test_other_versions_are_left_out_and_counted(reference: Reference) -> None:
    others = _rows(50, 3, _changed("p0", lambda value, rng: 1.0), model="2")
    comparison = compare_window(reference, [*_rows(100, 4), *others])
    assert (comparison.num_studies, comparison.num_of_others, comparison.moved) == (100, 50, ())
    with pytest.raises(ValueError, match=r"at least 30 studies of version 1\. Received: 0, and 50"):
        compare_window(reference, others)


def test_quantities_of_one_side_are_named_and_not_compared(reference: Reference) -> None:
    rows = _rows(40, 5)
    renamed = [
        LogRow(row.time, row.model, {("new" if name == "p0" else name): v for name, v in row.values.items()})
        for row in rows
    ]
    comparison = compare_window(reference, renamed)
    assert (comparison.uncompared, comparison.unlogged) == (("new",), ("p0",))
