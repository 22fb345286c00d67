"""Content of the structured report, read with highdicom and checked with dciodvfy."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.spatial import ReferenceToImageTransformer
from highdicom.sr import srread
from pydicom.sr.codedict import Code, codes

from lumbar_tf.dicom.study import Study, StudyHeader
from lumbar_tf.interop.dicom_sr import write_sr
from lumbar_tf.interop.fhir import make_fhir_bundle
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.labels import FINDINGS, Condition, Family, Level, Plane, Severity, Side
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import StudyFindings, result_to_json
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym, pseudonymise_study
from tests.interop import hospital
from tests.interop.dciodvfy import find_errors
from tests.interop.hospital_study import (
    NO_AXIAL,
    NO_IMAGE,
    NO_POINT,
    make_result,
    mirror,
    read_lumbar_study,
    stored_slices,
)
from tests.interop.sr_reader import ReadGroup, read_groups

#: Codes of pydicom's dictionary, independent of the package's table.
LEFT, RIGHT = codes.SCT.Left, codes.SCT.Right
_PROBABILITIES = ("P_NORMAL_MILD", "P_MODERATE", "P_SEVERE")
LEVELS = ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
ANNOTATED = {
    Family.CANAL: Plane.SAGITTAL_T2,
    Family.FORAMINAL: Plane.SAGITTAL_T1,
    Family.SUBARTICULAR: Plane.AXIAL_T2,
}


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hospital.write_hospital_export(tmp_path_factory.mktemp("disc")).root


@pytest.fixture(scope="module")
def study(disc: Path) -> Study:
    return read_lumbar_study(disc)


@pytest.fixture(scope="module")
def result(study: Study) -> StudyFindings:
    return make_result(study)


@pytest.fixture(scope="module")
def path(study: Study, result: StudyFindings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sr") / "sr.dcm"
    write_sr(path, find_references(study), result, model="7")
    return path


def _groups(path: Path) -> list[ReadGroup]:
    """Returns the groups in the order of the findings."""
    groups = {group.name: group for group in read_groups(path)}
    return [groups[f"{finding.condition.title} {finding.level.title}"] for finding in FINDINGS]


def test_dciodvfy_reports_no_error(path: Path) -> None:
    assert find_errors(path) == []


def _pixel(group: ReadGroup) -> tuple[str, int | None, float, float] | None:
    if not group.is_drawn:
        return None
    point = group.drawn_point
    return point.sop_instance_uid, point.frame_number, round(point.column, 2), round(point.row, 2)


def test_the_numbers_are_those_of_results_json_in_percent(path: Path, result: StudyFindings) -> None:
    def in_percent(probability: float) -> float:
        # Decimal digits of the JSON number, moved by two places.
        return float(Decimal(repr(probability)) * 100)

    for group, found in zip(_groups(path), result_to_json(result)["findings"], strict=True):
        values = group.percents
        for severity, name in zip(Severity, _PROBABILITIES, strict=True):
            assert values[name] == in_percent(found["probability"][severity.column])
        bounds = [in_percent(bound) for bound in found["interval"]["severe"]]
        assert [values["P_SEVERE_LOW"], values["P_SEVERE_HIGH"]] == bounds
        assert group.units == {"%"}
        assert len(values) == 9  # and the competition's scores are not among them


def test_a_drawn_finding_has_one_measurement_that_names_it_and_its_most_probable_grade(
    path: Path, result: StudyFindings
) -> None:
    words = {Severity.NORMAL_MILD: "normal/mild", Severity.MODERATE: "moderate", Severity.SEVERE: "severe"}
    for row, (group, finding) in enumerate(zip(_groups(path), FINDINGS, strict=True)):
        if not group.is_drawn:
            continue
        best = Severity(int(result.probability[row].argmax()))
        point = group.drawn_point
        side = finding.condition.side
        assert point.name == f"{finding.condition.title} {finding.level.title}, P({words[best]})"
        assert point.name.startswith({None: "Spinal", Side.LEFT: "Left", Side.RIGHT: "Right"}[side])
        assert point.percent == max(group.percents[name] for name in _PROBABILITIES)
        assert point.percent == pytest.approx(100 * result.probability[row, best], abs=1e-4)


def test_findings_that_no_image_shows_are_qualitative_evaluations_with_all_numbers(path: Path) -> None:
    groups = _groups(path)
    assert [row for row, group in enumerate(groups) if not group.is_drawn] == [NO_POINT, NO_IMAGE]
    for group in (groups[NO_POINT], groups[NO_IMAGE]):
        assert group.group.get_measurements() == []
        assert len(group.percents) == 9


def test_each_drawn_point_is_the_pixel_of_the_level_point_on_the_nearest_slice_of_one_series(
    path: Path, disc: Path, result: StudyFindings
) -> None:
    # Sagittal T2 shows every point; its file has several frames.
    slices = stored_slices(disc)[Plane.SAGITTAL_T2]
    for row, group in enumerate(_groups(path)):
        if not group.is_drawn:
            continue
        point = group.drawn_point
        (stored,) = [
            each
            for each in slices
            if (each.sop_instance_uid, each.frame_number) == (point.sop_instance_uid, point.frame_number)
        ]
        level = result.landmarks[row].astype(float)
        assert stored.distance(level) == pytest.approx(min(each.distance(level) for each in slices), abs=1e-4)
        # Image coordinates of SCOORD: the centre of the first pixel is 0.5, 0.5.
        to_pixel = ReferenceToImageTransformer(
            image_position=stored.position.tolist(),
            image_orientation=stored.orientation.tolist(),
            pixel_spacing=stored.spacing,
        )
        ((column, row_of_pixel, _),) = to_pixel(level[np.newaxis])
        assert (point.column, point.row) == pytest.approx((column, row_of_pixel), abs=1e-3)


def test_each_measurement_group_has_the_codes_of_its_finding(path: Path) -> None:
    dictionary = dict(zip(LEVELS, _level_codes(), strict=True))
    for group, finding in zip(_groups(path), FINDINGS, strict=True):
        (site,) = group.group.finding_sites
        assert site.topographical_modifier == dictionary[finding.level.title]
        side = finding.condition.side
        assert site.laterality == {None: None, Side.LEFT: LEFT, Side.RIGHT: RIGHT}[side]
        if finding.condition.family is Family.CANAL:
            assert site.value == Code("61853006", "SCT", "")
            assert group.group.finding_type.value == "76107001"


def _level_codes() -> list:
    names = ("L1L2", "L2L3", "L3L4", "L4L5", "L5S1")
    return [getattr(codes.SCT, f"LevelOf{name}IntervertebralDisc") for name in names]


def test_points_are_the_landmarks_in_the_frame_of_reference_of_the_source(
    path: Path, result: StudyFindings
) -> None:
    for row, group in enumerate(_groups(path)):
        points = group.level_points
        if row == NO_POINT:
            assert points == []
            continue
        assert len(points) == len(Severity)
        for item in points:
            assert item.GraphicType == "POINT"
            np.testing.assert_array_equal(np.float32(item.GraphicData), result.landmarks[row])
            assert item.ReferencedFrameOfReferenceUID == f"{hospital.LUMBAR_STUDY}.100"


def test_a_report_without_points_is_a_text_with_all_numbers(
    study: Study, result: StudyFindings, path: Path, tmp_path: Path
) -> None:
    pointless = replace(result, landmarks=np.full_like(result.landmarks, np.nan))
    write_sr(tmp_path / "sr.dcm", find_references(study), pointless, model="7")
    assert find_errors(tmp_path / "sr.dcm") == []
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    # Not the title of reports that viewers open at their first measurement.
    (title,) = report.ConceptNameCodeSequence
    assert (title.CodeValue, pydicom.dcmread(path).ConceptNameCodeSequence[0].CodeValue) == (
        "18748-4",
        "126000",
    )
    assert "Imaging Measurements" not in str(report)
    assert result.training_note in [item.get("TextValue") for item in report.ContentSequence]
    groups = _groups(tmp_path / "sr.dcm")
    assert [group.percents for group in groups] == [group.percents for group in _groups(path)]
    assert not any(group.is_drawn or group.level_points for group in groups)


def test_a_point_far_from_all_images_is_not_drawn_and_keeps_its_coordinates(
    study: Study, result: StudyFindings, tmp_path: Path
) -> None:
    points = result.landmarks.copy()
    points[0] += np.array([500, 0, 0], np.float32)
    far = replace(result, landmarks=points)
    write_sr(tmp_path / "sr.dcm", find_references(study), far, model="7")
    group = _groups(tmp_path / "sr.dcm")[0]
    assert not group.is_drawn and group.group.get_measurements() == []
    np.testing.assert_array_equal(np.float32(group.level_points[0].GraphicData), points[0])
    assert find_errors(tmp_path / "sr.dcm") == []


def test_each_finding_refers_to_the_nearest_slices(path: Path, disc: Path, result: StudyFindings) -> None:
    stored = stored_slices(disc)
    for row, (group, finding) in enumerate(zip(_groups(path), FINDINGS, strict=True)):
        images = [
            (image.referenced_sop_instance_uid, (image.referenced_frame_numbers or [0])[0])
            for image in group.group.source_images
        ]
        if row == NO_POINT:
            assert images == []
            continue
        far = {
            plane: {(e.sop_instance_uid, e.frame_number): e.distance(result.landmarks[row]) for e in slices}
            for plane, slices in stored.items()
        }
        assert images[0] in far[ANNOTATED[finding.condition.family]]
        assert len(images) == len(Plane)
        for distances in far.values():
            (named,) = [distances[image] for image in images if image in distances]
            assert named == pytest.approx(min(distances.values()), abs=1e-4)


def test_the_evidence_lists_every_image_that_was_read(path: Path, disc: Path) -> None:
    report = srread(path)
    expected = {image.sop_instance_uid for slices in stored_slices(disc).values() for image in slices}
    evidence = report.get_evidence()
    assert {str(sop) for _, _, sop, _ in evidence} == expected
    assert {str(study) for study, *_ in evidence} == {hospital.LUMBAR_STUDY}
    by_series = {str(series): str(kind) for _, series, _, kind in evidence}
    assert by_series[f"{hospital.LUMBAR_STUDY}.3"] == pydicom.uid.EnhancedMRImageStorage
    assert by_series[f"{hospital.LUMBAR_STUDY}.2"] == pydicom.uid.MRImageStorage


def test_a_mirrored_study_is_reported_on_the_other_side(
    study: Study, result: StudyFindings, path: Path, tmp_path: Path
) -> None:
    other_study, other_result = mirror(study, result)
    write_sr(tmp_path / "sr.dcm", find_references(other_study), other_result, model="7")

    def by_place(file: Path) -> dict[tuple[str, str, str | None], tuple[float, list[float], object]]:
        found = {}
        for group in _groups(file):
            (site,) = group.group.finding_sites
            side = site.laterality.value if site.laterality else None
            points = [list(item.GraphicData) for item in group.level_points][:1]
            key = (group.group.finding_type.value, site.topographical_modifier.value, side)
            found[key] = (group.percents["P_SEVERE"], points[0] if points else [], _pixel(group))
        return found

    here, there = by_place(path), by_place(tmp_path / "sr.dcm")
    swap = {LEFT.value: RIGHT.value, RIGHT.value: LEFT.value, None: None}
    canal = np.nanmedian(result.landmarks[:5, 0])
    for (finding, level, side), (severe, point, pixel) in here.items():
        assert there[finding, level, swap[side]][0] == severe
        # The images are the same, with the sides of the patient swapped.
        assert there[finding, level, swap[side]][2] == pixel
        if point and side is not None:
            # LPS: +x is the patient's left (DICOM PS3.3 section C.7.6.2.1.1).
            assert (point[0] > canal) == (side == "7771000")
            mirrored = there[finding, level, swap[side]][1]
            assert mirrored == pytest.approx([-point[0], *point[1:]], abs=1e-4)


def test_grades_and_limitations_are_coded_and_a_prior_has_no_grade(path: Path, result: StudyFindings) -> None:
    dictionary = {Severity.MODERATE: codes.SCT.Moderate.value, Severity.SEVERE: codes.SCT.Severe.value}
    for row, group in enumerate(_groups(path)):
        coded = {
            evaluation.name.value: evaluation.value.value
            for evaluation in group.group.get_qualitative_evaluations()
        }
        best = Severity(int(result.probability[row].argmax()))
        expected = None if row == NO_IMAGE else dictionary.get(best, "NORMAL_MILD")
        assert coded.get("GRADE") == expected
        flags = {NO_POINT: "NO_LANDMARK", NO_IMAGE: "PRIOR_ONLY", NO_AXIAL: "NO_AXIAL_T2"}
        assert coded.get("LIMITATION") == flags.get(row)


def test_the_report_is_preliminary_unverified_and_names_its_algorithm(path: Path) -> None:
    report = pydicom.dcmread(path)
    assert (report.CompletionFlag, report.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert b"not a medical device" in path.read_bytes()
    group = _groups(path)[0].group
    algorithm = {
        item.name.meaning: item.value for item in group[0].ContentSequence if item.ValueType == "TEXT"
    }
    assert algorithm["Algorithm Name"] == "lumbar_tf"
    assert algorithm["Algorithm Version"].endswith("model 7")


def test_the_report_repeats_patient_and_study_and_no_other_attribute(path: Path) -> None:
    report = pydicom.dcmread(path)
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        assert str(report[keyword].value) == hospital.IDENTITY[keyword]
    assert report.StudyInstanceUID == hospital.LUMBAR_STUDY
    assert report.StudyDate == "20240513"
    text = str(report)
    assert hospital.IDENTITY["InstitutionName"] not in text
    assert hospital.IDENTITY["StudyComments"] not in text
    assert "Zimmer 12" not in text


def test_the_same_result_has_the_same_uid_and_another_result_another_uid(
    study: Study, result: StudyFindings, path: Path, tmp_path: Path
) -> None:
    source = find_references(study)

    def uids(answer: StudyFindings, model: str) -> tuple[str, str]:
        write_sr(tmp_path / "sr.dcm", source, answer, model=model)
        report = pydicom.dcmread(tmp_path / "sr.dcm")
        return report.SOPInstanceUID, report.SeriesInstanceUID

    first = pydicom.dcmread(path)
    assert uids(result, "7") == (first.SOPInstanceUID, first.SeriesInstanceUID)
    changed = replace(result, probability=result.probability[::-1].copy())
    assert uids(changed, "7")[0] != first.SOPInstanceUID
    assert uids(result, "8")[1] != first.SeriesInstanceUID


def test_an_unusual_patient_name_is_kept_and_not_printed(
    study: Study,
    result: StudyFindings,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = StudyHeader(hospital.LUMBAR_STUDY, {"PatientName": "Weißmüller", "PatientID": "ü 7"})
    write_sr(tmp_path / "sr.dcm", find_references(replace(study, header=odd)), result, model="7")
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    assert (str(report.PatientName), report.PatientID) == ("Weißmüller", "ü 7")
    assert find_errors(tmp_path / "sr.dcm") == []
    shown = (*capfd.readouterr(), *(str(warning.message) for warning in recwarn), caplog.text)
    assert not [text for text in shown if "müller" in text or "ü 7" in text]


def test_values_that_dicom_does_not_allow_are_left_out_and_named(
    study: Study, result: StudyFindings, tmp_path: Path
) -> None:
    odd = StudyHeader(hospital.LUMBAR_STUDY, {"PatientID": "7"}, ("PatientName", "StudyDate"))
    source = find_references(replace(study, header=odd))
    write_sr(tmp_path / "sr.dcm", source, result, model="7")
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    assert report.PatientID == "7" and not report.PatientName
    remark = "Values of the source that DICOM does not allow are left out: PatientName, StudyDate."
    assert remark.encode() in (tmp_path / "sr.dcm").read_bytes()
    assert find_errors(tmp_path / "sr.dcm") == []
    bundle = make_fhir_bundle(source, result, model="7", issued=datetime.now(UTC))
    assert remark in bundle["entry"][0]["resource"]["conclusion"]


def test_a_missing_or_invalid_uid_is_replaced_by_one_derived_from_the_source(
    study: Study, result: StudyFindings, tmp_path: Path
) -> None:
    (first, *others) = study.planes[Plane.AXIAL_T2]
    broken = replace(
        study,
        header=StudyHeader("", {}),
        planes={
            Plane.AXIAL_T2: tuple(
                replace(image, origin=replace(first.origin, sop_instance_uid=uid, frame_of_reference_uid=""))
                for image, uid in zip(
                    [first, *others], ["", "no-uid", "1.02", *(f"1.2.3.{n}" for n in range(99))]
                )
            )
        },
    )
    source = find_references(broken)
    uids = [image.sop_instance_uid for image in source.images]
    assert len(set(uids)) == len(uids)
    assert [uid.startswith("2.25.") for uid in uids[:4]] == [True, True, True, False]
    assert len({image.frame_of_reference_uid for image in source.images}) == 1
    assert find_references(broken).images == source.images
    assert source.replaced == {
        "StudyInstanceUID": 1,
        "SOPInstanceUID": 3,
        "FrameOfReferenceUID": len(uids),
    }
    write_sr(tmp_path / "sr.dcm", source, result, model="7")
    assert find_errors(tmp_path / "sr.dcm") == []
    assert b"SOPInstanceUID (3), StudyInstanceUID (1)" in (tmp_path / "sr.dcm").read_bytes()


def test_a_report_of_a_pseudonymised_study_contains_only_pseudonyms(
    study: Study, result: StudyFindings, tmp_path: Path
) -> None:
    key = bytes(range(32))
    hidden = pseudonymise_study(study, key)
    answer = replace(result, study_id=hidden.study_id)
    write_sr(tmp_path / "sr.dcm", find_references(hidden), answer, model="7")
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    name = pseudonym(key, IdKind.PATIENT, hospital.IDENTITY["PatientID"])
    assert (report.PatientID, str(report.PatientName)) == (name, name)
    assert not report.PatientBirthDate and not report.StudyDate and not report.AccessionNumber
    data = (tmp_path / "sr.dcm").read_bytes()
    for secret in (*hospital.IDENTITY.values(), hospital.LUMBAR_STUDY, "20240513", "MRT LWS"):
        assert secret.encode() not in data
    assert find_errors(tmp_path / "sr.dcm") == []


def _with_sets(result: StudyFindings) -> StudyFindings:
    """Returns the result with every kind of set, and none in the second row."""
    kinds = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 0]], np.bool_)
    return replace(result, prediction_set=np.resize(kinds, (len(FINDINGS), 3)), set_coverage=0.9)


def test_prediction_sets_are_coded_with_their_coverage(
    study: Study, result: StudyFindings, path: Path, tmp_path: Path
) -> None:
    with_sets = _with_sets(result)
    write_sr(tmp_path / "sr.dcm", find_references(study), with_sets, model="7")
    assert find_errors(tmp_path / "sr.dcm") == []
    grades = ("NORMAL_MILD", codes.SCT.Moderate.value, codes.SCT.Severe.value)
    assert with_sets.prediction_set is not None
    for group, inside in zip(_groups(tmp_path / "sr.dcm"), with_sets.prediction_set, strict=True):
        found = [
            evaluation.value.value
            for evaluation in group.group.get_qualitative_evaluations()
            if evaluation.name.value == "PREDICTION_SET"
        ]
        assert found == [grade for grade, is_inside in zip(grades, inside, strict=True) if is_inside]
        assert group.percents.get("SET_COVERAGE") == (90.0 if inside.any() else None)
    plain, other = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "sr.dcm")
    assert "PREDICTION_SET" not in str(plain) and "SET_COVERAGE" not in str(plain)
    assert other.SOPInstanceUID != plain.SOPInstanceUID


@pytest.mark.parametrize("language", Language)
def test_the_impression_is_a_text_at_the_top_with_its_language(
    study: Study, result: StudyFindings, path: Path, tmp_path: Path, language: Language
) -> None:
    write_sr(tmp_path / "sr.dcm", find_references(study), result, model="7", language=language)
    assert find_errors(tmp_path / "sr.dcm") == []
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in report.ContentSequence]
    place = names.index("Impression")
    assert names[place + 1 : place + 3] == ["Comment", "Imaging Measurements"]
    item = report.ContentSequence[place]
    assert item.ConceptNameCodeSequence[0].CodeValue == "121073"
    assert item.TextValue.split("\r\n") == make_impression(result, language).split("\n")
    (modifier,) = item.ContentSequence
    assert modifier.RelationshipType == "HAS CONCEPT MOD"
    assert modifier.ConceptCodeSequence[0].CodeValue == language.value
    is_same = report.SOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID
    assert is_same == (language is Language.ENGLISH)


@pytest.mark.parametrize("condition", [Condition.SPINAL_CANAL_STENOSIS])
def test_levels_run_from_head_to_foot(path: Path, condition: Condition) -> None:
    groups = _groups(path)[: len(Level)]
    assert [
        group.group.finding_sites[0].topographical_modifier.meaning.split()[2] for group in groups
    ] == LEVELS
