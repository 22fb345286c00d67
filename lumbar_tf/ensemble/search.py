"""Choice of the candidate for a pattern of members, by cross-validation over the folds of the studies.

The nested prediction for fold a is chosen with fits that exclude {a, b}, for every other fold b, and the
final stacker with fits that exclude {a}. A fit that excludes {a, b} serves both folds, and a fit that
excludes {a} gives the nested prediction itself, so fits are cached by the folds that they exclude.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.candidates import (
    CANDIDATES,
    CLASS_WEIGHTS,
    Candidate,
    Fit,
    Rows,
    default_candidates,
    fit_candidate,
    log_weights,
)
from lumbar_tf.ensemble.stacker import Head

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Folds = frozenset[int]

#: Number of standard errors of the difference by which a later candidate must improve on an earlier one.
REQUIRED_STANDARD_ERRORS = 0.5
#: Folds are merged into at most this many groups.
_MAX_GROUPS = 5
#: Folds are split where fewer than this many groups would remain after one fold is held out.
_MIN_GROUPS = 3


def row_losses(logits: Floats, labels: Ints) -> Floats:
    """Returns -ln softmax(logits)[label] of each row, [num_rows], from logits [num_rows, 3]."""
    top = logits.max(axis=1)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    losses: Floats = log_sums - logits[np.arange(len(labels)), labels]
    return losses


def is_improvement(decreases: Floats) -> bool:
    """Returns whether the studies' decreases of the loss sum to more than half their standard error."""
    standard_error = decreases.std() * np.sqrt(len(decreases))
    return bool(decreases.sum() > REQUIRED_STANDARD_ERRORS * standard_error)


def choose(losses: dict[Candidate, Floats], weights: Floats, studies: Ints) -> Candidate:
    """Returns the first candidate that no later one improves on by half a standard error.

    Args:
        losses: held-out loss of each row, by candidate in the order of preference.
        weights: weight of each row, [num_rows].
        studies: study of each row; standard errors are over studies, because rows of one study are dependent.
    """
    candidates = list(losses)
    chosen = candidates[0]
    _, places = np.unique(studies, return_inverse=True)
    for candidate in candidates[1:]:
        decreases = np.bincount(places, weights=weights * (losses[chosen] - losses[candidate]))
        if is_improvement(decreases.astype(np.float64)):
            chosen = candidate
    return chosen


def split_folds(folds: NDArray[np.integer]) -> Ints:
    """Returns the group of each study, [num_studies]: its fold, or a part of it where there are few folds.

    With two folds, excluding one would leave a single fold, which cannot be cross-validated. A part never
    spans two folds, so excluding all parts of a fold excludes the fold.

    >>> split_folds(np.array([0, 0, 0, 1, 1, 1])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    known, fold_places = np.unique(folds, return_inverse=True)
    others = max(len(known) - 1, 1)
    num_parts = -(-_MIN_GROUPS // others)
    groups = np.zeros(len(folds), np.int64)
    for place in range(len(known)):
        inside = np.flatnonzero(fold_places == place)
        groups[inside] = place * num_parts + np.arange(len(inside)) % num_parts
    return groups


class PatternSearch:
    """Fits of one pattern's rows, cached by excluded folds and candidate."""

    def __init__(self, rows: Rows) -> None:
        """Stores all labelled rows that have the pattern's members; `features` hold these members only."""
        self.rows = rows
        self._folds = frozenset(np.unique(rows.folds).tolist())
        self._fits: dict[tuple[Folds, Candidate], Fit] = {}

    def fits(self, excluded: Folds, candidates: Sequence[Candidate]) -> dict[Candidate, Fit]:
        """Returns the candidates' fits on the rows outside the excluded folds."""
        excluded &= self._folds
        new = [candidate for candidate in candidates if (excluded, candidate) not in self._fits]
        if new:
            rows = self.outside(excluded)
            starts: dict[tuple[int, ...], Floats] = {}
            for candidate in new:
                self._fits[excluded, candidate] = fit_candidate(rows, candidate, starts)
        return {candidate: self._fits[excluded, candidate] for candidate in candidates}

    def choose_heads(self, excluded: Folds) -> dict[Head, Candidate]:
        """Returns the candidate of each head, by cross-validation over the folds that are not excluded."""
        if len(self._groups(excluded)) < 2:
            return default_candidates()
        logits = self.held_out_logits(excluded, CANDIDATES[Head.COMPETITION])
        rows = self.outside(excluded)
        weights = {Head.PROBABILITY: np.ones(len(rows.labels)), Head.COMPETITION: CLASS_WEIGHTS[rows.labels]}
        chosen = {}
        for head, candidates in CANDIDATES.items():
            losses = {
                candidate: row_losses(logits[candidate] + log_weights(head, candidate), rows.labels)
                for candidate in candidates
            }
            chosen[head] = choose(losses, weights[head], rows.studies)
        return chosen

    def held_out_logits(self, excluded: Folds, candidates: Sequence[Candidate]) -> dict[Candidate, Floats]:
        """Returns the held-out logits of every row outside the excluded folds, by candidate.

        The fit that predicts a row did not use the row's group of folds: float64 [num_rows outside, 3].
        """
        rows = self.outside(excluded)
        logits = {candidate: np.zeros((len(rows.labels), 3)) for candidate in candidates}
        for group in self._groups(excluded):
            held_out = np.isin(rows.folds, list(group))
            testing = rows.where(held_out)
            for candidate, fit in self.fits(excluded | group, candidates).items():
                logits[candidate][held_out] = fit.logits(testing)
        return logits

    def outside(self, excluded: Folds) -> Rows:
        """Returns the rows outside the excluded folds."""
        if not excluded & self._folds:
            return self.rows
        return self.rows.where(~np.isin(self.rows.folds, list(excluded)))

    def _groups(self, excluded: Folds) -> list[Folds]:
        remaining = sorted(self._folds - excluded)
        groups = (frozenset(remaining[start::_MAX_GROUPS]) for start in range(_MAX_GROUPS))
        return [group for group in groups if group]
