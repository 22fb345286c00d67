"""Chooses how a pattern of members is fitted, by cross-validation over the folds of the studies.

A nested answer for fold a is chosen on fits without {a, b}, for every other fold b, and the final stacker on
fits without {a}. A fit without {a, b} serves both folds, and a fit without {a} is the nested answer itself,
so every fit is kept under the folds that it has not seen.
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

#: A later candidate must beat an earlier one by this many standard errors of the difference.
REQUIRED_STANDARD_ERRORS = 0.5
#: Folds are put together into this many groups where there are more.
_MAX_GROUPS = 5
#: A fold is parted where fewer than this many would remain beside the one that is held out.
_MIN_GROUPS = 3


def row_losses(logits: Floats, labels: Ints) -> Floats:
    """Returns -ln softmax(logits)[label] of each row, [num_rows], from logits [num_rows, 3]."""
    top = logits.max(axis=1)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    losses: Floats = log_sums - logits[np.arange(len(labels)), labels]
    return losses


def is_gain(gains: Floats) -> bool:
    """Returns whether the studies' gains sum to more than half their standard error."""
    standard_error = gains.std() * np.sqrt(len(gains))
    return bool(gains.sum() > REQUIRED_STANDARD_ERRORS * standard_error)


def choose(losses: dict[Candidate, Floats], weights: Floats, studies: Ints) -> Candidate:
    """Returns the first candidate that no later one beats by half a standard error, over studies.

    Args:
        losses: held-out loss of each row, by candidate in the order of preference.
        weights: of each row, [num_rows].
        studies: study of each row: rows of one study are not independent.
    """
    candidates = list(losses)
    chosen = candidates[0]
    _, places = np.unique(studies, return_inverse=True)
    for candidate in candidates[1:]:
        gains = np.bincount(places, weights=weights * (losses[chosen] - losses[candidate]))
        if is_gain(gains.astype(np.float64)):
            chosen = candidate
    return chosen


def part_folds(folds: NDArray[np.integer]) -> Ints:
    """Returns the group of each study, [num_studies]: its fold, or a part of it where folds are few.

    Choosing without one of two folds would leave one, and nothing to cross-validate over. A part never
    spans two folds, so leaving out all parts of a fold is leaving out the fold.

    >>> part_folds(np.array([0, 0, 0, 1, 1, 1])).tolist()
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
    """The fits of one pattern's rows, by the folds left out and the candidate."""

    def __init__(self, rows: Rows) -> None:
        """Takes all labelled rows that have the pattern's members; `features` hold these members only."""
        self.rows = rows
        self._folds = frozenset(np.unique(rows.folds).tolist())
        self._fits: dict[tuple[Folds, Candidate], Fit] = {}

    def fits(self, excluded: Folds, candidates: Sequence[Candidate]) -> dict[Candidate, Fit]:
        """Returns the candidates' fits on the rows outside the excluded folds."""
        excluded &= self._folds
        new = [each for each in candidates if (excluded, each) not in self._fits]
        if new:
            rows = self.outside(excluded)
            starts: dict[tuple[int, ...], Floats] = {}
            for each in new:
                self._fits[excluded, each] = fit_candidate(rows, each, starts)
        return {each: self._fits[excluded, each] for each in candidates}

    def choose_heads(self, excluded: Folds) -> dict[Head, Candidate]:
        """Returns each head's candidate by cross-validation over the folds that are not excluded."""
        if len(self._groups(excluded)) < 2:
            return default_candidates()
        logits = self.held_out_logits(excluded, CANDIDATES[Head.COMPETITION])
        rows = self.outside(excluded)
        weights = {Head.PROBABILITY: np.ones(len(rows.labels)), Head.COMPETITION: CLASS_WEIGHTS[rows.labels]}
        chosen = {}
        for head, candidates in CANDIDATES.items():
            losses = {
                each: row_losses(logits[each] + log_weights(head, each), rows.labels) for each in candidates
            }
            chosen[head] = choose(losses, weights[head], rows.studies)
        return chosen

    def held_out_logits(self, excluded: Folds, candidates: Sequence[Candidate]) -> dict[Candidate, Floats]:
        """Returns for each candidate honest logits of every row outside the excluded folds.

        No row had a part in the fit that gave its logits: float64 [num_rows outside, 3].
        """
        rows = self.outside(excluded)
        logits = {each: np.zeros((len(rows.labels), 3)) for each in candidates}
        for group in self._groups(excluded):
            held_out = np.isin(rows.folds, list(group))
            testing = rows.where(held_out)
            for each, fit in self.fits(excluded | group, candidates).items():
                logits[each][held_out] = fit.logits(testing)
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
