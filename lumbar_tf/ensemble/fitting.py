"""Fits the stacker of `stacking.py` to out-of-fold predictions, and predicts folds that it has not seen.

`family_fitting.py` fits a family.
"""

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.cli.progress import Advance
from lumbar_tf.ensemble.context import context_centre, mean_features
from lumbar_tf.ensemble.family_fitting import FamilyFitter
from lumbar_tf.ensemble.member_features import answered, member_features
from lumbar_tf.ensemble.member_variance_fitting import measure_member_variance
from lumbar_tf.ensemble.search import Folds
from lumbar_tf.ensemble.stacker import FamilyStacker, Head, Stacked, StackerCoefficients, apply_stacker
from lumbar_tf.labels import NUM_FINDINGS, Family
from lumbar_tf.tables.out_of_fold import Members

Labels = NDArray[np.integer]

_NOTHING_EXCLUDED: Folds = frozenset()


class StackerFitter:
    """Fits the final stacker and the nested ones over the same fits."""

    def __init__(
        self, members: Members, labels: Labels, folds: Labels, *, advance: Advance = lambda count: None
    ) -> None:
        """Takes what to fit.

        Args:
            members: out-of-fold predictions.
            labels: int [num_studies, 25], -1 where missing. A family without labels keeps the plain mean;
                one without members answers with its level prior, uniform if it has no label either.
            folds: fold of each study, int [num_studies]; folds hold patients whole.
            advance: is told of each fit of a family, of `num_fits` in all.

        Raises:
            ValueError: shapes disagree, or a family has more than `MAX_SOURCES` sources.
        """
        num_studies = members.probabilities.shape[1]
        if labels.shape != (num_studies, NUM_FINDINGS) or folds.shape != (num_studies,):
            raise ValueError(
                f"`labels` must be [{num_studies}, {NUM_FINDINGS}] and `folds` [{num_studies}] long. "
                f"Received: {labels.shape} and {folds.shape}."
            )
        self._members, self._folds, self._advance = members, folds, advance
        self._families = [FamilyFitter(members, labels, folds, family) for family in Family]
        is_there = answered(members.probabilities)
        # Of all studies, those held out too: it looks at no label.
        self._centre = context_centre(mean_features(member_features(members.probabilities), is_there))

    def _stacker(self, families: list[FamilyStacker]) -> StackerCoefficients:
        return StackerCoefficients(self._members.names, self._members.sources, self._centre, tuple(families))

    def fit(self) -> StackerCoefficients:
        """Fits both heads of all families, every pattern, to all folds, and measures the members' spread."""
        families = []
        for each in self._families:
            families.append(each.fit(_NOTHING_EXCLUDED, set(range(each.num_patterns))))
            self._advance(1)
        return measure_member_variance(self._stacker(families), self._members.probabilities)

    def nested(self) -> Stacked:
        """Predicts each fold with a stacker that was fitted, and chosen, on the other folds.

        Returns:
            Stacked answers for all studies, none of whose own labels had a part in them.

        Raises:
            ValueError: there is but one fold.
        """
        known = np.unique(self._folds).tolist()
        if len(known) < 2:
            raise ValueError(f"Nested predictions must have at least two folds. Received: folds {known}.")
        answers = {head: np.zeros(self._members.probabilities.shape[1:]) for head in Head}
        pattern = np.zeros(self._members.probabilities.shape[1:3], np.int64)
        for fold in known:
            held_out = self._folds == fold
            families = []
            for each in self._families:
                families.append(each.fit_without(held_out))
                self._advance(1)
            stacked = apply_stacker(self._stacker(families), self._members.probabilities[:, held_out])
            for head, answer in answers.items():
                answer[held_out] = stacked.head(head)
            pattern[held_out] = stacked.pattern
        return Stacked(answers[Head.PROBABILITY], answers[Head.COMPETITION], pattern)


def num_fits(folds: Labels) -> int:
    """Returns how many fits of a family `StackerFitter.nested` and `fit` make together."""
    return (len(np.unique(folds)) + 1) * len(Family)


def fit_stacker(members: Members, labels: Labels, folds: Labels) -> StackerCoefficients:
    """Fits the final stacker: `StackerFitter(...).fit()`."""
    return StackerFitter(members, labels, folds).fit()


def nested_predictions(members: Members, labels: Labels, folds: Labels) -> Stacked:
    """Predicts each fold without its labels: `StackerFitter(...).nested()`."""
    return StackerFitter(members, labels, folds).nested()
