"""How far the competition head trusts a fit against the plain mean of its members.

Both are logits, so a share of each is a stacker too: share * fit + (1 - share) * plain mean. The share is the
one whose gain is surest: it maximises the gain on held-out rows less half a standard error of it. Where the
gain is a * share - b * share^2 / 2, and its standard error s * share, that is (a - s / 2) / b: a soft
threshold (Donoho and Johnstone 1994). A fit that brings no more than noise gets little or nothing, one that
clearly gains gets almost all, and there is no jump between them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.any_severe import Sharpening, canal_losses, fit_sharpening
from lumbar_tf.ensemble.candidates import CLASS_WEIGHTS, Fit, Rows
from lumbar_tf.ensemble.search import row_losses
from lumbar_tf.labels import Family

Floats = NDArray[np.float64]

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
