"""Codes of findings, sites, levels and grades in DICOM and FHIR results.

SNOMED CT and LOINC codes are taken from published lists. Concepts without a published code have a code of the
package's own scheme, `99LUMBAR`, which this file defines completely. A comment gives the source of each code;
CID is a context group of DICOM's content mapping resource (PS3.16).
"""

from lumbar_tf.labels import (
    FINDINGS,
    Code,
    CodingScheme,
    Condition,
    Family,
    Finding,
    Flag,
    Level,
    Severity,
    Side,
)


def _own(value: str, meaning: str) -> Code:
    return Code(value, CodingScheme.OWN, meaning)


#: CID 100. The general code, since the reader does not keep the examination's own.
PROCEDURE = Code("25056-3", CodingScheme.LOINC, "MRI unspecified body region")
LATERALITY = Code("272741003", CodingScheme.SNOMED, "Laterality")
#: Dimensionless number; UCUM puts the annotation in braces.
RATIO = Code("{ratio}", CodingScheme.UCUM, "ratio")
PERCENT = Code("%", CodingScheme.UCUM, "percent")

MOST_PROBABLE = _own("GRADE", "Most probable grade")
LIMITATION = _own("LIMITATION", "What the answer had to do without")
DISC_LEVEL = _own("DISC_LEVEL", "Disc level")
PROBABILITY_SET = _own("PROBABILITY_SET", "Calibrated probabilities of the grades")
#: Its value is a grade; there is one item for each grade of the set.
PREDICTION_SET = _own("PREDICTION_SET", "Grade in the prediction set")
SET_COVERAGE = _own("SET_COVERAGE", "Probability that the prediction set contains a reader's grade")

#: CID 244.
_SIDES = {
    Side.LEFT: Code("7771000", CodingScheme.SNOMED, "Left"),
    Side.RIGHT: Code("24028007", CodingScheme.SNOMED, "Right"),
}
#: CID 1000 to 1003.
_LEVELS = {
    Level.L1_L2: Code("243920003", CodingScheme.SNOMED, "Level of L1/L2 intervertebral disc"),
    Level.L2_L3: Code("243921004", CodingScheme.SNOMED, "Level of L2/L3 intervertebral disc"),
    Level.L3_L4: Code("243922006", CodingScheme.SNOMED, "Level of L3/L4 intervertebral disc"),
    Level.L4_L5: Code("243923001", CodingScheme.SNOMED, "Level of L4/L5 intervertebral disc"),
    Level.L5_S1: Code("243927000", CodingScheme.SNOMED, "Level of L5/S1 intervertebral disc"),
}
#: CID 3716 has moderate and severe; it has two grades for "normal or mild".
_GRADES = {
    Severity.NORMAL_MILD: _own("NORMAL_MILD", "Normal or mild"),
    Severity.MODERATE: Code("6736007", CodingScheme.SNOMED, "Moderate"),
    Severity.SEVERE: Code("24484000", CodingScheme.SNOMED, "Severe"),
}
_PROBABILITIES = {
    Severity.NORMAL_MILD: _own("P_NORMAL_MILD", "Calibrated probability of normal or mild"),
    Severity.MODERATE: _own("P_MODERATE", "Calibrated probability of moderate"),
    Severity.SEVERE: _own("P_SEVERE", "Calibrated probability of severe"),
}
_LOWER = {
    Severity.NORMAL_MILD: _own("P_NORM_MILD_LOW", "Lower bound of the probability of normal or mild"),
    Severity.MODERATE: _own("P_MODERATE_LOW", "Lower bound of the probability of moderate"),
    Severity.SEVERE: _own("P_SEVERE_LOW", "Lower bound of the probability of severe"),
}
_UPPER = {
    Severity.NORMAL_MILD: _own("P_NORM_MILD_HIGH", "Upper bound of the probability of normal or mild"),
    Severity.MODERATE: _own("P_MODERATE_HIGH", "Upper bound of the probability of moderate"),
    Severity.SEVERE: _own("P_SEVERE_HIGH", "Upper bound of the probability of severe"),
}
#: Part of a code and of its meaning.
_SHORT_GRADES = {
    Severity.NORMAL_MILD: ("NRM", "normal/mild"),
    Severity.MODERATE: ("MOD", "moderate"),
    Severity.SEVERE: ("SEV", "severe"),
}
_FLAGS = {
    Flag.NO_SAGITTAL_T1: _own("NO_SAGITTAL_T1", "Answered without sagittal T1"),
    Flag.NO_SAGITTAL_T2: _own("NO_SAGITTAL_T2", "Answered without sagittal T2"),
    Flag.NO_AXIAL_T2: _own("NO_AXIAL_T2", "Answered without axial T2"),
    Flag.NO_LANDMARK: _own("NO_LANDMARK", "No level point"),
    Flag.PRIOR_ONLY: _own("PRIOR_ONLY", "Prior only: no image was looked at"),
    Flag.LEVEL_SHIFT: _own("LEVEL_SHIFT", "The level may be its neighbour"),
}


def side_code(side: Side) -> Code:
    """Returns the code of a side of the patient."""
    return _SIDES[side]


def level_code(level: Level) -> Code:
    """Returns the code of a disc level."""
    return _LEVELS[level]


def site_code(condition: Condition) -> Code:
    """Returns the code of a condition's anatomic site, without side and level."""
    return condition.family.spec.site


def finding_code(condition: Condition) -> Code:
    """Returns the code of a condition, without side and level."""
    return condition.family.spec.finding


def grade_code(severity: Severity) -> Code:
    """Returns the code of a grade."""
    return _GRADES[severity]


def probability_code(severity: Severity) -> Code:
    """Returns the code of the calibrated probability of a grade."""
    return _PROBABILITIES[severity]


def finding_probability_code(finding: Finding, severity: Severity) -> Code:
    """Returns the code of the calibrated probability of a grade of one finding, which its meaning names.

    The code value consists of the grade, the initials of the condition and the level.

    >>> from lumbar_tf.labels import FINDINGS
    >>> code = finding_probability_code(FINDINGS[8], Severity.SEVERE)
    >>> code.value, code.meaning
    ('P_SEV_LNFN_L4L5', 'Left neural foraminal narrowing L4/L5, P(severe)')
    """
    grade, text = _SHORT_GRADES[severity]
    initials = "".join(word[0] for word in finding.condition.value.split("_"))
    level = finding.level.value.replace("_", "")
    return _own(f"P_{grade}_{initials}_{level}".upper(), f"{finding.title}, P({text})")


def bound_codes(severity: Severity) -> tuple[Code, Code]:
    """Returns the codes of the lower and the upper bound of a grade's probability."""
    return _LOWER[severity], _UPPER[severity]


def flag_code(flag: Flag) -> Code:
    """Returns the code of a limitation of a finding."""
    return _FLAGS[flag]


def own_codes() -> tuple[Code, ...]:
    """Returns all codes of the scheme 99LUMBAR."""
    tables = (_GRADES, _PROBABILITIES, _LOWER, _UPPER, _FLAGS)
    codes = [MOST_PROBABLE, LIMITATION, DISC_LEVEL, PROBABILITY_SET, PREDICTION_SET, SET_COVERAGE]
    codes.extend(code for family in Family for code in (family.spec.site, family.spec.finding))
    codes.extend(code for table in tables for code in table.values())
    codes.extend(finding_probability_code(finding, severity) for finding in FINDINGS for severity in Severity)
    return tuple(code for code in codes if code.scheme is CodingScheme.OWN)
