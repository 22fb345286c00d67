"""Yes-or-no questions about a grade, and the operating points at which predictions are counted.

The thresholds are fixed in advance. A threshold that is optimised on the evaluated data (by Youden's index,
for example) looks better there than on any other data. The thresholds are meaningful for calibrated
probabilities only.
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
        """Name for people."""
        return self.value.replace("_", " ")

    def is_met(self, grades: Labels) -> Bools:
        """Returns whether each grade, labelled or predicted, means yes, bool [...]."""
        return np.asarray(
            grades != Severity.NORMAL_MILD if self is Target.NOT_NORMAL else grades == Severity.SEVERE
        )

    def probability(self, probabilities: Floats) -> Floats:
        """Returns the probability of yes, float64 [...], from probabilities [..., 3].

        >>> Target.NOT_NORMAL.probability(np.array([0.5, 0.25, 0.25])).item()
        0.5
        """
        if self is Target.SEVERE:
            return probabilities[..., Severity.SEVERE]
        return 1.0 - probabilities[..., Severity.NORMAL_MILD]


@dataclass(frozen=True)
class OperatingPoint:
    """A decision rule.

    Attributes:
        name: key in `metrics.json`.
        target: the question.
        threshold: smallest probability of a yes; None: yes if the most probable grade means yes.
        rule: the rule in words.
        reason: the reason for the threshold in words.
    """

    name: str
    target: Target
    threshold: float | None
    rule: str
    reason: str

    def is_predicted(self, probabilities: Floats) -> Bools:
        """Returns whether the prediction is yes, bool [...], from probabilities [..., 3].

        >>> OPERATING_POINTS[3].is_predicted(np.array([[0.7, 0.1, 0.2], [0.7, 0.2, 0.1]])).tolist()
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
        # If a missed Severe costs 4 and a false alarm 1, the expected cost is smallest with yes where 4 p > 1
        # - p, that is above 1 / (1 + 4). 4 and 1 are the competition's sample weights.
        Severity.NORMAL_MILD.weight / (Severity.NORMAL_MILD.weight + Severity.SEVERE.weight),
        "P(Severe) is at least 0.2",
        "missing a severe finding counts four times a false alarm, as in the competition's weights 4 and 1",
    ),
)
