"""Measures how far a stacker's members lie apart, on the tables that it was fitted to: `spread.py`'s numbers.

It looks at no label, and at every pattern of sources: those that are not in it are hidden. NumPy only.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import answered, member_features
from lumbar_tf.ensemble.intervals import VarianceTables, deviations, trend_of, variance_tables
from lumbar_tf.ensemble.stacker import (
    HABIT_TERMS,
    FamilyStacker,
    MemberVariance,
    Stacked,
    StackerCoefficients,
    apply_stacker,
    family_findings,
)
from lumbar_tf.labels import NUM_SEVERITIES

Floats = NDArray[np.float64]

#: A pattern with fewer rows has neither habits nor a trend: a finding's own spread is all there is.
_MIN_ROWS = 100

#: Enough for three coefficients; every pattern is answered anew, and there may be 256 of them.
_MAX_STUDIES = 400

#: Where one trend fits all findings the degrees of freedom have no end.
_MAX_FREEDOM = 1000.0

#: The trend is a straight line beyond these shares of the rows.
_INNER = (0.01, 0.99)

_MAX_ROUNDS = 50


def measure_member_variance(stacker: StackerCoefficients, probabilities: Floats) -> StackerCoefficients:
    """Returns the stacker with the spread of its members.

    Args:
        stacker: all of whose patterns are fitted.
        probabilities: what it was fitted to, float64 [num_members, num_studies, 25, 3], NaN where missing.
    """
    shown = probabilities[:, :: -(-probabilities.shape[1] // _MAX_STUDIES)]
    tables = variance_tables(stacker)
    measured: set[tuple[int, int]] = set()
    for hidden in _hidden_sources(stacker):
        is_hidden = [source in hidden for source in stacker.sources]
        visible = np.where(np.array(is_hidden)[:, None, None, None], np.nan, shown)
        todo = {
            place: pattern
            for place, each in enumerate(stacker.families)
            if (pattern := _pattern(each, hidden)) and (place, pattern) not in measured
        }
        _measure_pattern(stacker, tables, visible, todo)
        measured.update(todo.items())
    families = []
    for place, each in enumerate(stacker.families):
        mine, patterns = stacker.member_indices(each.family), slice(each.num_patterns)
        spread = MemberVariance(
            habits=tables.habits[place, patterns][:, mine],
            trend=tables.trend[place, patterns],
            bounds=tables.bounds[place, patterns],
            freedom=tables.freedom[place, patterns],
        )
        families.append(replace(each, spread=spread))
    return replace(stacker, families=tuple(families))


def _pattern(each: FamilyStacker, hidden: frozenset[str]) -> int:
    return sum(1 << bit for bit, source in enumerate(each.sources) if source not in hidden)


def _hidden_sources(stacker: StackerCoefficients) -> list[frozenset[str]]:
    """Returns what to hide so that every pattern of two members is seen, the least hidden first."""
    wanted = {
        frozenset(source for bit, source in enumerate(each.sources) if not pattern >> bit & 1)
        for each in stacker.families
        for pattern in range(1, each.num_patterns)
        if sum(pattern >> source & 1 for source in each.member_sources) > 1
    }
    return sorted(wanted, key=lambda hidden: (len(hidden), sorted(hidden)))


def _measure_pattern(
    stacker: StackerCoefficients, tables: VarianceTables, visible: Floats, todo: dict[int, int]
) -> None:
    """Writes the families' patterns of one set of visible sources into the tables."""
    stacked = apply_stacker(stacker, visible)
    is_there, features = answered(visible), member_features(visible)
    rows = {
        place: _full_rows(stacker, stacker.families[place], stacked, is_there, pattern)
        for place, pattern in todo.items()
    }
    # The habits of all families first: a finding's context is of other families.
    for place, pattern in todo.items():
        mine = stacker.member_indices(stacker.families[place].family)
        if rows[place].sum() >= _MIN_ROWS:
            habits = _habits(features[mine][:, rows[place]], is_there[mine][:, rows[place]])
            tables.habits[place, pattern, mine] = habits
    odds, squares, counts = deviations(tables, stacked, visible)
    for place, pattern in todo.items():
        inside = rows[place]
        if inside.sum() < _MIN_ROWS:
            continue
        size = int(counts[inside].max())
        for grade in range(NUM_SEVERITIES):
            variances = size**2 / (size - 1) * squares[inside][:, grade]
            fitted = fit_trend(odds[inside][:, grade], variances, size - 1)
            where = (place, pattern, grade)
            tables.trend[where], tables.bounds[where], tables.freedom[where] = fitted


