"""The two questions that a grade answers, and the cut-offs at which answers are counted.

The cut-offs are fixed here, before any data: the one that is best on the data being judged (Youden's index,
for one) looks better there than it will anywhere else. Each has a meaning for calibrated probabilities only.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import Severity

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]
Bools = NDArray[np.bool_]


class Target(Enum):
    """A yes-or-no question about a finding."""

    NOT_NORMAL = "not_normal"
    SEVERE = "severe"

    @property
    def title(self) -> str:
        """In words."""
        return self.value.replace("_", " ")

    def is_met(self, grades: Labels) -> Bools:
        """Returns whether each grade, labelled or predicted, says yes, bool [...]."""
        return np.asarray(
            grades != Severity.NORMAL_MILD if self is Target.NOT_NORMAL else grades == Severity.SEVERE
        )

    def probability(self, probabilities: Floats) -> Floats:
        """Returns the probability of yes, float64 [...], of probabilities [..., 3].

        >>> Target.NOT_NORMAL.probability(np.array([0.5, 0.25, 0.25])).item()
        0.5
        """
        if self is Target.SEVERE:
            return probabilities[..., Severity.SEVERE]
        return 1.0 - probabilities[..., Severity.NORMAL_MILD]


@dataclass(frozen=True)
class OperatingPoint:
    """A rule that says yes or no.

    Attributes:
        name: the key in `metrics.json`.
        target: the question.
        threshold: yes at this probability and above; None: yes where the most probable grade says so.
        rule: in words.
        reason: why this cut-off, in words.
    """

    name: str
    target: Target
    threshold: float | None
    rule: str
    reason: str

    def says_yes(self, probabilities: Floats) -> Bools:
        """Returns the answers, bool [...], to probabilities [..., 3].

        >>> OPERATING_POINTS[3].says_yes(np.array([[0.7, 0.1, 0.2], [0.7, 0.2, 0.1]])).tolist()
        [True, False]
        """
        if self.threshold is None:
            return self.target.is_met(probabilities.argmax(axis=-1))
        return np.asarray(self.target.probability(probabilities) >= self.threshold)


OPERATING_POINTS: tuple[OperatingPoint, ...] = (
    OperatingPoint(
        "not_normal_most_probable",
        Target.NOT_NORMAL,
        None,
        "the most probable grade is Moderate or Severe",
        "what a reader sees who is shown one grade",
    ),
    OperatingPoint(
        "not_normal_half",
        Target.NOT_NORMAL,
        0.5,
        "P(Moderate) + P(Severe) is at least 0.5",
        "missing a finding counts as much as a false alarm",
    ),
    OperatingPoint(
        "severe_most_probable",
        Target.SEVERE,
        None,
        "the most probable grade is Severe",
        "what a reader sees who is shown one grade",
    ),
    OperatingPoint(
        "severe_fifth",
        Target.SEVERE,
        # The least expected cost where a missed Severe costs 4 and a false alarm 1 is had by saying yes
        # where 4 p > 1 - p: at 1 / (1 + 4). 4 and 1 are the competition's sample weights.
        Severity.NORMAL_MILD.weight / (Severity.NORMAL_MILD.weight + Severity.SEVERE.weight),
        "P(Severe) is at least 0.2",
        "missing a severe finding counts four times a false alarm, as in the competition's weights 4 and 1",
    ),
)
