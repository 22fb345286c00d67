"""FHIR bundle, validated with `fhir.resources` and compared with `results.json`."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.dicom.study import Study
from lumbar_tf.interop.fhir import make_fhir_bundle, write_fhir
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.labels import FINDINGS, Side
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import StudyFindings, result_to_json
from tests.interop import hospital
from tests.interop.hospital_study import NO_AXIAL, NO_IMAGE, make_result, mirror, read_lumbar_study

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATERALITY, LEFT, RIGHT = "272741003", "7771000", "24028007"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_lumbar_study(hospital.write_hospital_export(tmp_path_factory.mktemp("disc")).root)


@pytest.fixture(scope="module")
def result(study: Study) -> StudyFindings:
    return make_result(study)


@pytest.fixture(scope="module")
def bundle(study: Study, result: StudyFindings) -> dict[str, Any]:
    return make_fhir_bundle(find_references(study), result, model="7", issued=NOW)


def _of_type(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [
        entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind
    ]  # fmt: skip


def _parts(observation: dict[str, Any]) -> dict[str, Any]:
    """Returns the value of each component by its code."""
    found = {}
    for component in observation["component"]:
        (coding,) = component["code"]["coding"]
        value = component.get("valueQuantity", {}).get("value")
        found[coding["code"]] = (
            value if value is not None else component["valueCodeableConcept"]["coding"][0]["code"]
        )
    return found


def test_fhir_resources_accepts_every_resource(bundle: dict[str, Any]) -> None:
    # Version 8 has R4B, whose resources of these types are those of R4.
    library = pytest.importorskip("fhir.resources.R4B.bundle")
    read = library.Bundle.model_validate(json.loads(json.dumps(bundle)))
    assert len(read.entry) == len(FINDINGS) + 2


def test_fhir_resources_rejects_an_observation_without_a_code(bundle: dict[str, Any]) -> None:
    library = pytest.importorskip("fhir.resources.R4B.bundle")
    broken = json.loads(json.dumps(bundle))
    del broken["entry"][1]["resource"]["code"]
    with pytest.raises(ValueError, match="code"):
        library.Bundle.model_validate(broken)


def test_every_reference_resolves_to_an_entry(bundle: dict[str, Any]) -> None:
    places = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(places)) == len(places)
    (report,) = _of_type(bundle, "DiagnosticReport")
    assert [result["reference"] for result in report["result"]] == places[1 : 1 + len(FINDINGS)]
    for observation in _of_type(bundle, "Observation"):
        assert observation["device"]["reference"] in places


def test_the_numbers_equal_those_of_results_json(bundle: dict[str, Any], result: StudyFindings) -> None:
    pairs = zip(_of_type(bundle, "Observation"), result_to_json(result)["findings"], strict=True)
    for row, (observation, found) in enumerate(pairs):
        parts = _parts(observation)
        for name in ("normal_mild", "moderate", "severe"):
            assert parts[f"P_{name.upper()}"] == found["probability"][name]
        assert [parts["P_SEVERE_LOW"], parts["P_SEVERE_HIGH"]] == found["interval"]["severe"]
        assert ("valueCodeableConcept" in observation) == (row != NO_IMAGE)
        assert ("dataAbsentReason" in observation) == (row == NO_IMAGE)
        if row == NO_AXIAL:
            assert parts["LIMITATION"] == "NO_AXIAL_T2"


def test_prediction_sets_are_components_with_their_coverage(study: Study, result: StudyFindings) -> None:
    sets = np.resize(np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1]], np.bool_), (len(FINDINGS), 3))
    with_sets = replace(result, prediction_set=sets, set_coverage=0.9)
    bundle = make_fhir_bundle(find_references(study), with_sets, model="7", issued=NOW)
    pytest.importorskip("fhir.resources.R4B.bundle").Bundle.model_validate(json.loads(json.dumps(bundle)))
    codes = ("NORMAL_MILD", "6736007", "24484000")
    for observation, inside in zip(_of_type(bundle, "Observation"), sets, strict=True):
        found = [
            component["valueCodeableConcept"]["coding"][0]["code"]
            for component in observation["component"]
            if component["code"]["coding"][0]["code"] == "PREDICTION_SET"
        ]
        assert found == [code for code, is_inside in zip(codes, inside, strict=True) if is_inside]
        assert _parts(observation).get("SET_COVERAGE") == (0.9 if inside.any() else None)


@pytest.mark.parametrize("language", Language)
def test_the_conclusion_starts_with_the_impression(
    study: Study, result: StudyFindings, language: Language
) -> None:
    source = find_references(study)
    bundle = make_fhir_bundle(source, result, model="7", issued=NOW, language=language)
    (report,) = _of_type(bundle, "DiagnosticReport")
    impression, _, remarks = report["conclusion"].partition("\nResearch use, not a medical device.")
    assert impression == make_impression(result, language)
    assert "model 7" in remarks


def test_sides_are_coded_and_a_mirrored_study_has_them_swapped(
    study: Study, result: StudyFindings, bundle: dict[str, Any]
) -> None:
    other_study, other_result = mirror(study, result)
    other = make_fhir_bundle(find_references(other_study), other_result, model="7", issued=NOW)

    def severe(bundle: dict[str, Any]) -> dict[tuple[str, str, str | None], float]:
        found = {}
        for observation in _of_type(bundle, "Observation"):
            parts = _parts(observation)
            key = (observation["code"]["coding"][0]["code"], parts["DISC_LEVEL"], parts.get(LATERALITY))
            found[key] = parts["P_SEVERE"]
        return found

    here, there = severe(bundle), severe(other)
    swap = {LEFT: RIGHT, RIGHT: LEFT, None: None}
    assert len(here) == len(FINDINGS)
    assert {(finding, level, swap[side]): value for (finding, level, side), value in here.items()} == there
    for observation, finding in zip(_of_type(bundle, "Observation"), FINDINGS, strict=True):
        side = finding.condition.side
        assert _parts(observation).get(LATERALITY) == {Side.LEFT: LEFT, Side.RIGHT: RIGHT, None: None}[side]


def test_the_bundle_contains_no_patient_attribute_but_the_id(
    study: Study, result: StudyFindings, tmp_path: Path
) -> None:
    write_fhir(tmp_path / "f.json", find_references(study), result, model="7")
    text = (tmp_path / "f.json").read_text()
    (report,) = _of_type(json.loads(text), "DiagnosticReport")
    assert report["status"] == "preliminary" and "not a medical device" in report["conclusion"]
    assert report["subject"]["identifier"]["value"] == hospital.IDENTITY["PatientID"]
    assert report["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{hospital.LUMBAR_STUDY}"
    for keyword, value in hospital.IDENTITY.items():
        assert (value in text) == (keyword == "PatientID")
    assert "Musterfrau" not in text and "2024" not in text
