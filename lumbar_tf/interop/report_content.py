"""Content that the structured report, the Secondary Capture image and the FHIR bundle share.

Findings with numbers rounded once, so that all formats contain the same; UIDs, patient, study and equipment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lumbar_tf import __version__
from lumbar_tf.dicom.study import HEADER_KEYWORDS
from lumbar_tf.interop.source_references import SourceStudy, derived_uid
from lumbar_tf.labels import FINDINGS, Finding, Flag, Severity
from lumbar_tf.prediction.results import StudyFindings

MANUFACTURER = "lumbar_tf"
#: Part of every result that leaves the package.
DISCLAIMER = "Research use, not a medical device. Not verified by a physician."
#: Decimals of a probability; the same as in `results.json`.
_DECIMALS = 6
#: Character set of the results, whatever the source's is (PS3.3 section C.12.1.1.2).
_UTF_8 = "ISO_IR 192"
#: Attributes that must be present, if only empty (type 2; PS3.3 sections C.7.1.1 and C.7.2.1).
_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
#: Maximum length of a Long String (PS3.5 section 6.2).
_MAX_LONG_STRING = 64


@dataclass(frozen=True, eq=False)
class GradedFinding:
    """Content of a report for one finding. The competition's scores are not probabilities and are left out.

    Attributes:
        finding: condition and level.
        probability: calibrated probability of each grade; empty if there is none.
        bounds: lower and upper bound of each probability; empty if the bundle gives no intervals.
        grade: the most probable grade; None if no image was used.
        prediction_set: grades of the prediction set; empty without one.
        set_coverage: probability that it contains a reader's grade; None without a set, or if unknown.
        point: level point, LPS mm, float32 [3]; NaN if there is none.
        flags: limitations of the finding.
    """

    finding: Finding
    probability: dict[Severity, float]
    bounds: dict[Severity, tuple[float, float]]
    grade: Severity | None
    prediction_set: tuple[Severity, ...]
    set_coverage: float | None
    point: NDArray[np.float32]
    flags: tuple[Flag, ...]

    @property
    def title(self) -> str:
        """Title of the finding in a report, such as `Left subarticular stenosis L4/L5`."""
        return self.finding.title


def grade_findings(result: StudyFindings) -> tuple[GradedFinding, ...]:
    """Returns the 25 findings of a result, in the order of `labels.FINDINGS`."""
    return tuple(_grade(result, row, finding) for row, finding in enumerate(FINDINGS))


def _grade(result: StudyFindings, row: int, finding: Finding) -> GradedFinding:
    probability: dict[Severity, float] = {}
    bounds: dict[Severity, tuple[float, float]] = {}
    if result.is_known(row):
        probability = {severity: _rounded(result.probability[row, severity]) for severity in Severity}
    interval = result.bounds_of(row)
    if interval is not None:
        bounds = {
            severity: (_rounded(interval[severity, 0]), _rounded(interval[severity, 1]))
            for severity in Severity
        }
    prediction_set = result.set_of(row)
    coverage = result.set_coverage if prediction_set else None
    return GradedFinding(
        finding=finding,
        probability=probability,
        bounds=bounds,
        grade=result.grade_of(row),
        prediction_set=prediction_set,
        set_coverage=None if coverage is None else _rounded(coverage),
        point=result.landmarks[row],
        flags=result.flags_of(row),
    )


def _rounded(value: float | np.floating) -> float:
    return round(float(value), _DECIMALS)


def to_percent(probability: float) -> float:
    """Returns a rounded probability in percent, with the same decimal digits.

    >>> to_percent(0.070009)
    7.0009
    """
    return round(100 * probability, _DECIMALS - 2)


def software_version(model: str) -> str:
    """Returns the version of this package and of the bundle.

    >>> software_version("3").endswith("model 3")
    True
    """
    return f"{__version__}, model {model}"[:_MAX_LONG_STRING]


def list_remarks(source: SourceStudy, result: StudyFindings) -> list[str]:
    """Returns remarks on a result: its purpose, the model's training data, differences from the source."""
    remarks = (DISCLAIMER, result.training_note, describe_differences(source))
    return [remark for remark in remarks if remark]


def result_uid(kind: str, source: SourceStudy, result: StudyFindings, model: str, *texts: str) -> str:
    """Returns the SOPInstanceUID of a result, a function of the source, the model, its note and the numbers.

    An archive that receives the same result twice therefore keeps one.

    Args:
        kind: kind of the result.
        source: references to the images.
        result: findings of the study.
        model: version of the bundle.
        texts: further content that the UID depends on.
    """
    numbers = b"".join(array.tobytes() for array in (result.probability, result.landmarks, result.flags))
    bounds = b"" if result.interval is None else result.interval.tobytes()
    images = ",".join(sorted(image.sop_instance_uid for image in source.images))
    digest = (numbers + bounds).hex()
    version = software_version(model)
    return derived_uid(kind, source.study_uid, images, version, digest, result.training_note, *texts)


def series_uid(kind: str, source: SourceStudy, model: str) -> str:
    """Returns the SeriesInstanceUID of the results of one kind and model in a study."""
    return derived_uid("series", kind, source.study_uid, software_version(model))


def anonymous_dataset(source: SourceStudy) -> Dataset:
    """Returns a dataset with the StudyInstanceUID and empty patient and study attributes.

    It is the input of highdicom, whose warnings would repeat an unusual patient name; `copy_identity` sets
    the attributes of the finished result.
    """
    dataset = Dataset()
    dataset.SpecificCharacterSet = _UTF_8
    dataset.StudyInstanceUID = source.study_uid
    for keyword in _REQUIRED:
        setattr(dataset, keyword, "")
    return dataset


def copy_identity(dataset: Dataset, source: SourceStudy) -> None:
    """Sets the Patient and General Study attributes of a result to the source's; empty if it has none."""
    for keyword in HEADER_KEYWORDS:
        value = source.header.get(keyword)
        if value is not None or keyword in _REQUIRED:
            setattr(dataset, keyword, value or "")


def equipment(model: str) -> dict[str, Any]:
    """Returns highdicom's arguments for the equipment that made a result."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": software_version(model),
        "device_serial_number": derived_uid("device", model)[:_MAX_LONG_STRING],
        "specific_character_set": _UTF_8,
    }


def describe_differences(source: SourceStudy) -> str:
    """Returns a remark on values of the source that a result does not repeat; "" if there are none."""
    remarks = []
    if source.replaced:
        parts = ", ".join(f"{keyword} ({count})" for keyword, count in sorted(source.replaced.items()))
        remarks.append(
            "Some UIDs of the source are missing or not valid. UIDs derived from its content, which no "
            f"archive contains, replace them: {parts}."
        )
    if source.omitted:
        remarks.append(
            f"Values of the source that DICOM does not allow are left out: {', '.join(source.omitted)}."
        )
    return " ".join(remarks)
