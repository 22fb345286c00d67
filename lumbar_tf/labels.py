"""The vocabulary: planes, conditions, levels, severities and row ids.

Every other module takes these names from here. The spellings are those of the RSNA 2024
Lumbar Spine Degenerative Classification tables, of which two are in use: `train.csv` writes
`spinal_canal_stenosis` and `l1_l2`, `train_label_coordinates.csv` writes `Spinal Canal Stenosis`
and `L1/L2`. Both are read; snake case is written.
"""

import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeVar

_Member = TypeVar("_Member", bound=Enum)


class Plane(Enum):
    """An imaging plane and weighting, one grader's input."""

    SAGITTAL_T1 = "sagittal_t1"
    SAGITTAL_T2 = "sagittal_t2"
    AXIAL_T2 = "axial_t2"

    @property
    def series_description(self) -> str:
        """The competition's spelling in `*_series_descriptions.csv`."""
        return _SERIES_DESCRIPTIONS[self]

    @property
    def is_sagittal(self) -> bool:
        """Whether slices are stacked from side to side."""
        return self is not Plane.AXIAL_T2


_SERIES_DESCRIPTIONS = {
    Plane.SAGITTAL_T1: "Sagittal T1",
    Plane.SAGITTAL_T2: "Sagittal T2/STIR",
    Plane.AXIAL_T2: "Axial T2",
}


class Side(Enum):
    """The patient's side. In LPS coordinates left is +x."""

    LEFT = "left"
    RIGHT = "right"


class Family(Enum):
    """A kind of finding with both sides pooled, as the competition metric scores it."""

    CANAL = "canal"
    FORAMINAL = "foraminal"
    SUBARTICULAR = "subarticular"


class Condition(Enum):
    """One of the five graded conditions, in the order of `train.csv`."""

    SPINAL_CANAL_STENOSIS = "spinal_canal_stenosis"
    LEFT_NEURAL_FORAMINAL_NARROWING = "left_neural_foraminal_narrowing"
    RIGHT_NEURAL_FORAMINAL_NARROWING = "right_neural_foraminal_narrowing"
    LEFT_SUBARTICULAR_STENOSIS = "left_subarticular_stenosis"
    RIGHT_SUBARTICULAR_STENOSIS = "right_subarticular_stenosis"

    @property
    def title(self) -> str:
        """How a report writes it: `Left subarticular stenosis`."""
        return self.value.replace("_", " ").capitalize()

    @property
    def family(self) -> Family:
        """The condition without its side."""
        return _FAMILIES[self]

    @property
    def side(self) -> Side | None:
        """The patient's side, or None for the canal."""
        for side in Side:
            if self.value.startswith(side.value):
                return side
        return None


_FAMILIES = {
    Condition.SPINAL_CANAL_STENOSIS: Family.CANAL,
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: Family.FORAMINAL,
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: Family.FORAMINAL,
    Condition.LEFT_SUBARTICULAR_STENOSIS: Family.SUBARTICULAR,
    Condition.RIGHT_SUBARTICULAR_STENOSIS: Family.SUBARTICULAR,
}


class Level(Enum):
    """A disc level, from head to foot."""

    L1_L2 = "l1_l2"
    L2_L3 = "l2_l3"
    L3_L4 = "l3_l4"
    L4_L5 = "l4_l5"
    L5_S1 = "l5_s1"

    @property
    def title(self) -> str:
        """How a report writes it: `L1/L2`."""
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
    """What an answer for a finding had to do without. The order is that of the flag arrays."""

    NO_SAGITTAL_T1 = "no_sagittal_t1"
    NO_SAGITTAL_T2 = "no_sagittal_t2"
    NO_AXIAL_T2 = "no_axial_t2"
    NO_LANDMARK = "no_landmark"
    PRIOR_ONLY = "prior_only"
    LEVEL_SHIFT = "level_shift"


#: What says that a plane is missing.
PLANE_FLAGS = {
    Plane.SAGITTAL_T1: Flag.NO_SAGITTAL_T1,
    Plane.SAGITTAL_T2: Flag.NO_SAGITTAL_T2,
    Plane.AXIAL_T2: Flag.NO_AXIAL_T2,
}
#: The label of a finding that nobody graded.
MISSING_LABEL = -1


@dataclass(frozen=True)
class Finding:
    """One condition at one level: a row of the submission."""

    condition: Condition
    level: Level

    @property
    def name(self) -> str:
        """The column name in `train.csv`, e.g. `spinal_canal_stenosis_l1_l2`."""
        return f"{self.condition.value}_{self.level.value}"

    @property
    def mirrored(self) -> "Finding":
        """The same finding on the patient's other side; the canal maps to itself."""
        return Finding(_MIRRORED[self.condition], self.level)


_MIRRORED = {
    Condition.SPINAL_CANAL_STENOSIS: Condition.SPINAL_CANAL_STENOSIS,
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
    Condition.LEFT_SUBARTICULAR_STENOSIS: Condition.RIGHT_SUBARTICULAR_STENOSIS,
    Condition.RIGHT_SUBARTICULAR_STENOSIS: Condition.LEFT_SUBARTICULAR_STENOSIS,
}

#: All 25 findings, condition by condition and level by level: the row order of every array.
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
        allowed = ", ".join(str(each.value) for each in kind)
        raise ValueError(f"{kind.__name__} must be one of {allowed}. Received: {text!r}.")
    return member


def parse_condition(text: str) -> Condition:
    """Reads `spinal_canal_stenosis` or `Spinal Canal Stenosis`.

    >>> parse_condition("Left Neural Foraminal Narrowing").side
    <Side.LEFT: 'left'>
    """
    return _parse(Condition, text, {each.value: each for each in Condition})


def parse_level(text: str) -> Level:
    """Reads `l1_l2` or `L1/L2`."""
    return _parse(Level, text, {each.value: each for each in Level})


def parse_severity(text: str) -> Severity:
    """Reads `Normal/Mild` or `normal_mild`."""
    return _parse(Severity, text, {each.column: each for each in Severity})


def parse_plane(text: str) -> Plane:
    """Reads `sagittal_t2` or a series description such as `Sagittal T2/STIR`."""
    spellings = {_snake_case(each.series_description): each for each in Plane}
    spellings.update({each.value: each for each in Plane})
    return _parse(Plane, text, spellings)
