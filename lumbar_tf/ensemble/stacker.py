"""Coefficients of the stacker, their application and their JSON. NumPy only.

For each family of findings (sides and levels pooled), with members m that cover the family:

    x_m     = ln(clip(p_m, 1e-6, 1)) minus its mean over the three classes; a missing member is replaced by
              the mean of the available ones, and by 0 where none is available
    pattern = sum over sources k of 2^k where source k has a finite row
    c       = the context: predictions for the findings around (`features.py`)
    logits  = sum over m of W[pattern, m] @ x_m + sum over slots of V[pattern, slot] @ c_slot
              + b[pattern, level]
    output  = softmax(logits)

The exported graph computes the same from the same coefficients. There are two heads: `probability` is
calibrated to observed frequencies, `competition` minimises the weighted metric. `stacking_run.py` fits the
coefficients.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import (
    context_features,
    fill_missing,
    is_available,
    mean_features,
    member_features,
    patterns_of,
    softmax,
)
from lumbar_tf.ensemble.prediction_sets import SetThresholds, grade_sets
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_SEVERITIES, Family, Level

Floats = NDArray[np.float64]

#: The file and the fit grow with 2 to the number of sources: 256 patterns at most.
MAX_SOURCES = 8

#: Coefficients of a member's bias, over (1, mean of the members' centred log-probabilities).
BIAS_TERMS = 1 + NUM_SEVERITIES

#: Coefficients of the log-variance, over (1, t, t^2) of the log-odds t.
LOG_VARIANCE_TERMS = 3


class Head(Enum):
    """Purpose of a prediction."""

    PROBABILITY = "probability"
    COMPETITION = "competition"


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of one head of one family.

    Attributes:
        weights: W, float64 [num_patterns, num_members, 3, 3], applied as W @ x.
        context: V, float64 [num_patterns, 5 slots, 3, 3], applied as V @ c.
        bias: b, float64 [num_patterns, 5, 3].
        choices: description of how each pattern was fitted, [num_patterns].
    """

    weights: Floats
    context: Floats
    bias: Floats
    choices: tuple[str, ...]


@dataclass(frozen=True)
class MemberVariance:
    """Variation between the members of one family, for each pattern; measured by `member_variance.py`.

    Attributes:
        bias: systematic difference of each member from the mean of all, over (1, that mean), float64
            [num_patterns, num_members, 3, 4]; `habits` in JSON.
        log_variance: ln of one member's variance in log-odds as a polynomial of the ensemble's log-odds,
            float64 [num_patterns, 3, 3], constant first; `trend` in JSON.
        bounds: range of log-odds in which `log_variance` was measured, float64 [num_patterns, 3, 2].
        freedom: prior degrees of freedom of `log_variance` when it is pooled with the variance of a single
            finding, float64 [num_patterns, 3]; 0 where nothing was measured.
    """

    bias: Floats
    log_variance: Floats
    bounds: Floats
    freedom: Floats


@dataclass(frozen=True)
class FamilyStacker:
    """The stacker of one family.

    Attributes:
        family: the family.
        members: names of the members that cover it, in the stacker's order; may be empty.
        sources: the members' distinct inputs; bit k of a pattern is source k.
        member_sources: index into `sources` of each member.
        num_labels: number of labelled rows that it was fitted to; with 0, prior and bias are uniform.
        heads: the coefficients of each head.
        member_variance: variation between the members, for intervals; None where it was not measured.
        set_thresholds: thresholds of the prediction sets; None where they were not fitted.
    """

    family: Family
    members: tuple[str, ...]
    sources: tuple[str, ...]
    member_sources: tuple[int, ...]
    num_labels: int
    heads: dict[Head, Coefficients]
    member_variance: MemberVariance | None = None
    set_thresholds: SetThresholds | None = None

    @property
    def num_patterns(self) -> int:
        """Number of patterns of available sources, 2 to the number of sources."""
        return 1 << len(self.sources)


@dataclass(frozen=True)
class StackerCoefficients:
    """The stackers of all families over one list of members.

    Attributes:
        members: names of the members, in the order of the first axis of `apply_stacker`'s input.
        sources: the input of each member.
        context_centre: mean that the context is measured from, float64 [25, 3].
        families: one stacker for each family, in the order of `Family`.
    """

    members: tuple[str, ...]
    sources: tuple[str, ...]
    context_centre: Floats
    families: tuple[FamilyStacker, ...]

    def family(self, family: Family) -> FamilyStacker:
        """Returns one family's stacker."""
        return self.families[list(Family).index(family)]

    def member_indices(self, family: Family) -> list[int]:
        """Returns the indices in `members` of the members that cover a family."""
        return [self.members.index(name) for name in self.family(family).members]

    @property
    def set_coverage(self) -> float | None:
        """Probability that a prediction set contains the reader's grade; None where no sets were fitted."""
        found = [part.set_thresholds.coverage for part in self.families if part.set_thresholds is not None]
        return found[0] if found else None


