"""Encapsulated PDF document of the summary sheet, for archives and record systems that show documents."""

from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from lumbar_tf.dicom.study import Study
from lumbar_tf.files import replace_atomically
from lumbar_tf.interop.report_content import (
    anonymous_dataset,
    copy_identity,
    equipment,
    result_uid,
    series_uid,
)
from lumbar_tf.interop.source_references import SourceImage, SourceStudy
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.study_sheet import sheet_pdf

_SERIES_NUMBER = 9903
_SERIES_DESCRIPTION = "lumbar_tf document, research use only"
_TITLE = "Lumbar spine findings by lumbar_tf, research use only"
#: Document title (PS3.16 CID 7020).
_CONCEPT = Code("18756-7", "LN", "MRI Spine Report")


def write_encapsulated_pdf(
    path: Path, source: SourceStudy, study: Study, result: StudyFindings, *, model: str
) -> None:
    """Draws the summary sheet as a PDF document and writes it as a DICOM file atomically.

    Args:
        path: DICOM file to write.
        source: UIDs of the study and of its images.
        study: slices that the sheet shows.
        result: findings of the study.
        model: version of the bundle.
    """
    document = make_encapsulated_pdf(sheet_pdf(study, result), source, result, model=model)
    with replace_atomically(path) as temporary:
        document.save_as(temporary, enforce_file_format=True)


def make_encapsulated_pdf(
    pdf: bytes, source: SourceStudy, result: StudyFindings, *, model: str
) -> FileDataset:
    """Returns a PDF document as an Encapsulated PDF (PS3.3 section A.45.1).

    Args:
        pdf: the document.
        source: UIDs of the study and of its images.
        result: findings of the study, from which the document's UID is derived.
        model: version of the bundle.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    meta.MediaStorageSOPInstanceUID = result_uid("pdf", source, result, model)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document = FileDataset("", anonymous_dataset(source), file_meta=meta, preamble=b"\0" * 128)
    document.SOPClassUID = EncapsulatedPDFStorage
    document.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    maker = equipment(model)
    document.Manufacturer = maker["manufacturer"]
    document.ManufacturerModelName = maker["manufacturer_model_name"]
    document.SoftwareVersions = maker["software_versions"]
    document.DeviceSerialNumber = maker["device_serial_number"]
    document.Modality = "DOC"
    document.SeriesInstanceUID = series_uid("pdf", source, model)
    document.SeriesNumber = _SERIES_NUMBER
    document.SeriesDescription = _SERIES_DESCRIPTION
    # Synthesised by a program (workstation) (PS3.3 section C.8.6.1).
    document.ConversionType = "SYN"
    now = datetime.now()
    document.InstanceNumber = 1
    document.ContentDate, document.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    document.AcquisitionDateTime = None
    # The document shows the study's ID.
    document.BurnedInAnnotation = "YES"
    document.VerificationFlag = "UNVERIFIED"
    document.DocumentTitle = _TITLE
    document.ConceptNameCodeSequence = [_concept()]
    document.SourceInstanceSequence = [_reference(image) for image in dict.fromkeys(source.images)]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    # Values have even length (PS3.5 section 7.1); readers of PDF ignore what follows its end.
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    copy_identity(document, source)
    return document


def _concept() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = _CONCEPT[:3]
    return item


def _reference(image: SourceImage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    return item
