"""Shrinkage of the competition head's fit towards the plain mean of its members.

A convex combination of two stackers' logits is a stacker too: share * fit + (1 - share) * plain mean. The
share maximises the decrease of the held-out loss minus half its standard error. Where the decrease is
a * share - b * share^2 / 2 and its standard error s * share, the maximum is at (a - s / 2) / b: a soft
threshold (Donoho and Johnstone 1994). A fit that only adds noise gets a share near 0, a clearly better fit a
share near 1.

The canal's logits are sharpened before that. The score's fourth term, "any level severe", takes the largest
p(severe) of a study's canal levels, so the canal's predictions are scored twice, with different optima: the
largest of five noisy numbers is not the probability that one of five is severe. Three numbers, a scale of the
logits and an offset of two classes, are fitted to the sum of both terms on held-out predictions, and are
absorbed into W, V and b.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lumbar_tf.ensemble.candidates import CLASS_WEIGHTS, Fit, Rows
from lumbar_tf.ensemble.search import row_losses
from lumbar_tf.labels import Family, Severity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Ridge on ln(scale) and on both offsets: a deviation of 0.1 costs 0.0001 of the sum of both terms.
_RIDGE = 0.01
_MIN_PROBABILITY = 1e-12
#: Standard errors that are subtracted from a decrease of the loss before shares are compared. With 1, less is
#: lost where there is no improvement to be had, and less is gained everywhere else
#: (tests/benchmarks/stacking.py).
_STANDARD_ERRORS = 0.5
_SHARES: Floats = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Sharpening:
    """Transformation of the canal's logits: scale * logits + (0, moderate, severe)."""

    scale: float = 1.0
    moderate: float = 0.0
    severe: float = 0.0

    @property
    def description(self) -> str:
        """Description in `Coefficients.choices`; empty for the identity."""
        if self == Sharpening():
            return ""
        numbers = f"scale {self.scale:.3f}, moderate {self.moderate:+.3f}, severe {self.severe:+.3f}"
        return f", for any severe: {numbers}"

    def apply(self, fit: Fit) -> Fit:
        """Returns the fit with transformed logits."""
        offset = np.array([0.0, self.moderate, self.severe])
        return Fit(fit.weights * self.scale, fit.bias * self.scale + offset, fit.context * self.scale)


@dataclass(frozen=True)
class Shrinkage:
    """Transformation of a fit for the competition head.

    Attributes:
        share: share of the sharpened fit, 0 to 1; the rest is the plain mean.
        sharpening: the canal's sharpening, for the any-severe term.
    """

    share: float = 1.0
    sharpening: Sharpening = field(default_factory=Sharpening)

    @property
    def description(self) -> str:
        """Description in `Coefficients.choices`; empty where the fit is unchanged."""
        if self.share == 0.0:
            return "; no gain is sure: plain mean"
        rest = "" if self.share == 1.0 else f"; {1 - self.share:.0%} plain mean"
        return self.sharpening.description + rest

    def apply(self, fit: Fit) -> Fit:
        """Returns the sharpened fit, shrunk towards the plain mean."""
        return self.sharpening.apply(fit).shrunk(self.share)


def find_shrinkage(family: Family, rows: Rows, logits: Floats) -> Shrinkage:
    """Returns the shrinkage that minimises the held-out loss of a fit.

    Args:
        family: family of the rows.
        rows: labelled rows of at least two folds.
        logits: held-out logits of the competition head, by fits without each row's fold, [num_rows, 3].
    """
    _, places = np.unique(rows.studies, return_inverse=True)
    plain = rows.features.mean(axis=1)
    if family is Family.CANAL:
        sharpening, logits = fit_sharpening(logits, rows.labels, places, rows.folds)
        share = choose_share(plain, logits, lambda logits: canal_losses(logits, rows.labels, places))
        return Shrinkage(share, sharpening)
    weights = CLASS_WEIGHTS[rows.labels]

    def losses(logits: Floats) -> Floats:
        return np.bincount(places, weights=weights * row_losses(logits, rows.labels)).astype(np.float64)

    return Shrinkage(choose_share(plain, logits, losses))


