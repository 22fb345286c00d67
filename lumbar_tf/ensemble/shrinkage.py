"""The canal's competition head and the score's fourth term, "any level severe".

That term takes a study's largest p(severe) over the canal's levels, so the canal's answers are scored twice,
with different optima: the largest of five noisy numbers is not the probability that one of five is severe.
Three numbers, a scale of the logits and a shift of two classes, are fitted to the sum of both terms on
held-out answers. They go into W, V and b: applying the stacker knows nothing of them. `trust.py` says how far
they, and the fit that they sharpen, are taken.
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

#: Ridge on ln(scale) and on both shifts: 0.1 costs 0.0001 of the sum of both terms.
_RIDGE = 0.01

_MIN_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Sharpening:
    """What is done to the canal's logits: scale * logits + (0, moderate, severe)."""

    scale: float = 1.0
    moderate: float = 0.0
    severe: float = 0.0

    @property
    def words(self) -> str:
        """How `Coefficients.choices` tells it, empty where nothing is done."""
        if self == Sharpening():
            return ""
        numbers = f"scale {self.scale:.3f}, moderate {self.moderate:+.3f}, severe {self.severe:+.3f}"
        return f", for any severe: {numbers}"

    def apply(self, fit: Fit) -> Fit:
        """Returns a fit whose logits are sharpened."""
        shift = np.array([0.0, self.moderate, self.severe])
        return Fit(fit.weights * self.scale, fit.bias * self.scale + shift, fit.context * self.scale)


def _sharpen(logits: Floats, parameters: Floats) -> Floats:
    return logits * np.exp(parameters[0]) + np.array([0.0, parameters[1], parameters[2]])


def canal_losses(logits: Floats, labels: Ints, places: Ints) -> Floats:
    """Returns what each study adds to the sum of the canal's and the any-severe term, [num_studies].

    Args:
        logits: of the canal's labelled rows, [num_rows, 3].
        labels: [num_rows].
        places: study of each row, 0 to num_studies - 1, each at least once.
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


def _fit(logits: Floats, labels: Ints, places: Ints) -> Floats:
    _, places = np.unique(places, return_inverse=True)

    def objective(parameters: Floats) -> float:
        loss = canal_losses(_sharpen(logits, parameters), labels, places).sum()
        return float(loss + _RIDGE * parameters @ parameters)

    found: Floats = minimize(objective, np.zeros(3), method="L-BFGS-B").x
    return found


def fit_sharpening(logits: Floats, labels: Ints, studies: Ints, folds: Ints) -> tuple[Sharpening, Floats]:
    """Fits the sharpening, and sharpens each fold by one that was fitted to the others.

    Args:
        logits: held-out logits of the canal's labelled rows, [num_rows, 3].
        labels: [num_rows].
        studies: study of each row.
        folds: fold of each row, two at least; all rows of a study are in one.

    Returns:
        The sharpening of all rows, and the logits sharpened fold by fold, [num_rows, 3].
    """
    _, places = np.unique(studies, return_inverse=True)
    sharpened = logits.copy()
    for fold in np.unique(folds):
        inside = folds == fold
        sharpened[inside] = _sharpen(logits[inside], _fit(logits[~inside], labels[~inside], places[~inside]))
    parameters = _fit(logits, labels, places)
    return Sharpening(float(np.exp(parameters[0])), float(parameters[1]), float(parameters[2])), sharpened


#: Standard errors that a gain is lowered by before shares are compared: 1 loses less to the plain mean where
#: there is nothing to gain, and gains less everywhere else (tests/benchmarks/stacking.py).
_CAUTION = 0.5

_SHARES: Floats = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Shrinkage:
    """What the competition head makes of a fit.

    Attributes:
        share: of the sharpened fit, 0 to 1; the rest is the plain mean.
        sharpening: the canal's, for the any-severe term.
    """

    share: float = 1.0
    sharpening: Sharpening = field(default_factory=Sharpening)

    @property
    def words(self) -> str:
        """How `Coefficients.choices` tells it, empty where the fit is taken as it is."""
        if self.share == 0.0:
            return "; no gain is sure: plain mean"
        rest = "" if self.share == 1.0 else f"; {1 - self.share:.0%} plain mean"
        return self.sharpening.words + rest

    def apply(self, fit: Fit) -> Fit:
        """Returns the sharpened fit's share and the plain mean's."""
        return self.sharpening.apply(fit).blended(self.share)


def find_shrinkage(family: Family, rows: Rows, logits: Floats) -> Shrinkage:
    """Returns the trust that a fit earns on rows it has not seen.

    Args:
        family: of the rows.
        rows: labelled rows of two folds at least.
        logits: of the fit for the competition head, by fits without each row's fold, [num_rows, 3].
    """
    _, places = np.unique(rows.studies, return_inverse=True)
    plain = rows.features.mean(axis=1)
    if family is Family.CANAL:
        sharpening, logits = fit_sharpening(logits, rows.labels, places, rows.folds)
        share = choose_share(plain, logits, lambda each: canal_losses(each, rows.labels, places))
        return Shrinkage(share, sharpening)
    weights = CLASS_WEIGHTS[rows.labels]

    def losses(each: Floats) -> Floats:
        return np.bincount(places, weights=weights * row_losses(each, rows.labels)).astype(np.float64)

    return Shrinkage(choose_share(plain, logits, losses))


def choose_share(plain: Floats, fitted: Floats, study_losses: Callable[[Floats], Floats]) -> float:
    """Returns how much of the fitted logits to take, 0 to 1 in steps of 0.05.

    Args:
        plain: logits of the plain mean, [num_rows, 3].
        fitted: logits of the same rows by fits that have not seen them.
        study_losses: from logits to the losses of the studies, [num_studies]; their sum is what counts.

    >>> losses = lambda logits: np.abs(logits - 1.0).sum(axis=1)
    >>> choose_share(np.zeros((9, 3)), np.ones((9, 3)), losses)
    1.0
    >>> choose_share(np.zeros((9, 3)), -np.ones((9, 3)), losses)
    0.0
    """
    before = study_losses(plain)
    surest, most = 0.0, 0.0
    for share in _SHARES[1:]:
        gains = before - study_losses(share * fitted + (1 - share) * plain)
        sure_gain = gains.sum() - _CAUTION * gains.std() * np.sqrt(len(gains))
        if sure_gain > most:
            surest, most = float(share), float(sure_gain)
    return surest
