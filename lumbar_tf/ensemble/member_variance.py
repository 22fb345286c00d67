"""Measurement of the variation between a stacker's members, from the tables that it was fitted to.

Labels are not used. Every pattern of sources is measured, by hiding the sources outside it. NumPy only.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import is_available, member_features
from lumbar_tf.ensemble.intervals import VarianceTables, log_variance, member_deviations, variance_tables
from lumbar_tf.ensemble.stacker import (
    BIAS_TERMS,
    FamilyStacker,
    MemberVariance,
    Stacked,
    StackerCoefficients,
    apply_stacker,
    family_findings,
)
from lumbar_tf.labels import NUM_SEVERITIES

Floats = NDArray[np.float64]

#: With fewer rows a pattern gets neither bias nor log-variance: intervals use each finding's own variance
#: alone.
_MIN_ROWS = 100
#: Enough for three coefficients; predictions are recomputed for every pattern, of which there may be 256.
_MAX_STUDIES = 400
#: Upper bound of the degrees of freedom, which are infinite where one curve fits all findings.
_MAX_FREEDOM = 1000.0
#: Quantiles of the log-odds between which the log-variance is fitted; beyond them it is constant.
_INNER = (0.01, 0.99)
_MAX_ROUNDS = 50


def measure_member_variance(stacker: StackerCoefficients, probabilities: Floats) -> StackerCoefficients:
    """Returns the stacker with the variation between its members.

    Args:
        stacker: a stacker with all patterns fitted.
        probabilities: the predictions that it was fitted to, float64 [num_members, num_studies, 25, 3], NaN
            where missing.
    """
    used = probabilities[:, :: -(-probabilities.shape[1] // _MAX_STUDIES)]
    tables = variance_tables(stacker)
    measured: set[tuple[int, int]] = set()
    for hidden in _hidden_sources(stacker):
        is_hidden = [source in hidden for source in stacker.sources]
        visible = np.where(np.array(is_hidden)[:, None, None, None], np.nan, used)
        missing = {
            place: pattern
            for place, part in enumerate(stacker.families)
            if (pattern := _visible_pattern(part, hidden)) and (place, pattern) not in measured
        }
        _measure_pattern(stacker, tables, visible, missing)
        measured.update(missing.items())
    families = []
    for place, part in enumerate(stacker.families):
        own, patterns = stacker.member_indices(part.family), slice(part.num_patterns)
        variance = MemberVariance(
            bias=tables.bias[place, patterns][:, own],
            log_variance=tables.log_variance[place, patterns],
            bounds=tables.bounds[place, patterns],
            freedom=tables.freedom[place, patterns],
        )
        families.append(replace(part, member_variance=variance))
    return replace(stacker, families=tuple(families))


def _visible_pattern(part: FamilyStacker, hidden: frozenset[str]) -> int:
    return sum(1 << bit for bit, source in enumerate(part.sources) if source not in hidden)


def _hidden_sources(stacker: StackerCoefficients) -> list[frozenset[str]]:
    """Returns the sets of sources to hide so that every pattern of two members occurs, the smallest first."""
    wanted = {
        frozenset(source for bit, source in enumerate(part.sources) if not pattern >> bit & 1)
        for part in stacker.families
        for pattern in range(1, part.num_patterns)
        if sum(pattern >> source & 1 for source in part.member_sources) > 1
    }
    return sorted(wanted, key=lambda hidden: (len(hidden), sorted(hidden)))


def _measure_pattern(
    stacker: StackerCoefficients, tables: VarianceTables, visible: Floats, patterns: dict[int, int]
) -> None:
    """Measures one pattern of each family, with one set of visible sources, and writes it into the tables.

    Args:
        stacker: the stacker.
        tables: changed in place.
        visible: the members' predictions, NaN where hidden.
        patterns: the pattern to measure by index of the family.
    """
    stacked = apply_stacker(stacker, visible)
    available, features = is_available(visible), member_features(visible)
    rows = {
        place: _complete_rows(stacker, stacker.families[place], stacked, available, pattern)
        for place, pattern in patterns.items()
    }
    # The bias of all families first: the context of a finding belongs to other families.
    for place, pattern in patterns.items():
        own = stacker.member_indices(stacker.families[place].family)
        if rows[place].sum() >= _MIN_ROWS:
            bias = _member_bias(features[own][:, rows[place]], available[own][:, rows[place]])
            tables.bias[place, pattern, own] = bias
    log_odds, squares, counts = member_deviations(tables, stacked, visible)
    for place, pattern in patterns.items():
        inside = rows[place]
        if inside.sum() < _MIN_ROWS:
            continue
        size = int(counts[inside].max())
        for grade in range(NUM_SEVERITIES):
            variances = size**2 / (size - 1) * squares[inside][:, grade]
            index = (place, pattern, grade)
            tables.log_variance[index], tables.bounds[index], tables.freedom[index] = fit_log_variance(
                log_odds[inside][:, grade], variances, size - 1
            )


def _complete_rows(
    stacker: StackerCoefficients,
    part: FamilyStacker,
    stacked: Stacked,
    available: NDArray[np.bool_],
    pattern: int,
) -> NDArray[np.bool_]:
    """Returns the family's findings that have the pattern and no missing member, bool [study, 25]."""
    inside = np.zeros(stacked.pattern.shape, np.bool_)
    findings, _ = family_findings(part.family)
    inside[:, findings] = stacked.pattern[:, findings] == pattern
    counts = available[stacker.member_indices(part.family)].sum(axis=0)
    # A member that is absent from every row of the pattern does not make a row incomplete.
    full = counts[inside].max(initial=0)
    return inside & (counts == full) & (full > 1)


