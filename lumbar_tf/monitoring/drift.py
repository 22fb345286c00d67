"""Comparison of a window of the prediction log with a reference, by quantity.

A quantity has moved if both of these hold:
- The difference is large. The population stability index is the sum over bins of (a - b) ln(a / b) of the
  shares a and
  b; below 0.1 it is called stable, from 0.1 to 0.25 moderate, and above large (Siddiqi, Credit Risk
  Scorecards, 2006).
- The difference is significant. With few studies the index of two samples of one cohort is large by chance:
  about
  (bins - 1) (1/n + 1/m). Pearson's chi-square test of homogeneity, with a significance level that is divided
  among all compared quantities (Bonferroni), tests whether both counts come from one cohort.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lumbar_tf.monitoring.log import LogRow
from lumbar_tf.monitoring.reference import MIN_STUDIES, Distribution, Reference

MODERATE_PSI = 0.1

LARGE_PSI = 0.25

#: Probability that any quantity is reported as moved where none has.
FALSE_ALARM_RATE = 0.01

#: Quantities of the predictions, and those whose change explains a change of the predictions.
_PROBABILITIES = "probability/"
_CAUSES = ("images/", "landmarks/", "flags/")
#: Step that a comparison names where the predictions have moved alone.
RECALIBRATION_ADVICE = (
    "Probabilities moved, and images, points and flags did not: the grades may have other frequencies here. "
    "With the labels of 25 or more patients, lumbar_tf.recalibrate checks this and fits the probabilities."
)

#: Added to the count of each bin, so that an empty bin does not make the index infinite.
_PRIOR_COUNT = 0.5
_DIGITS = 6


@dataclass(frozen=True)
class Shift:
    """Difference of one quantity from its reference.

    Attributes:
        name: name of the quantity.
        psi: population stability index.
        p_value: p-value of the test of homogeneity.
        has_moved: whether the difference is large and significant.
        reference_median: median of the reference; None without values.
        window_median: median of the window; None without values.
        reference_missing: share of the reference's studies without a value.
        window_missing: share of the window's studies without a value.
        num_studies: number of studies of the window.
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
        """Whether the quantity has moved by a large, not a moderate, amount."""
        return self.has_moved and self.psi >= LARGE_PSI


@dataclass(frozen=True)
class Comparison:
    """Comparison of a window with a reference.

    Attributes:
        shifts: differences of the quantities that both have, the largest index first.
        num_studies: number of studies of the window.
        num_of_others: number of rows of other versions, which were left out.
        uncompared: quantities of the window that are not in the reference.
        unlogged: quantities of the reference that are not in the window.
    """

    shifts: tuple[Shift, ...]
    num_studies: int
    num_of_others: int
    uncompared: tuple[str, ...]
    unlogged: tuple[str, ...]

    @property
    def moved(self) -> tuple[Shift, ...]:
        """The quantities that have moved, the largest index first."""
        return tuple(shift for shift in self.shifts if shift.has_moved)

    @property
    def advice(self) -> str:
        """Next step in words: recalibration, where probabilities moved without a cause in the images."""
        names = [shift.name for shift in self.moved]
        has_cause = any(name.startswith(_CAUSES) for name in names)
        has_moved = any(name.startswith(_PROBABILITIES) for name in names)
        return RECALIBRATION_ADVICE if has_moved and not has_cause else ""


def compare_window(reference: Reference, rows: Sequence[LogRow]) -> Comparison:
    """Compares the rows of the reference's version with the reference.

    Args:
        reference: the expected distributions.
        rows: rows of the window, of any version.

    Raises:
        ValueError: the version has fewer rows than `MIN_STUDIES`, too few for a comparison.
    """
    own = [row.values for row in rows if row.model == reference.model]
    if len(own) < MIN_STUDIES:
        raise ValueError(
            f"A window must have at least {MIN_STUDIES} studies of version {reference.model}. "
            f"Received: {len(own)}, and {len(rows) - len(own)} of other versions."
        )
    keys = {name for row in own for name in row}
    logged = {name: [row[name] for row in own if name in row] for name in keys}
    names = [name for name in reference.distributions if logged.get(name)]
    level = FALSE_ALARM_RATE / max(len(names), 1)
    shifts = [_compare(name, reference.distributions[name], logged[name], level) for name in names]
    return Comparison(
        shifts=tuple(sorted(shifts, key=lambda shift: -shift.psi)),
        num_studies=len(own),
        num_of_others=len(rows) - len(own),
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
    """Returns the population stability index of two counts over the same bins.

    Bins that are empty in both are ignored.

    >>> round(stability_index(np.array([50, 50]), np.array([50, 50])), 3)
    0.0
    """
    is_used = (before + now) > 0
    a, b = (counts[is_used] + _PRIOR_COUNT for counts in (before, now))
    a, b = a / a.sum(), b / b.sum()
    return float(np.sum((b - a) * np.log(b / a)))


def homogeneity(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Returns the p-value of Pearson's test that two counts have one distribution; 1 for a single bin."""
    is_used = (before + now) > 0
    if is_used.sum() < 2 or not before.sum() or not now.sum():
        return 1.0
    counts = np.stack([before[is_used], now[is_used]]).astype(np.float64)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = np.sum((counts - expected) ** 2 / expected)
    return float(stats.chi2.sf(statistic, counts.shape[1] - 1))


def comparison_json(comparison: Comparison, reference: Reference, *, num_bad_lines: int) -> str:
    """Returns a comparison as JSON text; `moved` has names, `quantities` all values."""
    content = {
        "model": reference.model,
        "reference": reference.made_from,
        "num_studies": comparison.num_studies,
        "num_of_other_versions": comparison.num_of_others,
        "num_bad_lines": num_bad_lines,
        "moved": [shift.name for shift in comparison.moved],
        "advice": comparison.advice,
        "quantities": [_shift_json(shift) for shift in comparison.shifts],
        "uncompared": list(comparison.uncompared),
        "unlogged": list(comparison.unlogged),
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _shift_json(shift: Shift) -> dict[str, object]:
    return {
        # Not p-values: 1e-9 would become 0.
        name: round(value, _DIGITS) if isinstance(value, float) and name != "p_value" else value
        for name, value in asdict(shift).items()
    }


def comparison_lines(comparison: Comparison, reference: Reference, *, num_bad_lines: int) -> list[str]:
    """Returns one line for each moved quantity and for each reason why data was not compared."""
    lines = [
        f"{comparison.num_studies} studies of version {reference.model} against {reference.made_from}: "
        f"{len(comparison.moved)} of {len(comparison.shifts)} quantities moved"
    ]
    lines.extend(f"  {_shift_line(shift)}" for shift in comparison.moved)
    lines.extend(filter(None, [comparison.advice]))
    for count, reason in (
        (comparison.num_of_others, "rows of other versions were left out"),
        (num_bad_lines, "lines of the log could not be read"),
        (len(comparison.uncompared), "logged quantities are not in the reference"),
        (len(comparison.unlogged), "quantities of the reference were not logged"),
    ):
        if count:
            lines.append(f"  ({count} {reason})")
    return lines


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
