"""Findings of a study, and a graded study with everything that its outputs need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.study import Study
from lumbar_tf.labels import FINDINGS, Flag, Plane, Severity
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.saliency import StudySaliency
from lumbar_tf.serving.training_data import TrainingData

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StudyFindings:
    """The ensemble's output for one study; rows in the order of `labels.FINDINGS`.

    Attributes:
        study_id: the study.
        probability: calibrated probabilities, float32 [25, 3].
        competition: predictions optimised for the weighted competition metric, float32 [25, 3].
        members: uncalibrated probabilities of each member alone, float32 [member, 25, 3], NaN without a
            prediction.
        landmarks: points in LPS mm, float32 [25, 3], NaN where there is none.
        flags: bool [25, len(Flag)].
        interval: lower and upper bound of each probability, from the variance between members, float32
            [25, 3, 2]; NaN where there is none; None if the bundle has no intervals.
        prediction_set: which grades are in the set that contains a reader's grade with the probability
            `set_coverage`, for each grade, bool [25, 3]; none where a finding has no set; None if the bundle
            has no sets.
        set_coverage: that probability; None if unknown.
        extras: other outputs of the model by name, [25, ...] each; logged, not reported.
        training: the studies that the model was trained on.
    """

    study_id: str
    probability: Floats
    competition: Floats
    members: Floats
    landmarks: Floats
    flags: NDArray[np.bool_]
    interval: Floats | None = None
    prediction_set: NDArray[np.bool_] | None = None
    set_coverage: float | None = None
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    training: TrainingData = field(default_factory=TrainingData)

    @property
    def training_note(self) -> str:
        """Sentences about the model's training data, which every output states first."""
        return self.training.note

    def flags_of(self, row: int) -> tuple[Flag, ...]:
        """Returns a finding's flags."""
        return tuple(flag for flag, is_set in zip(Flag, self.flags[row], strict=True) if is_set)

    def is_known(self, row: int) -> bool:
        """Returns whether a finding has probabilities."""
        return bool(np.isfinite(self.probability[row]).all())

    def bounds_of(self, row: int) -> Floats | None:
        """Returns the bounds of a finding's probabilities, [3, 2]; None where there are none."""
        if self.interval is None or not self.is_known(row) or not np.isfinite(self.interval[row]).all():
            return None
        return self.interval[row]

    def set_of(self, row: int) -> tuple[Severity, ...]:
        """Returns the grades in a finding's prediction set; empty where there is none."""
        if self.prediction_set is None or not self.is_known(row):
            return ()
        return tuple(grade for grade in Severity if self.prediction_set[row, grade])

    def grade_of(self, row: int) -> Severity | None:
        """Returns a finding's most probable grade; None where no image contributed."""
        if not self.is_known(row) or Flag.PRIOR_ONLY in self.flags_of(row):
            return None
        return Severity(int(np.argmax(self.probability[row])))


@dataclass(frozen=True, eq=False)
class ModelSource:
    """The model that graded a study, and whether the study is synthetic.

    Attributes:
        version: version of the exported bundle.
        members: names of the ensemble's members in their order; empty where unknown.
        is_synthetic: whether the study is known to be synthetic.
    """

    version: str
    members: tuple[str, ...] = ()
    is_synthetic: bool = False


@dataclass(frozen=True, eq=False)
class GradedStudy:
    """A study with its findings: the input of every output format.

    Attributes:
        study: the slices and, where requested, the DICOM header.
        findings: the ensemble's output.
        source: the model.
        examples: serialized Examples that were graded, by plane.
        crop_outlines: position of the graders' crops by plane; empty unless requested, and without planes
            whose configuration is unknown.
        saliency: saliency maps; None unless `with_saliency`, or if the model has none.
        language: language of the impression.
    """

    study: Study
    findings: StudyFindings
    source: ModelSource
    examples: Mapping[Plane, bytes] = field(default_factory=dict)
    crop_outlines: Mapping[Plane, PlaneCropOutlines] = field(default_factory=dict)
    saliency: StudySaliency | None = None
    language: Language = Language.ENGLISH