@dataclass(frozen=True)
class Stacked:
    """Predictions of a stacker.

    Attributes:
        probability: calibrated probabilities, float64 [num_studies, 25, 3].
        competition: predictions that minimise the weighted metric, float64 [num_studies, 25, 3].
        pattern: available sources of each finding, as bits of its family's sources, int64 [num_studies, 25];
            0 where the prediction is the prior.
        sets: which grades are in the prediction set of each finding, bool [num_studies, 25, 3]; none where
            the stacker has no sets.
    """

    probability: Floats
    competition: Floats
    pattern: NDArray[np.int64]
    sets: NDArray[np.bool_]

    def head(self, head: Head) -> Floats:
        """Returns the predictions of one head."""
        return self.probability if head is Head.PROBABILITY else self.competition


def family_findings(family: Family) -> tuple[list[int], NDArray[np.int64]]:
    """Returns the indices of the family's findings (both sides), and the level index, 0 to 4, of each."""
    levels = list(Level)
    rows = [index for index, finding in enumerate(FINDINGS) if finding.condition.family is family]
    return rows, np.array([levels.index(FINDINGS[row].level) for row in rows])


def apply_stacker(stacker: StackerCoefficients, probabilities: Floats) -> Stacked:
    """Applies both heads.

    Args:
        stacker: a fitted stacker.
        probabilities: the members' predictions in the order of `stacker.members`, float64
            [num_members, num_studies, 25, 3], NaN where a member has none.

    Returns:
        Finite predictions for every study and finding, whatever is missing.

    Raises:
        ValueError: the array does not have the shape of the stacker's members.
    """
    expected = (len(stacker.members), NUM_FINDINGS, NUM_SEVERITIES)
    if probabilities.ndim != 4 or (probabilities.shape[0], *probabilities.shape[2:]) != expected:
        raise ValueError(
            f"`probabilities` must be [{expected[0]}, num_studies, {NUM_FINDINGS}, {NUM_SEVERITIES}]. "
            f"Received: {probabilities.shape}."
        )
    num_studies = probabilities.shape[1]
    predictions = {head: np.zeros((num_studies, NUM_FINDINGS, NUM_SEVERITIES)) for head in Head}
    pattern = np.zeros((num_studies, NUM_FINDINGS), np.int64)
    available, features = is_available(probabilities), member_features(probabilities)
    context = context_features(mean_features(features, available), stacker.context_centre)
    for part in stacker.families:
        rows, levels = family_findings(part.family)
        own = np.ix_(stacker.member_indices(part.family), range(num_studies), rows)
        pattern[:, rows] = patterns_of(probabilities[own], part.member_sources)
        filled = fill_missing(features[own], available[own])
        for head, coefficients in part.heads.items():
            weights = coefficients.weights[pattern[:, rows]]  # [num_studies, num_rows, num_members, 3, 3]
            logits = np.einsum("srmij,msrj->sri", weights, filled)
            logits += np.einsum("srkij,srkj->sri", coefficients.context[pattern[:, rows]], context[:, rows])
            logits += coefficients.bias[pattern[:, rows], levels[None, :]]
            predictions[head][:, rows] = softmax(logits)
    sets = find_sets(stacker, predictions[Head.PROBABILITY], pattern)
    return Stacked(predictions[Head.PROBABILITY], predictions[Head.COMPETITION], pattern, sets)


def find_sets(
    stacker: StackerCoefficients, probability: NDArray[np.floating], pattern: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Returns the prediction set of each finding; `prediction_sets.py` has the formula.

    Args:
        stacker: a fitted stacker.
        probability: its calibrated probabilities, [num_studies, 25, 3].
        pattern: pattern of available sources, int64 [num_studies, 25].

    Returns:
        Which grades are in the set, bool [num_studies, 25, 3]; none in a family without thresholds.
    """
    sets = np.zeros(probability.shape, np.bool_)
    for part in stacker.families:
        if part.set_thresholds is not None:
            rows, _ = family_findings(part.family)
            thresholds = part.set_thresholds.thresholds[pattern[:, rows]]
            sets[:, rows] = grade_sets(probability[:, rows], thresholds)
    return sets


def mean_in_logits(probabilities: Floats) -> Floats:
    """Returns softmax of the mean of the members' log-probabilities, NaN where no member has a prediction.

    Args:
        probabilities: float64 [num_members, num_studies, 25, 3].

    Returns:
        float64 [num_studies, 25, 3].
    """
    mean = mean_features(member_features(probabilities), is_available(probabilities))
    return softmax(mean)