def choose_share(plain: Floats, fitted: Floats, study_losses: Callable[[Floats], Floats]) -> float:
    """Returns the share of the fitted logits, 0 to 1 in steps of 0.05.

    Args:
        plain: logits of the plain mean, [num_rows, 3].
        fitted: held-out logits of the same rows.
        study_losses: function of logits that returns the losses of the studies, [num_studies]; their sum
            counts.

    >>> losses = lambda logits: np.abs(logits - 1.0).sum(axis=1)
    >>> choose_share(np.zeros((9, 3)), np.ones((9, 3)), losses)
    1.0
    >>> choose_share(np.zeros((9, 3)), -np.ones((9, 3)), losses)
    0.0
    """
    plain_losses = study_losses(plain)
    best_share, largest = 0.0, 0.0
    for share in _SHARES[1:]:
        decreases = plain_losses - study_losses(share * fitted + (1 - share) * plain)
        lower_bound = decreases.sum() - _STANDARD_ERRORS * decreases.std() * np.sqrt(len(decreases))
        if lower_bound > largest:
            best_share, largest = float(share), float(lower_bound)
    return best_share


def canal_losses(logits: Floats, labels: Ints, places: Ints) -> Floats:
    """Returns each study's contribution to the sum of the canal and the any-severe term, [num_studies].

    Args:
        logits: logits of the canal's labelled rows, [num_rows, 3].
        labels: [num_rows].
        places: index of each row's study, 0 to num_studies - 1; every study occurs.
    """
    weights = CLASS_WEIGHTS[labels]
    canal = np.bincount(places, weights=weights * row_losses(logits, labels)) / weights.sum()
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    severe = np.zeros(len(canal))
    np.maximum.at(severe, places, exponentials[:, Severity.SEVERE] / exponentials.sum(axis=1))
    largest = np.zeros(len(canal))
    np.maximum.at(largest, places, weights)
    severe = np.clip(severe, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    is_severe = largest == Severity.SEVERE.weight
    any_severe = largest * -np.log(np.where(is_severe, severe, 1 - severe)) / largest.sum()
    total: Floats = canal + any_severe
    return total


def fit_sharpening(logits: Floats, labels: Ints, studies: Ints, folds: Ints) -> tuple[Sharpening, Floats]:
    """Fits the sharpening, and sharpens each fold with parameters fitted to the other folds.

    Args:
        logits: held-out logits of the canal's labelled rows, [num_rows, 3].
        labels: [num_rows].
        studies: study of each row.
        folds: fold of each row, at least two; all rows of a study are in one.

    Returns:
        The sharpening fitted to all rows, and the logits sharpened fold by fold, [num_rows, 3].
    """
    _, places = np.unique(studies, return_inverse=True)
    sharpened = logits.copy()
    for fold in np.unique(folds):
        inside = folds == fold
        parameters = _fit_parameters(logits[~inside], labels[~inside], places[~inside])
        sharpened[inside] = _sharpen(logits[inside], parameters)
    parameters = _fit_parameters(logits, labels, places)
    return Sharpening(float(np.exp(parameters[0])), float(parameters[1]), float(parameters[2])), sharpened


def _sharpen(logits: Floats, parameters: Floats) -> Floats:
    return logits * np.exp(parameters[0]) + np.array([0.0, parameters[1], parameters[2]])


def _fit_parameters(logits: Floats, labels: Ints, places: Ints) -> Floats:
    """Returns (ln(scale), moderate, severe)."""
    _, places = np.unique(places, return_inverse=True)

    def objective(parameters: Floats) -> float:
        loss = canal_losses(_sharpen(logits, parameters), labels, places).sum()
        return float(loss + _RIDGE * parameters @ parameters)

    found: Floats = minimize(objective, np.zeros(3), method="L-BFGS-B").x
    return found
