"""Secondary Capture image of the summary sheet, for viewers that do not show structured reports."""

from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from lumbar_tf.dicom.study import Study
from lumbar_tf.files import replace_atomically
from lumbar_tf.interop.report_content import (
    copy_identity,
    equipment,
    list_remarks,
    result_uid,
    series_uid,
)
from lumbar_tf.interop.source_references import SourceImage, SourceStudy
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.study_sheet import sheet_pixels

_SERIES_NUMBER = 9902
_SERIES_DESCRIPTION = "lumbar_tf summary, research use only"


def write_secondary_capture(
    path: Path, source: SourceStudy, study: Study, result: StudyFindings, *, model: str
) -> None:
    """Draws the summary sheet and writes it as a DICOM image atomically.

    Args:
        path: DICOM file to write.
        source: UIDs of the study and of its images.
        study: slices that the sheet shows.
        result: findings of the study.
        model: version of the bundle.
    """
    image = make_secondary_capture(sheet_pixels(study, result), source, result, model=model)
    with replace_atomically(path) as temporary:
        image.save_as(temporary, enforce_file_format=True)


def make_secondary_capture(
    pixels: NDArray[np.uint8], source: SourceStudy, result: StudyFindings, *, model: str
) -> SCImage:
    """Returns a picture as a Secondary Capture Image (PS3.3 section A.8.1).

    Args:
        pixels: RGB picture, uint8 [height, width, 3].
        source: UIDs of the study and of its images.
        result: findings of the study, from which the image's UID is derived.
        model: version of the bundle.
    """
    image = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # Required by highdicom; removed below.
        patient_orientation=("L", "F"),
        study_instance_uid=source.study_uid,
        series_instance_uid=series_uid("sc", source, model),
        series_number=_SERIES_NUMBER,
        series_description=_SERIES_DESCRIPTION,
        sop_instance_uid=result_uid("sc", source, result, model),
        instance_number=1,
        **equipment(model),
    )
    # A sheet with several pictures and a table has no orientation (PS3.3 section C.7.6.1.1.1).
    image.PatientOrientation = None
    image.Laterality = None
    # Synthesised by a program (workstation) (PS3.3 section C.8.6.1).
    image.ConversionType = "SYN"
    # The picture shows the study's ID.
    image.BurnedInAnnotation = "YES"
    image.ImageComments = " ".join(list_remarks(source, result))
    image.SourceImageSequence = [_reference(source_image) for source_image in dict.fromkeys(source.images)]
    copy_identity(image, source)
    return image


def _reference(image: SourceImage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    if image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose.value, "DCM", purpose.meaning
    item.PurposeOfReferenceCodeSequence = [code]
    return item
