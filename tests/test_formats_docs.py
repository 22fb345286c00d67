"""Codes in `docs/formats.md` are those that the package writes."""

import re
from pathlib import Path

from lumbar_tf.interop.codes import (
    finding_code,
    finding_probability_code,
    grade_code,
    level_code,
    own_codes,
    side_code,
    site_code,
)
from lumbar_tf.labels import FINDINGS, OWN_SCHEME_UID, CodingScheme, Condition, Level, Severity, Side

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")


def test_every_code_is_in_the_document_and_every_code_of_the_document_is_written() -> None:
    written = {finding_code(condition) for condition in Condition} | {
        site_code(condition) for condition in Condition
    }
    written |= {level_code(level) for level in Level} | {side_code(side) for side in Side}
    written |= {grade_code(severity) for severity in Severity}
    snomed = {code.value for code in written if code.scheme is CodingScheme.SNOMED}
    assert set(re.findall(r"\b\d{7,}\b", TEXT.replace(OWN_SCHEME_UID, ""))) - {"100206310"} == snomed
    own = {code.value: code.meaning for code in own_codes()}
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b|\bGRADE\b|\bLIMITATION\b|\bSUBARTICULAR\b", TEXT))
    # The codes of single findings are described by their form and one example.
    of_findings = {
        finding_probability_code(finding, severity).value for finding in FINDINGS for severity in Severity
    }
    assert named - of_findings == set(own) - of_findings
    (example,) = named & of_findings
    assert f'{example} is "{own[example]}"' in TEXT
    assert {re.sub(r"_[LRS][A-Z]+_L\d[LS]\d$", "_x_y", code) for code in of_findings} == set(
        re.findall(r"P_\w+_x_y", TEXT)
    )
    assert OWN_SCHEME_UID in TEXT


def test_codes_of_one_scheme_differ_and_fit_into_dicom() -> None:
    codes = own_codes()
    assert len({code.value for code in codes}) == len(codes)
    for code in codes:
        # Code Value is an SH, Code Meaning an LO (PS3.3 section 8.8).
        assert len(code.value) <= 16 and len(code.meaning) <= 64
