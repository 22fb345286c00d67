"""Planes, conditions, levels, severities and row ids.

The spellings are those of the RSNA 2024 Lumbar Spine Degenerative Classification tables, which use two:
`train.csv` has `spinal_canal_stenosis` and `l1_l2`, `train_label_coordinates.csv` has `Spinal Canal Stenosis`
and `L1/L2`. Both are read; snake case is written.
"""

import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Self, TypeVar

_Member = TypeVar("_Member", bound=Enum)


#: Root of the scheme 99LUMBAR: a random UUID, drawn once, as an OID (PS3.5 section B.2).
OWN_SCHEME_UID = "2.25.75340285079372723714853467360717106907"


class CodingScheme(Enum):
    """A coding scheme; the value is its DICOM designator (PS3.16 section 8).

    Attributes:
        uri: its name in FHIR (HL7 terminology, code systems).
    """

    SNOMED = "SCT", "http://snomed.info/sct"
    LOINC = "LN", "http://loinc.org"
    UCUM = "UCUM", "http://unitsofmeasure.org"
    OWN = "99LUMBAR", f"urn:oid:{OWN_SCHEME_UID}"

    _value_: str
    uri: str

    def __new__(cls, designator: str, uri: str = "") -> Self:
        """Makes a member; a call with the value alone looks one up."""
        member = object.__new__(cls)
        member._value_, member.uri = designator, uri
        return member


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes:
        value: at most 16 characters, the limit of DICOM's Code Value.
        scheme: the scheme that defines the value.
        meaning: text for people.
    """

    value: str
    scheme: CodingScheme
    meaning: str


class Orientation(Enum):
    """Direction in which the slices of a plane are stacked."""

    SAGITTAL = "sagittal"
    AXIAL = "axial"


class Plane(Enum):
    """An imaging plane and weighting, one grader's input.

    Attributes:
        series_description: the competition's spelling in `*_series_descriptions.csv`.
        orientation: of the slices.
    """

    SAGITTAL_T1 = "sagittal_t1", "Sagittal T1", Orientation.SAGITTAL
    SAGITTAL_T2 = "sagittal_t2", "Sagittal T2/STIR", Orientation.SAGITTAL
    AXIAL_T2 = "axial_t2", "Axial T2", Orientation.AXIAL

    _value_: str
    series_description: str
    orientation: Orientation

    def __new__(cls, value: str, *attributes: Any) -> Self:
        """Makes a member; a call with the value alone looks one up."""
        member = object.__new__(cls)
        member._value_ = value
        member.series_description, member.orientation = attributes
        return member

    @property
    def is_sagittal(self) -> bool:
        """Whether slices are stacked from side to side."""
        return self.orientation is Orientation.SAGITTAL


class Side(Enum):
    """The patient's side. In LPS coordinates left is +x."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class FamilySpec:
    """Properties that the conditions of a family share.

    Attributes:
        name: how configurations and tables spell it.
        graded_on: planes that a reader grades it on, the best first. The competition's annotators marked its
            points on the first.
        localized_on: plane whose localizer finds its points; None where its point is the level point.
        lateral_order: place between the midline (0) and the patient's side, for the columns of a report.
        site: code of the structure.
        finding: code of the pathology.
    """

    name: str
    graded_on: tuple[Plane, ...]
    localized_on: Plane | None
    lateral_order: int
    site: Code
    finding: Code


