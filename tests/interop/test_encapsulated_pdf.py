"""Encapsulated PDF document of the summary sheet."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import EncapsulatedPDFStorage
from pypdf import PdfReader

from lumbar_tf.interop.dimse import StoreScu
from lumbar_tf.interop.encapsulated_pdf import make_encapsulated_pdf, write_encapsulated_pdf
from lumbar_tf.interop.output_formats import OutputFormat
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.interop.study_grading import find_results
from lumbar_tf.labels import Level
from lumbar_tf.reports.study_sheet import sheet_pdf
from tests.interop import hospital
from tests.interop.dciodvfy import find_errors
from tests.interop.dicom_nodes import receiver
from tests.interop.hospital_study import make_result, read_lumbar_study, stored_slices


def test_the_document_shows_the_sheet_as_text_and_refers_to_the_slices(tmp_path: Path) -> None:
    disc = hospital.write_hospital_export(tmp_path / "disc").root
    study = read_lumbar_study(disc)
    result = make_result(study)
    path = tmp_path / "document.dcm"
    write_encapsulated_pdf(path, find_references(study), study, result, model="7")
    assert find_errors(path) == []
    document = pydicom.dcmread(path)
    assert document.SOPClassUID == EncapsulatedPDFStorage and document.Modality == "DOC"
    (page,) = PdfReader(BytesIO(document.EncapsulatedDocument[: document.EncapsulatedDocumentLength])).pages
    text = page.extract_text()
    assert f"Study {result.study_id}" in text and "not a medical device" in text
    assert "RIGHT foramina" in text and "LEFT foramina" in text
    assert all(level.title in text for level in Level)
    grade = result.grade_of(0)
    assert grade is not None and f"{result.probability[0, grade]:.0%}".rstrip("%") in text
    expected = {image.sop_instance_uid for slices in stored_slices(disc).values() for image in slices}
    assert {item.ReferencedSOPInstanceUID for item in document.SourceInstanceSequence} == expected
    assert document.StudyInstanceUID == hospital.LUMBAR_STUDY
    assert str(document.PatientName) == hospital.IDENTITY["PatientName"]
    assert document.PatientBirthDate == hospital.IDENTITY["PatientBirthDate"]
    assert document.BurnedInAnnotation == "YES" and document.VerificationFlag == "UNVERIFIED"


def test_the_same_result_gives_the_same_document(tmp_path: Path) -> None:
    study = read_lumbar_study(hospital.write_hospital_export(tmp_path / "disc").root)
    result = make_result(study)
    assert sheet_pdf(study, result) == sheet_pdf(study, result)
    source = find_references(study)
    first, second = (make_encapsulated_pdf(b"%PDF-1.4", source, result, model=model) for model in "77")
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert (
        make_encapsulated_pdf(b"%PDF-1.4", source, result, model="8").SOPInstanceUID != first.SOPInstanceUID
    )


@pytest.mark.parametrize("length", [8, 9])
def test_a_document_is_stored_whole_at_a_node(tmp_path: Path, length: int) -> None:
    study = read_lumbar_study(hospital.write_hospital_export(tmp_path / "disc").root)
    pdf = b"%PDF-1.45"[:length]
    document = make_encapsulated_pdf(pdf, find_references(study), make_result(study), model="7")
    (tmp_path / "dicom").mkdir()
    document.save_as(tmp_path / "dicom" / "1.pdf.dcm", enforce_file_format=True)
    (found,) = find_results(tmp_path, "1", (OutputFormat.PDF,))
    assert (
        found.file == "dicom/1.pdf.dcm"
        and find_results(tmp_path, "1", (OutputFormat.SR, OutputFormat.SC)) == ()
    )
    with receiver(sop_classes=[EncapsulatedPDFStorage]) as (node, received):
        StoreScu(node, ae_title="A").store(tmp_path / found.file)
    (dataset,) = received
    assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == pdf
