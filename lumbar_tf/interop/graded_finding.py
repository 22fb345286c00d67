"""A finding as results for other systems give it: numbers rounded once, so that all of them say the same."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, Finding, Flag, Severity
from lumbar_tf.prediction.results import StudyFindings

#: As in `results.json`.
_DECIMALS = 6
#: Stands in every result that leaves the package.
DISCLAIMER = "Research use, not a medical device. Not verified by a physician."


@dataclass(frozen=True, eq=False)
class GradedFinding:
    """What is said of one finding; never of the competition's scores, which are no probabilities.

    Attributes:
        finding: condition and level.
        probability: calibrated, by grade; empty where there is none.
        bounds: lower and upper bound of each probability; empty where there are none.
        grade: the most probable one; None where no image was looked at.
        point: the level point, LPS mm float32 [3]; NaN where there is none.
        flags: what the answer had to do without.
    """

    finding: Finding
    probability: dict[Severity, float]
    bounds: dict[Severity, tuple[float, float]]
    grade: Severity | None
    point: NDArray[np.float32]
    flags: tuple[Flag, ...]

    @property
    def title(self) -> str:
        """How a report writes it: `Left subarticular stenosis L4/L5`."""
        return f"{self.finding.condition.title} {self.finding.level.title}"


def grade_findings(result: StudyFindings) -> tuple[GradedFinding, ...]:
    """Returns a result's 25 findings, in the order of `labels.FINDINGS`."""
    return tuple(_grade(result, row, finding) for row, finding in enumerate(FINDINGS))


def _grade(result: StudyFindings, row: int, finding: Finding) -> GradedFinding:
    values, bounds = result.probability[row], result.bounds_of(row)
    return GradedFinding(
        finding=finding,
        probability={each: _rounded(values[each]) for each in Severity} if result.is_known(row) else {},
        bounds={}
        if bounds is None
        else {each: (_rounded(bounds[each, 0]), _rounded(bounds[each, 1])) for each in Severity},
        grade=result.grade_of(row),
        point=result.landmarks[row],
        flags=result.flags_of(row),
    )


def _rounded(value: float | np.floating) -> float:
    return round(float(value), _DECIMALS)