class Family(Enum):
    """A kind of finding with both sides pooled, as the competition metric scores it.

    With `Condition`, the only table of conditions: planes, crop anchors, codes, columns and array rows of the
    whole package follow from it.
    """

    CANAL = FamilySpec(
        name="canal",
        graded_on=(Plane.SAGITTAL_T2, Plane.AXIAL_T2),
        localized_on=Plane.SAGITTAL_T2,
        lateral_order=0,
        # PS3.16 annex L (body structures).
        site=Code("61853006", CodingScheme.SNOMED, "Spinal canal structure"),
        finding=Code("76107001", CodingScheme.SNOMED, "Spinal stenosis"),
    )
    FORAMINAL = FamilySpec(
        name="foraminal",
        graded_on=(Plane.SAGITTAL_T1,),
        localized_on=Plane.SAGITTAL_T1,
        lateral_order=2,
        # A published FHIR value set of body structures; in none of DICOM's context groups.
        site=Code("113204006", CodingScheme.SNOMED, "Intervertebral foramen"),
        # SNOMED CT's US edition; used in the examples of IHE Radiology's Imaging Diagnostic Report.
        finding=Code("371000119109", CodingScheme.SNOMED, "Stenosis of intervertebral foramina"),
    )
    SUBARTICULAR = FamilySpec(
        name="subarticular",
        graded_on=(Plane.AXIAL_T2,),
        localized_on=Plane.AXIAL_T2,
        lateral_order=1,
        site=Code("SUBARTICULAR", CodingScheme.OWN, "Subarticular zone (lateral recess) of the spinal canal"),
        finding=Code("SUBART_STENOSIS", CodingScheme.OWN, "Subarticular (lateral recess) stenosis"),
    )

    _value_: str
    spec: FamilySpec

    def __new__(cls, spec: Any) -> Self:
        """Makes a member; a call with the value alone looks one up."""
        member = object.__new__(cls)
        member._value_, member.spec = spec.name, spec
        return member

    @property
    def is_sided(self) -> bool:
        """Whether it is graded for each of the patient's sides."""
        return any(condition.family is self and condition.side is not None for condition in Condition)

    @property
    def shown_on(self) -> tuple[Plane, ...]:
        """All planes, those that it is graded on first."""
        others = (plane for plane in reversed(Plane) if plane not in self.spec.graded_on)
        return (*self.spec.graded_on, *others)


class Condition(Enum):
    """A graded condition, in the order of `train.csv`.

    Attributes:
        family: the condition without its side.
        side: the patient's side, or None for a condition of the midline.
    """

    SPINAL_CANAL_STENOSIS = "spinal_canal_stenosis", Family.CANAL, None
    LEFT_NEURAL_FORAMINAL_NARROWING = "left_neural_foraminal_narrowing", Family.FORAMINAL, Side.LEFT
    RIGHT_NEURAL_FORAMINAL_NARROWING = "right_neural_foraminal_narrowing", Family.FORAMINAL, Side.RIGHT
    LEFT_SUBARTICULAR_STENOSIS = "left_subarticular_stenosis", Family.SUBARTICULAR, Side.LEFT
    RIGHT_SUBARTICULAR_STENOSIS = "right_subarticular_stenosis", Family.SUBARTICULAR, Side.RIGHT

    _value_: str
    family: Family
    side: Side | None

    def __new__(cls, value: str, *attributes: Any) -> Self:
        """Makes a member; a call with the value alone looks one up."""
        member = object.__new__(cls)
        member._value_ = value
        member.family, member.side = attributes
        return member

    @property
    def title(self) -> str:
        """The spelling in a report: `Left subarticular stenosis`."""
        return self.value.replace("_", " ").capitalize()

    @property
    def mirrored(self) -> "Condition":
        """The same condition on the patient's other side; one of the midline maps to itself."""
        return next(
            other
            for other in Condition
            if other.family is self.family and (other is not self or self.side is None)
        )


class Level(Enum):
    """A disc level, from head to foot."""

    L1_L2 = "l1_l2"
    L2_L3 = "l2_l3"
    L3_L4 = "l3_l4"
    L4_L5 = "l4_l5"
    L5_S1 = "l5_s1"

    @property
    def title(self) -> str:
        """The spelling in a report: `L1/L2`."""
        return self.value.replace("_", "/").upper()


