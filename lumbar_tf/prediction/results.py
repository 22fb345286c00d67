"""An answer for a study, and its files: the submission table and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_json_atomically, write_table_atomically
from lumbar_tf.labels import FINDINGS, Flag, Severity, row_id

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StudyFindings:
    """What the ensemble says of one study; rows in the order of `labels.FINDINGS`.

    Attributes:
        study_id: the study.
        probability: calibrated probabilities, float32 [25, 3].
        competition: what the weighted competition metric rewards, float32 [25, 3].
        members: what each member alone says, uncalibrated, float32 [member, 25, 3], NaN without answer.
        landmarks: LPS mm, float32 [25, 3], NaN where there is none.
        flags: bool [25, len(Flag)].
        interval: lower and upper bound of each probability, from the spread of the members, float32
            [25, 3, 2]; NaN where there is none; None of a bundle that gives none.
        extras: other outputs of the model by name, [25, ...] each; logged, not reported.
    """

    study_id: str
    probability: Floats
    competition: Floats
    members: Floats
    landmarks: Floats
    flags: NDArray[np.bool_]
    interval: Floats | None = None
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def flags_of(self, row: int) -> tuple[Flag, ...]:
        """Returns a finding's flags."""
        return tuple(flag for flag, is_set in zip(Flag, self.flags[row], strict=True) if is_set)

    def is_known(self, row: int) -> bool:
        """Says whether a finding has probabilities."""
        return bool(np.isfinite(self.probability[row]).all())

    def bounds_of(self, row: int) -> Floats | None:
        """Returns the bounds of a finding's probabilities, [3, 2]; None where there are none."""
        if self.interval is None or not self.is_known(row) or not np.isfinite(self.interval[row]).all():
            return None
        return self.interval[row]

    def grade_of(self, row: int) -> Severity | None:
        """Returns a finding's most probable grade; None where no image was looked at."""
        if not self.is_known(row) or Flag.PRIOR_ONLY in self.flags_of(row):
            return None
        return Severity(int(np.argmax(self.probability[row])))


def write_submission(path: Path, results: Sequence[StudyFindings], *, head: str = "competition") -> None:
    """Writes the competition's table, 25 rows a study, atomically.

    Args:
        path: the CSV.
        results: the studies.
        head: `competition` or `probability`: which of the two numbers.
    """
    rows = [
        [row_id(result.study_id, finding), *(f"{value:.9g}" for value in values)]
        for result in results
        for finding, values in zip(FINDINGS, getattr(result, head), strict=True)
    ]
    write_table_atomically(path, ["row_id", *(severity.column for severity in Severity)], rows)


def write_members(path: Path, results: Sequence[StudyFindings], names: Sequence[str]) -> None:
    """Writes what each member alone says, in the layout of an out-of-fold table, atomically.

    Args:
        path: the CSV: a submission's columns and `model`.
        results: the studies.
        names: the members' names, in their order.
    """
    rows = [
        [row_id(result.study_id, finding), *(f"{value:.9g}" for value in values), name]
        for place, name in enumerate(names)
        for result in results
        for finding, values in zip(FINDINGS, result.members[place], strict=True)
        if np.isfinite(values).all()
    ]
    write_table_atomically(path, ["row_id", *(severity.column for severity in Severity), "model"], rows)


def write_intervals(path: Path, results: Sequence[StudyFindings]) -> None:
    """Writes the calibrated probabilities with their intervals, 25 rows a study, atomically.

    Args:
        path: the CSV: `row_id`, and of each grade `severe`, `severe_low`, `severe_high`; the bounds are
            blank where there are none.
        results: the studies.
    """
    names = [severity.column for severity in Severity]
    header = [f"{name}{ending}" for name in names for ending in ("", "_low", "_high")]
    rows: list[list[str]] = []
    for result in results:
        bounds = np.full((len(FINDINGS), len(names), 2), np.nan)
        bounds = bounds if result.interval is None else result.interval
        numbers = np.concatenate([result.probability[..., np.newaxis], bounds], axis=-1)
        for finding, values in zip(FINDINGS, numbers.reshape(len(FINDINGS), -1), strict=True):
            cells = (f"{value:.9g}" if np.isfinite(value) else "" for value in values)
            rows.append([row_id(result.study_id, finding), *cells])
    write_table_atomically(path, ["row_id", *header], rows)


def result_to_json(result: StudyFindings) -> dict[str, Any]:
    """Returns plain values: a list of findings, each with its numbers, interval, point and flags."""

    def numbers(values: Floats) -> dict[str, float]:
        return {severity.column: round(float(values[severity]), 6) for severity in Severity}

    def bounds(row: int) -> dict[str, list[float]] | None:
        found = result.bounds_of(row)
        if found is None:
            return None
        return {each.column: [round(float(v), 6) for v in found[each]] for each in Severity}

    findings = []
    for row, finding in enumerate(FINDINGS):
        point = result.landmarks[row]
        findings.append(
            {
                "condition": finding.condition.value,
                "level": finding.level.value,
                "probability": numbers(result.probability[row]),
                "interval": bounds(row),
                "competition": numbers(result.competition[row]),
                "landmark_lps_mm": [round(float(each), 2) for each in point]
                if np.isfinite(point).all()
                else None,
                "flags": [flag.value for flag in result.flags_of(row)],
            }
        )
    return {"study_id": result.study_id, "findings": findings}


def write_results_json(path: Path, results: Sequence[StudyFindings], *, model: str) -> None:
    """Writes all studies as one JSON file, atomically."""
    content = {"model": model, "studies": [result_to_json(each) for each in results]}
    write_json_atomically(path, content, allow_nan=False)