def findings_frame(findings: StudyFindings) -> "pd.DataFrame":
    """Returns a table with one row for each of the 25 findings.

    Columns: `study_id`; `condition`, such as "neural foraminal narrowing"; `side`, the patient's "left" or
    "right" ("" for the canal); `level`, such as "L4/L5"; `grade`, the most probable severity, "" where no
    image contributed; the calibrated probabilities `normal_mild`, `moderate`, `severe`, each with its bounds
    `..._low` and `..._high` (NaN where there are none); `prediction_set`, such as "Moderate or Severe", ""
    without one; the predictions for the competition's metric `competition_normal_mild`, ...; the landmark
    `x_mm`, `y_mm`, `z_mm` (LPS patient coordinates, NaN where there is none); `flags`, separated by blanks;
    `training_note`, about the model's training data.
    """
    import pandas as pd

    grades = [findings.grade_of(row) for row in range(len(FINDINGS))]
    bounds = np.full((len(FINDINGS), len(Severity), 2), np.nan)
    for row in range(len(FINDINGS)):
        found = findings.bounds_of(row)
        if found is not None:
            bounds[row] = found
    columns: dict[str, object] = {
        "study_id": findings.study_id,
        "condition": [condition_words(finding.condition.value) for finding in FINDINGS],
        "side": ["" if f.condition.side is None else f.condition.side.value for f in FINDINGS],
        "level": [finding.level.title for finding in FINDINGS],
        "grade": ["" if grade is None else grade.title for grade in grades],
    }
    for severity in Severity:
        columns[severity.column] = findings.probability[:, severity].astype(np.float64)
        columns[f"{severity.column}_low"] = bounds[:, severity, 0]
        columns[f"{severity.column}_high"] = bounds[:, severity, 1]
    columns["prediction_set"] = [set_words(findings.set_of(row)) for row in range(len(FINDINGS))]
    for severity in Severity:
        columns[f"competition_{severity.column}"] = findings.competition[:, severity].astype(np.float64)
    for axis, name in enumerate(("x_mm", "y_mm", "z_mm")):
        columns[name] = findings.landmarks[:, axis].astype(np.float64)
    columns["flags"] = [
        " ".join(flag.value for flag in findings.flags_of(row)) for row in range(len(FINDINGS))
    ]
    columns["training_note"] = findings.training_note
    return pd.DataFrame(columns)


def condition_words(name: str) -> str:
    """Returns a condition in words, without its side.

    >>> condition_words("left_subarticular_stenosis")
    'subarticular stenosis'
    """
    return name.removeprefix("left_").removeprefix("right_").replace("_", " ")


def set_words(grades: Sequence[Severity]) -> str:
    """Returns the grades of a prediction set in words, "" for none.

    >>> set_words([Severity.MODERATE, Severity.SEVERE]), set_words(list(Severity))
    ('Moderate or Severe', 'Normal/Mild, Moderate or Severe')
    """
    *others, last = [grade.title for grade in grades] or [""]
    return f"{', '.join(others)} or {last}" if others else last


def result_to_json(result: StudyFindings, language: Language = Language.ENGLISH) -> dict[str, Any]:
    """Returns JSON-compatible values: training note, impression, coverage of the sets, and the findings.

    A finding has its probabilities, interval, prediction set, landmark and flags.

    Args:
        result: findings of the study.
        language: language of the impression.
    """

    def numbers(values: Floats) -> dict[str, float]:
        return {severity.column: round(float(values[severity]), 6) for severity in Severity}

    def bounds(row: int) -> dict[str, list[float]] | None:
        found = result.bounds_of(row)
        if found is None:
            return None
        return {severity.column: [round(float(v), 6) for v in found[severity]] for severity in Severity}

    findings = []
    for row, finding in enumerate(FINDINGS):
        point = result.landmarks[row]
        findings.append(
            {
                "condition": finding.condition.value,
                "level": finding.level.value,
                "probability": numbers(result.probability[row]),
                "interval": bounds(row),
                "prediction_set": [grade.column for grade in result.set_of(row)] or None,
                "competition": numbers(result.competition[row]),
                "landmark_lps_mm": [round(float(value), 2) for value in point]
                if np.isfinite(point).all()
                else None,
                "flags": [flag.value for flag in result.flags_of(row)],
            }
        )
    return {
        "study_id": result.study_id,
        "training_note": result.training_note,
        "impression": make_impression(result, language),
        "impression_language": language.value,
        "prediction_set_coverage": result.set_coverage,
        "findings": findings,
    }