class Severity(IntEnum):
    """A grade; the value is the column of every probability array."""

    NORMAL_MILD = 0
    MODERATE = 1
    SEVERE = 2

    @property
    def column(self) -> str:
        """The column name in a submission."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """The spelling in `train.csv`."""
        return _SEVERITY_TITLES[self]

    @property
    def weight(self) -> float:
        """The sample weight in the competition metric: 1, 2 or 4."""
        return float(2**self.value)


_SEVERITY_TITLES = {
    Severity.NORMAL_MILD: "Normal/Mild",
    Severity.MODERATE: "Moderate",
    Severity.SEVERE: "Severe",
}


class Flag(Enum):
    """A limitation of the answer for a finding. The order is that of the flag arrays."""

    NO_SAGITTAL_T1 = "no_sagittal_t1"
    NO_SAGITTAL_T2 = "no_sagittal_t2"
    NO_AXIAL_T2 = "no_axial_t2"
    NO_LANDMARK = "no_landmark"
    PRIOR_ONLY = "prior_only"
    LEVEL_SHIFT = "level_shift"


#: The flag of each plane's absence.
PLANE_FLAGS = {
    Plane.SAGITTAL_T1: Flag.NO_SAGITTAL_T1,
    Plane.SAGITTAL_T2: Flag.NO_SAGITTAL_T2,
    Plane.AXIAL_T2: Flag.NO_AXIAL_T2,
}
#: The label of a finding that nobody graded.
MISSING_LABEL = -1


@dataclass(frozen=True)
class Finding:
    """A condition at a level: a row of the submission."""

    condition: Condition
    level: Level

    @property
    def name(self) -> str:
        """The column name in `train.csv`, e.g. `spinal_canal_stenosis_l1_l2`."""
        return f"{self.condition.value}_{self.level.value}"

    @property
    def title(self) -> str:
        """The spelling in a report: `Left subarticular stenosis L4/L5`."""
        return f"{self.condition.title} {self.level.title}"

    @property
    def mirrored(self) -> "Finding":
        """The same finding on the patient's other side; one of the midline maps to itself."""
        return Finding(self.condition.mirrored, self.level)


#: All findings, condition by condition and level by level: the row order of every array.
FINDINGS: tuple[Finding, ...] = tuple(Finding(condition, level) for condition in Condition for level in Level)
NUM_LEVELS = len(Level)
NUM_FINDINGS = len(FINDINGS)
NUM_SEVERITIES = len(Severity)
_INDEX_OF_FINDING = {finding: index for index, finding in enumerate(FINDINGS)}
_FINDING_OF_NAME = {finding.name: finding for finding in FINDINGS}


def finding_index(condition: Condition, level: Level) -> int:
    """Returns the row, 0 to 24, of a condition at a level.

    >>> finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L5_S1)
    4
    """
    return _INDEX_OF_FINDING[Finding(condition, level)]


def mirror_indices() -> tuple[int, ...]:
    """Returns for each of the 25 rows the row of the other side."""
    return tuple(_INDEX_OF_FINDING[finding.mirrored] for finding in FINDINGS)


def row_id(study_id: str, finding: Finding) -> str:
    """Returns a submission's row id.

    >>> row_id("4003253", FINDINGS[0])
    '4003253_spinal_canal_stenosis_l1_l2'
    """
    return f"{study_id}_{finding.name}"


def parse_row_id(text: str) -> tuple[str, Finding]:
    """Splits a row id into study id and finding.

    >>> parse_row_id("a_b_spinal_canal_stenosis_l1_l2")[0]
    'a_b'

    Raises:
        ValueError: the text does not end in one of the 25 names, or names no study.
    """
    for name, finding in _FINDING_OF_NAME.items():
        if text.endswith(f"_{name}") and len(text) > len(name) + 1:
            return text[: -len(name) - 1], finding
    raise ValueError(
        "A row id must read <study_id>_<condition>_<level>, such as "
        f"4003253_{FINDINGS[0].name}. Received: {text!r}."
    )


def _snake_case(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def _parse(kind: type[_Member], text: str, spellings: dict[str, _Member]) -> _Member:
    member = spellings.get(_snake_case(text))
    if member is None:
        allowed = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"{kind.__name__} must be one of {allowed}. Received: {text!r}.")
    return member


def parse_condition(text: str) -> Condition:
    """Reads `spinal_canal_stenosis` or `Spinal Canal Stenosis`.

    >>> parse_condition("Left Neural Foraminal Narrowing").side
    <Side.LEFT: 'left'>
    """
    return _parse(Condition, text, {condition.value: condition for condition in Condition})


def parse_level(text: str) -> Level:
    """Reads `l1_l2` or `L1/L2`."""
    return _parse(Level, text, {level.value: level for level in Level})


def parse_severity(text: str) -> Severity:
    """Reads `Normal/Mild` or `normal_mild`."""
    return _parse(Severity, text, {severity.column: severity for severity in Severity})


def parse_plane(text: str) -> Plane:
    """Reads `sagittal_t2` or a series description such as `Sagittal T2/STIR`."""
    spellings = {_snake_case(plane.series_description): plane for plane in Plane}
    spellings.update({plane.value: plane for plane in Plane})
    return _parse(Plane, text, spellings)
