"""Compares a window of the log with a reference, quantity by quantity.

Two questions are asked of each, and it has moved where both are answered with yes:
- Is the difference large? The population stability index, sum over bins of (a - b) ln(a / b) of the shares:
  below 0.1 is called stable, 0.1 to 0.25 moderate, more is large (Siddiqi, Credit Risk Scorecards, 2006).
- Is it more than chance? With few studies the index of two samples of one cohort is large already: it is
  about (bins - 1) (1/n + 1/m). Pearson's chi-square test of homogeneity, at a level shared by all quantities
  that are compared (Bonferroni), says whether the counts can be of one cohort.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lumbar_tf.cli.console import Summary
from lumbar_tf.monitoring.log import LogRow
from lumbar_tf.monitoring.reference import MIN_STUDIES, Distribution, Reference

MODERATE_PSI = 0.1

LARGE_PSI = 0.25

#: The chance that any of all quantities is called moved where none has.
FALSE_ALARM_RATE = 0.01

#: Added to each bin's count, so that an empty one does not make the index infinite.
_PRIOR_COUNT = 0.5


@dataclass(frozen=True)
class Shift:
    """How far one quantity is from its reference.

    Attributes:
        name: the quantity.
        psi: the population stability index.
        p_value: of the test of homogeneity.
        has_moved: whether both say so.
        reference_median: None where no value is known.
        window_median: likewise.
        reference_missing: share of studies without a value.
        window_missing: likewise.
        num_studies: of the window.
    """

    name: str
    psi: float
    p_value: float
    has_moved: bool
    reference_median: float | None
    window_median: float | None
    reference_missing: float
    window_missing: float
    num_studies: int

    @property
    def is_large(self) -> bool:
        """Whether it moved by more than is called moderate."""
        return self.has_moved and self.psi >= LARGE_PSI


@dataclass(frozen=True)
class Comparison:
    """A window against a reference.

    Attributes:
        shifts: of every quantity that both have, the largest index first.
        num_studies: of the window.
        num_of_others: rows of other versions, which were left out.
        uncompared: quantities of the window that the reference does not know.
        unlogged: quantities of the reference that the window does not have.
    """

    shifts: tuple[Shift, ...]
    num_studies: int
    num_of_others: int
    uncompared: tuple[str, ...]
    unlogged: tuple[str, ...]

    @property
    def moved(self) -> tuple[Shift, ...]:
        """Those that moved, the largest index first."""
        return tuple(each for each in self.shifts if each.has_moved)


def compare_window(reference: Reference, rows: Sequence[LogRow]) -> Comparison:
    """Compares the rows of the reference's version with it.

    Args:
        reference: what is expected.
        rows: of the window, of any version.

    Raises:
        ValueError: fewer rows than `MIN_STUDIES`: nothing could be told.
    """
    mine = [row.values for row in rows if row.model == reference.model]
    if len(mine) < MIN_STUDIES:
        raise ValueError(
            f"A window must hold at least {MIN_STUDIES} studies of version {reference.model}. "
            f"Received: {len(mine)}, and {len(rows) - len(mine)} of other versions."
        )
    keys = {name for row in mine for name in row}
    logged = {name: [row[name] for row in mine if name in row] for name in keys}
    names = [name for name in reference.distributions if logged.get(name)]
    level = FALSE_ALARM_RATE / max(len(names), 1)
    shifts = [_compare(name, reference.distributions[name], logged[name], level) for name in names]
    return Comparison(
        shifts=tuple(sorted(shifts, key=lambda each: -each.psi)),
        num_studies=len(mine),
        num_of_others=len(rows) - len(mine),
        uncompared=tuple(sorted(set(logged) - set(reference.distributions))),
        unlogged=tuple(sorted(set(reference.distributions) - set(logged))),
    )


def _compare(name: str, expected: Distribution, values: Sequence[float | None], level: float) -> Shift:
    before, now = np.array(expected.counts), expected.count(values)
    psi, p_value = stability_index(before, now), homogeneity(before, now)
    known = [value for value in values if value is not None]
    return Shift(
        name=name,
        psi=psi,
        p_value=p_value,
        has_moved=psi >= MODERATE_PSI and p_value < level,
        reference_median=expected.median,
        window_median=float(np.median(known)) if known else None,
        reference_missing=float(before[-1] / before.sum()),
        window_missing=1 - len(known) / len(values),
        num_studies=len(values),
    )


def stability_index(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Returns the population stability index of two counts over the same bins; empty ones do not count.

    >>> round(stability_index(np.array([50, 50]), np.array([50, 50])), 3)
    0.0
    """
    is_used = (before + now) > 0
    a, b = (each[is_used] + _PRIOR_COUNT for each in (before, now))
    a, b = a / a.sum(), b / b.sum()
    return float(np.sum((b - a) * np.log(b / a)))