def _full_rows(
    stacker: StackerCoefficients,
    each: FamilyStacker,
    stacked: Stacked,
    is_there: NDArray[np.bool_],
    pattern: int,
) -> NDArray[np.bool_]:
    """Returns the family's findings that show the pattern and none of its members missing, [study, 25]."""
    inside = np.zeros(stacked.pattern.shape, np.bool_)
    findings, _ = family_findings(each.family)
    inside[:, findings] = stacked.pattern[:, findings] == pattern
    counts = is_there[stacker.member_indices(each.family)].sum(axis=0)
    # One that is left out of every row of the pattern is missing in none.
    full = counts[inside].max(initial=0)
    return inside & (counts == full) & (full > 1)


def _habits(features: Floats, is_there: NDArray[np.bool_]) -> Floats:
    """Returns each member's least-squares line beside the mean, [member, 3, 4]; 0 where it is missing.

    Args:
        features: x, float64 [member, num_rows, 3].
        is_there: bool [member, num_rows]; the same in every row.
    """
    habits = np.zeros((len(features), NUM_SEVERITIES, HABIT_TERMS))
    known = is_there.all(axis=1)
    if known.sum() < is_there[:, 0].sum():  # now one is missing, now another: they have no common mean
        return habits
    mean = features[known].mean(axis=0)
    terms = np.concatenate([np.ones_like(mean[:, :1]), mean], axis=1)
    for place in np.flatnonzero(known):
        habits[place] = np.linalg.lstsq(terms, features[place] - mean, rcond=None)[0].T
    return habits


def fit_trend(odds: Floats, variances: Floats, freedom: int) -> tuple[Floats, Floats, float]:
    """Fits how a member's variance goes with the log-odds, and how much it varies beside that.

    The trend is exp of a polynomial, by the quasi-likelihood of the gamma family (McCullagh and Nelder
    1989, "Generalized Linear Models", chapter 8), which zeros do not upset as they would a regression of
    logarithms. The ratios r of variances to trend are taken for a scaled F: with a variance of the true
    ratios of
    T = (1 + var r) / (1 + 2 / freedom) - 1, an inverse chi-square has f = 4 + 2 / T degrees of freedom.

    Args:
        odds: of the answers, float64 [num_rows].
        variances: of a member, likewise.
        freedom: degrees of freedom of each.

    Returns:
        Coefficients [3] (f and exp(trend) pool as in `intervals.py`), bounds of the log-odds [2], and f.
    """
    bounds = np.quantile(odds, _INNER)
    if variances.mean() < np.finfo(np.float64).tiny:
        return np.zeros(3), bounds, 0.0
    clipped = np.clip(odds, *bounds)
    # About its middle and in units of its spread, or the normal equations are ill-conditioned.
    middle, unit = float(clipped.mean()), float(clipped.std()) or 1.0
    terms = ((clipped - middle) / unit)[:, None] ** np.arange(3)
    coefficients = np.array([np.log(variances.mean()), 0.0, 0.0])
    for _ in range(_MAX_ROUNDS):
        # No single row may pull further than fifty times what is expected of it.
        pull = np.clip(variances / np.exp(terms @ coefficients), 0.0, 50.0) - 1
        step = np.clip(np.linalg.lstsq(terms, pull, rcond=None)[0], -1.0, 1.0)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-8:
            break
    plain = _about_zero(coefficients, middle, unit)
    ratios = variances / np.exp(trend_of(plain, clipped))
    true_variance = (1 + ratios.var()) / (1 + 2 / freedom) - 1
    worth = min(4 + 2 / true_variance, _MAX_FREEDOM) if true_variance > 0 else _MAX_FREEDOM
    # The mean of a scaled inverse chi-square is f / (f - 2) times its scale.
    plain[0] += np.log((worth - 2) / worth)
    return plain, bounds, worth


def _about_zero(coefficients: Floats, middle: float, unit: float) -> Floats:
    """Returns the coefficients over (1, t, t^2) of a polynomial in (t - middle) / unit."""
    a, b, c = coefficients[0], coefficients[1] / unit, coefficients[2] / unit**2
    return np.array([a - b * middle + c * middle**2, b - 2 * c * middle, c])