def _member_bias(features: Floats, available: NDArray[np.bool_]) -> Floats:
    """Returns the least-squares line of each member's difference from the mean, [member, 3, 4]; 0 if missing.

    Args:
        features: x, float64 [member, num_rows, 3].
        available: bool [member, num_rows].
    """
    bias = np.zeros((len(features), NUM_SEVERITIES, BIAS_TERMS))
    known = available.all(axis=1)
    if known.sum() < available[:, 0].sum():  # different members are missing in different rows: no common mean
        return bias
    mean = features[known].mean(axis=0)
    terms = np.concatenate([np.ones_like(mean[:, :1]), mean], axis=1)
    for place in np.flatnonzero(known):
        bias[place] = np.linalg.lstsq(terms, features[place] - mean, rcond=None)[0].T
    return bias


def fit_log_variance(log_odds: Floats, variances: Floats, freedom: int) -> tuple[Floats, Floats, float]:
    """Fits a member's variance as a function of the log-odds, and the dispersion around that function.

    The variance is the exponential of a polynomial, fitted with the quasi-likelihood of the gamma family
    (McCullagh and Nelder 1989, "Generalized Linear Models", chapter 8), which tolerates zeros, unlike a
    regression of logarithms. The ratios r of measured to fitted variance are modelled as scaled F: with the
    variance of the true ratios

        T = (1 + var r) / (1 + 2 / freedom) - 1

    an inverse chi-square distribution has f = 4 + 2 / T degrees of freedom.

    Args:
        log_odds: log-odds of the ensemble, float64 [num_rows].
        variances: variance of one member, float64 [num_rows].
        freedom: degrees of freedom of each variance.

    Returns:
        Coefficients [3] (f and exp(log_variance) are pooled as in `intervals.py`), bounds of the log-odds
        [2], and f.
    """
    bounds = np.quantile(log_odds, _INNER)
    if variances.mean() < np.finfo(np.float64).tiny:
        return np.zeros(3), bounds, 0.0
    clipped = np.clip(log_odds, *bounds)
    # Standardised, because the normal equations are ill-conditioned otherwise.
    middle, unit = float(clipped.mean()), float(clipped.std()) or 1.0
    terms = ((clipped - middle) / unit)[:, None] ** np.arange(3)
    coefficients = np.array([np.log(variances.mean()), 0.0, 0.0])
    for _ in range(_MAX_ROUNDS):
        # Bounded, so that no single row can pull harder than fifty times its expected variance.
        pull = np.clip(variances / np.exp(terms @ coefficients), 0.0, 50.0) - 1
        step = np.clip(np.linalg.lstsq(terms, pull, rcond=None)[0], -1.0, 1.0)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-8:
            break
    plain = _about_zero(coefficients, middle, unit)
    ratios = variances / np.exp(log_variance(plain, clipped))
    true_variance = (1 + ratios.var()) / (1 + 2 / freedom) - 1
    prior_freedom = min(4 + 2 / true_variance, _MAX_FREEDOM) if true_variance > 0 else _MAX_FREEDOM
    # The mean of a scaled inverse chi-square is f / (f - 2) times its scale.
    plain[0] += np.log((prior_freedom - 2) / prior_freedom)
    return plain, bounds, prior_freedom


def _about_zero(coefficients: Floats, middle: float, unit: float) -> Floats:
    """Returns the coefficients over (1, t, t^2) of a polynomial in (t - middle) / unit."""
    a, b, c = coefficients[0], coefficients[1] / unit, coefficients[2] / unit**2
    return np.array([a - b * middle + c * middle**2, b - 2 * c * middle, c])
