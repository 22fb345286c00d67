"""FHIR R4 bundle of a study's findings: a DiagnosticReport and one Observation per finding.

Resources are dicts of the FHIR JSON format. The patient is referred to by PatientID and the study by
StudyInstanceUID; the bundle contains no other attribute of the images, such as name or birth date.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lumbar_tf.files import write_json_atomically
from lumbar_tf.interop.codes import (
    DISC_LEVEL,
    LATERALITY,
    LIMITATION,
    PREDICTION_SET,
    PROCEDURE,
    RATIO,
    SET_COVERAGE,
    bound_codes,
    finding_code,
    flag_code,
    grade_code,
    level_code,
    probability_code,
    side_code,
    site_code,
)
from lumbar_tf.interop.report_content import (
    DISCLAIMER,
    MANUFACTURER,
    GradedFinding,
    describe_differences,
    grade_findings,
    software_version,
)
from lumbar_tf.interop.source_references import SourceStudy, derived_uuid
from lumbar_tf.labels import Code
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import StudyFindings

Resource = dict[str, Any]

_CATEGORY = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}]
}
_SECTION = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}
_UNKNOWN = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]
}


def write_fhir(
    path: Path,
    source: SourceStudy,
    result: StudyFindings,
    *,
    model: str,
    language: Language = Language.ENGLISH,
) -> None:
    """Writes the bundle as JSON atomically; see `make_fhir_bundle`."""
    bundle = make_fhir_bundle(source, result, model=model, issued=datetime.now(UTC), language=language)
    write_json_atomically(path, bundle, allow_nan=False)


def make_fhir_bundle(
    source: SourceStudy,
    result: StudyFindings,
    *,
    model: str,
    issued: datetime,
    language: Language = Language.ENGLISH,
) -> Resource:
    """Returns a Bundle of the report, its 25 Observations and the Device that made them.

    Args:
        source: references to patient and study.
        result: findings of the study.
        model: version of the ensemble's bundle.
        issued: time of creation, with a time zone.
        language: language of the impression, the first lines of the conclusion.
    """
    study = source.study_uid
    device = _urn("device", model)
    observations = {_urn(study, model, item.finding.name): item for item in grade_findings(result)}
    note = f"{DISCLAIMER} {result.training_note}"
    impression = make_impression(result, language)
    report = _report(source, list(observations), impression, model=model, issued=issued)
    resources = {
        _urn(study, model, "report"): report,
        **{urn: _observation(source, graded, device, note) for urn, graded in observations.items()},
        device: _device(model, note),
    }
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": issued.isoformat(timespec="seconds"),
        "entry": [{"fullUrl": urn, "resource": resource} for urn, resource in resources.items()],
    }


def _urn(*parts: str) -> str:
    return f"urn:uuid:{derived_uuid('fhir', *parts)}"


def _concept(code: Code, text: str | None = None) -> Resource:
    coding = {"system": code.scheme.uri, "code": code.value, "display": code.meaning}
    return {"coding": [coding], "text": text or code.meaning}


def _ratio(value: float) -> Resource:
    return {"value": value, "unit": RATIO.meaning, "system": RATIO.scheme.uri, "code": RATIO.value}


def _subject(source: SourceStudy) -> Resource:
    """Returns `subject`, or nothing if the source has no PatientID."""
    patient = source.header.get("PatientID")
    if not patient:
        return {}
    identifier: Resource = {"value": patient}
    if issuer := source.header.get("IssuerOfPatientID"):
        identifier["assigner"] = {"display": issuer}
    return {"subject": {"type": "Patient", "identifier": identifier}}


def _study(source: SourceStudy) -> Resource:
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{source.study_uid}"}
    return {"type": "ImagingStudy", "identifier": identifier}


def _report(
    source: SourceStudy, results: list[str], impression: str, *, model: str, issued: datetime
) -> Resource:
    remarks = (DISCLAIMER, f"{MANUFACTURER} {software_version(model)}.", describe_differences(source))
    return {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "category": [_SECTION],
        "code": _concept(PROCEDURE, "MRI of the lumbar spine: stenosis by level"),
        **_subject(source),
        "issued": issued.isoformat(timespec="seconds"),
        "imagingStudy": [_study(source)],
        "result": [{"reference": urn} for urn in results],
        "conclusion": f"{impression}\n{' '.join(remark for remark in remarks if remark)}",
    }


def _observation(source: SourceStudy, graded: GradedFinding, device: str, note: str) -> Resource:
    condition = graded.finding.condition
    value: Resource = {"dataAbsentReason": _UNKNOWN}
    if graded.grade is not None:
        value = {"valueCodeableConcept": _concept(grade_code(graded.grade), graded.grade.title)}
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_CATEGORY],
        "code": _concept(finding_code(condition), graded.title),
        **_subject(source),
        **value,
        "bodySite": _concept(site_code(condition)),
        "device": {"reference": device},
        "derivedFrom": [_study(source)],
        "note": [{"text": note}],
        "component": _components(graded),
    }


def _components(graded: GradedFinding) -> list[Resource]:
    finding = graded.finding
    components = [{"code": _concept(DISC_LEVEL), "valueCodeableConcept": _concept(level_code(finding.level))}]
    if finding.condition.side is not None:
        side = _concept(side_code(finding.condition.side))
        components.append({"code": _concept(LATERALITY), "valueCodeableConcept": side})
    for severity, value in graded.probability.items():
        components.append({"code": _concept(probability_code(severity)), "valueQuantity": _ratio(value)})
    for severity, bounds in graded.bounds.items():
        for code, value in zip(bound_codes(severity), bounds, strict=True):
            components.append({"code": _concept(code), "valueQuantity": _ratio(value)})
    for severity in graded.prediction_set:
        grade = _concept(grade_code(severity), severity.title)
        components.append({"code": _concept(PREDICTION_SET), "valueCodeableConcept": grade})
    if graded.set_coverage is not None:
        components.append({"code": _concept(SET_COVERAGE), "valueQuantity": _ratio(graded.set_coverage)})
    for flag in graded.flags:
        components.append({"code": _concept(LIMITATION), "valueCodeableConcept": _concept(flag_code(flag))})
    return components


def _device(model: str, note: str) -> Resource:
    return {
        "resourceType": "Device",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": MANUFACTURER, "type": "model-name"}],
        "version": [{"value": software_version(model)}],
        "note": [{"text": note}],
    }
