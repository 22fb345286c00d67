"""Secondary Capture image of the summary sheet."""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from lumbar_tf.interop.secondary_capture import write_secondary_capture
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.reports.study_sheet import draw_study_sheet
from tests.interop import hospital
from tests.interop.dciodvfy import find_errors
from tests.interop.hospital_study import make_result, read_lumbar_study, stored_slices


def test_the_image_shows_the_sheet_and_refers_to_the_slices(tmp_path: Path) -> None:
    disc = hospital.write_hospital_export(tmp_path / "disc").root
    study = read_lumbar_study(disc)
    result = make_result(study)
    path = tmp_path / "sc.dcm"
    write_secondary_capture(path, find_references(study), study, result, model="7")
    assert find_errors(path) == []
    image = pydicom.dcmread(path)
    draw_study_sheet(tmp_path / "sheet.png", study, result)
    drawn = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    np.testing.assert_array_equal(image.pixel_array, drawn)
    expected = {image.sop_instance_uid for slices in stored_slices(disc).values() for image in slices}
    assert {item.ReferencedSOPInstanceUID for item in image.SourceImageSequence} == expected
    assert image.StudyInstanceUID == hospital.LUMBAR_STUDY
    assert str(image.PatientName) == hospital.IDENTITY["PatientName"]
    assert image.PatientBirthDate == hospital.IDENTITY["PatientBirthDate"]
    assert image.Modality == "OT" and image.BurnedInAnnotation == "YES"
    assert "not a medical device" in image.ImageComments
