"""The canal's competition head and the score's fourth term, "any level severe".

That term takes a study's largest p(severe) over the canal's levels, so the canal's answers are scored twice,
with different optima: the largest of five noisy numbers is not the probability that one of five is severe.
Three numbers, a scale of the logits and a shift of two classes, are fitted to the sum of both terms on
held-out answers. They go into W, V and b: applying the stacker knows nothing of them. `trust.py` says how far
they, and the fit that they sharpen, are taken.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lumbar_tf.ensemble.candidates import CLASS_WEIGHTS, Fit
from lumbar_tf.ensemble.search import row_losses
from lumbar_tf.labels import Severity

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
