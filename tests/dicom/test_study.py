"""Header values and image UIDs for results that return to the archive."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from lumbar_tf.dicom.sources.study_source import read_source
from lumbar_tf.dicom.study import read_study_header
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from tests.interop import hospital
from tests.small_cohort import write_small_cohort


def test_a_header_keeps_the_attributes_of_results_and_hides_them_in_its_repr() -> None:
    dataset = Dataset()
    for keyword, value in hospital.IDENTITY.items():
        setattr(dataset, keyword, value)
    header = read_study_header(dataset, "1.2.3")
    kept = {"PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "ReferringPhysicianName"}
    assert header.values == {keyword: hospital.IDENTITY[keyword] for keyword in kept}
    assert repr(header) == "StudyHeader(study_uid='1.2.3')"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientBirthDate", "12.08.1964"), ("PatientBirthDate", "20230231"), ("PatientSex", "W"),
     ("StudyTime", "noon"), ("StudyID", "x" * 17), ("IssuerOfPatientID", "x" * 65),
     ("AccessionNumber", "1\\2"), ("PatientName", "Doe^Jane^A^Dr^MD^PhD^Esq"),
     ("PatientName", "Doe\x07^Jane"),
     ("PatientName", "A=B=C=D"),
     ("StudyDescription", "MRI\r\nLWS"), ("StudyDescription", "MRI\x9bLWS")],
)  # fmt: skip
def test_a_value_that_the_standard_does_not_allow_is_omitted_and_named(keyword: str, value: str) -> None:
    dataset = Dataset()
    setattr(dataset, keyword, value)
    dataset.PatientID = "7"
    header = read_study_header(dataset, "")
    assert header.values == {"PatientID": "7"} and header.omitted == (keyword,)


def test_two_patient_ids_are_none() -> None:
    dataset = Dataset()
    dataset.PatientID = ["7", "8"]
    dataset.PatientName = "Doe^Jane^^Dr^MD=A^B=C"
    header = read_study_header(dataset, "")
    assert header.values == {"PatientName": "Doe^Jane^^Dr^MD=A^B=C"} and header.omitted == ("PatientID",)


def test_slices_have_their_origin_and_headers_are_kept_on_request_only(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    root = write_small_cohort(tmp_path, ["910000001"], write_dicom)
    extra = root / "train_images" / "910000001" / "1" / "1.dcm"
    write_dicom(
        extra,
        np.ones((24, 20), np.uint16),
        PatientID="910000001",
        SeriesDescription="Sagittal T2",
        FrameOfReferenceUID="910000001.4",
        SOPInstanceUID="910000001.4.1",
        SOPClassUID=None,
    )
    with (root / "train_series_descriptions.csv").open("a") as table:
        table.write("910000001,1,Sagittal T2/STIR\n")
    with read_source(root) as source:
        table = {"1": Plane.SAGITTAL_T2}
        plain = read_study_files(source.studies[0], table)
        study = read_study_files(source.studies[0], table, keep_header=True)
    assert plain.header is None
    assert study.header is not None and study.header.values == {"PatientID": "910000001"}
    (found,) = [image.origin for image in plain.planes[Plane.SAGITTAL_T2] if image.series_id == "1"]
    assert found is not None
    assert (found.sop_instance_uid, found.frame_of_reference_uid) == ("910000001.4.1", "910000001.4")
    # The competition's files have their SOP class in the file meta information only.
    assert found.sop_class_uid == "1.2.840.10008.5.1.4.1.1.4"
    assert (found.series_uid, found.frame_number) == ("1", 0)