def homogeneity(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Returns the p-value of Pearson's test that two counts are of one distribution; 1 for one bin."""
    is_used = (before + now) > 0
    if is_used.sum() < 2 or not before.sum() or not now.sum():
        return 1.0
    counts = np.stack([before[is_used], now[is_used]]).astype(np.float64)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = np.sum((counts - expected) ** 2 / expected)
    return float(stats.chi2.sf(statistic, counts.shape[1] - 1))


_DIGITS = 6


def comparison_json(comparison: Comparison, reference: Reference, *, num_bad_lines: int) -> str:
    """Returns a comparison as a JSON document; `moved` names what moved, `quantities` holds all."""
    content = {
        "model": reference.model,
        "reference": reference.made_from,
        "num_studies": comparison.num_studies,
        "num_of_other_versions": comparison.num_of_others,
        "num_bad_lines": num_bad_lines,
        "moved": [each.name for each in comparison.moved],
        "quantities": [_shift_json(each) for each in comparison.shifts],
        "uncompared": list(comparison.uncompared),
        "unlogged": list(comparison.unlogged),
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _shift_json(shift: Shift) -> dict[str, object]:
    return {
        # A p-value of 1e-9 must not become 0.
        name: round(value, _DIGITS) if isinstance(value, float) and name != "p_value" else value
        for name, value in asdict(shift).items()
    }


def comparison_lines(comparison: Comparison, reference: Reference, *, num_bad_lines: int) -> list[str]:
    """Returns what moved, and what could not be compared, a line each."""
    lines = [
        f"{comparison.num_studies} studies of version {reference.model} against {reference.made_from}: "
        f"{len(comparison.moved)} of {len(comparison.shifts)} quantities moved"
    ]
    lines.extend(f"  {_shift_line(shift)}" for shift in comparison.moved)
    for count, what in (
        (comparison.num_of_others, "rows of other versions were left out"),
        (num_bad_lines, "lines of the log could not be read"),
        (len(comparison.uncompared), "logged quantities are not in the reference"),
        (len(comparison.unlogged), "quantities of the reference were not logged"),
    ):
        if count:
            lines.append(f"  ({count} {what})")
    return lines


def summarise_comparison(comparison: Comparison, reference: Reference, status: int) -> Summary:
    """Returns the comparison's counts; the JSON object of `--json` names what moved."""
    return Summary(
        "Compared",
        {
            "studies": comparison.num_studies,
            "version": reference.model,
            "quantities": len(comparison.shifts),
            "moved": len(comparison.moved),
        },
        lists={"moved": [_shift_json(each) for each in comparison.moved]},
        status=status,
    )


def _shift_line(shift: Shift) -> str:
    size = "large" if shift.is_large else "moderate"
    line = (
        f"{shift.name}: {size}, PSI {shift.psi:.2f}, p {shift.p_value:.1e}, "
        f"median {_number(shift.reference_median)} -> {_number(shift.window_median)}"
    )
    if shift.reference_missing or shift.window_missing:
        line += f", missing {shift.reference_missing:.0%} -> {shift.window_missing:.0%}"
    return line


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
