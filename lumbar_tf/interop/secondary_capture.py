"""The summary sheet as a DICOM image, for archives and viewers that show no structured report."""

from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from lumbar_tf.dicom.study import Study
from lumbar_tf.files import replace_atomically
from lumbar_tf.interop.dicom_identity import (
    complete,
    describe_replaced,
    equipment,
    result_uid,
    series_uid,
)
from lumbar_tf.interop.graded_finding import DISCLAIMER
from lumbar_tf.interop.source_references import SourceImage, SourceStudy
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.study_sheet import sheet_pixels

_SERIES_NUMBER = 9902
_SERIES_DESCRIPTION = "lumbar_tf summary, research use only"


def write_capture(
    path: Path, source: SourceStudy, study: Study, result: StudyFindings, *, model: str
) -> None:
    """Writes the sheet, atomically.

    Args:
        path: the DICOM file.
        source: what the image refers to.
        study: the slices that the sheet shows.
        result: the study's answer.
        model: the bundle's version.
    """
    image = make_capture(sheet_pixels(study, result), source, result, model=model)
    with replace_atomically(path) as temporary:
        image.save_as(temporary, enforce_file_format=True)


def make_capture(
    pixels: NDArray[np.uint8], source: SourceStudy, result: StudyFindings, *, model: str
) -> SCImage:
    """Returns a picture as a Secondary Capture Image (PS3.3 section A.8.1).

    Args:
        pixels: colours, uint8 [height, width, 3].
        source: what the image refers to.
        result: the study's answer, which decides the image's UID.
        model: the bundle's version.
    """
    image = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # highdicom asks for one; it is taken away below.
        patient_orientation=("L", "F"),
        study_instance_uid=source.study_uid,
        series_instance_uid=series_uid("sc", source, model),
        series_number=_SERIES_NUMBER,
        series_description=_SERIES_DESCRIPTION,
        sop_instance_uid=result_uid("sc", source, result, model),
        instance_number=1,
        **equipment(model),
    )
    # A sheet of several pictures and a table has no orientation (PS3.3 section C.7.6.1.1.1).
    image.PatientOrientation = None
    image.Laterality = None
    # Made by a program, not digitised from film (PS3.3 section C.8.6.1).
    image.ConversionType = "SYN"
    # The study's id stands in the picture.
    image.BurnedInAnnotation = "YES"
    image.ImageComments = " ".join(each for each in (DISCLAIMER, describe_replaced(source)) if each)
    image.SourceImageSequence = [_refer(each) for each in dict.fromkeys(source.images)]
    complete(image, source)
    return image


def _refer(image: SourceImage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    if image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose.value, "DCM", purpose.meaning
    item.PurposeOfReferenceCodeSequence = [code]
    return item
