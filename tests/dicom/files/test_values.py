import struct

import pydicom
import pytest
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.files.headers import read_dataset_header
from lumbar_tf.dicom.files.values import find_value, read_integer, read_numbers, read_uid
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import NATIVE, make_enhanced, make_file

KEYWORDS = ("Rows", "PixelSpacing", "InstanceNumber", "SeriesDescription", "SOPClassUID", "SliceThickness")


@pytest.mark.parametrize("syntax", NATIVE)
def test_values_are_those_of_pydicom(syntax: str) -> None:
    data = make_file(syntax=syntax, SliceThickness="4.5 ", ImageType=["ORIGINAL", "PRIMARY"])
    expected = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    dataset = read_dataset_header(data)
    for keyword in (*KEYWORDS, "ImageType"):
        assert find_value(dataset, keyword) == expected[keyword].value
    assert find_value(dataset, "EchoTime") is None


def test_text_in_another_alphabet_is_parsed_by_pydicom() -> None:
    data = make_file(SpecificCharacterSet="ISO_IR 192", PatientID="Müller", SeriesDescription="Wirbelsäule")
    assert find_value(read_dataset_header(data), "SeriesDescription") == "Wirbelsäule"
    assert open_image(data).patient_id == "Müller"


def test_a_frames_own_group_takes_precedence_over_the_shared_one() -> None:
    dataset = read_dataset_header(make_enhanced())
    assert [find_value(dataset, "ImagePositionPatient", index)[0] for index in range(3)] == [0, 4, 8]
    assert find_value(dataset, "PixelSpacing", 2) == [0.5, 0.75]
    assert find_value(dataset, "RescaleSlope", 2) == 3
    shared = Dataset()
    shared.RescaleSlope = 99
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [shared]
    assert find_value(dataset, "RescaleSlope", 2) == 3
    # A frame beyond those of the file has the shared values only.
    assert find_value(dataset, "RescaleSlope", 7) == 99


def test_the_top_level_takes_precedence_unless_it_is_excluded() -> None:
    dataset = read_dataset_header(make_enhanced(RescaleSlope=50))
    assert find_value(dataset, "RescaleSlope", 1) == 50
    assert find_value(dataset, "RescaleSlope", 1, top_level=False) == 2


def test_empty_values_count_as_absent() -> None:
    dataset = read_dataset_header(make_file(SliceThickness="", SeriesDescription="", EchoTime=None or ""))
    for keyword in ("SliceThickness", "SeriesDescription", "EchoTime"):
        assert find_value(dataset, keyword) is None


def test_a_value_that_cannot_be_parsed_is_rejected() -> None:
    data = make_file(SliceThickness=3456).replace(b"3456", b"much")
    with pytest.raises(RejectedError) as caught:
        find_value(read_dataset_header(data), "SliceThickness")
    assert caught.value.reason is RejectReason.DAMAGED_HEADER


def test_digit_separators_are_not_allowed_in_numbers() -> None:
    # Python reads 1_2 as 12; DICOM does not.
    for keyword, value in (("InstanceNumber", b"1_2 "), ("SliceThickness", b"1_2 ")):
        data = make_file(InstanceNumber=3456, SliceThickness=3456)
        tag = pydicom.datadict.tag_for_keyword(keyword)
        start = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
        with pytest.raises(RejectedError):
            find_value(read_dataset_header(data[:start] + data[start:].replace(b"3456", value, 1)), keyword)


def test_keywords_are_checked() -> None:
    with pytest.raises(RejectedError):
        find_value(Dataset(), "NoSuchKeyword")


def test_integers_have_bounds() -> None:
    dataset = Dataset()
    dataset.Rows = 5
    assert read_integer(dataset, "Rows") == 5
    assert read_integer(dataset, "Columns", 3) == 3
    with pytest.raises(RejectedError):
        read_integer(dataset, "Columns")


@pytest.mark.parametrize("value", [None, "", [], [1.0], [1.0, float("nan")], ["a", "b"], [1, 2, 3], 5])
def test_numbers_are_counted_and_finite(value: object) -> None:
    with pytest.raises(RejectedError):
        read_numbers(value, 2, "PixelSpacing", RejectReason.BAD_SPACING)


@pytest.mark.parametrize("value", ["100206310.1.1", "1.2.840", "series-7_b"])
def test_uids_of_the_competition_and_of_folders_pass(value: str) -> None:
    dataset = Dataset()
    dataset.add_new(0x0020000D, "UI", value)
    assert read_uid(dataset, "StudyInstanceUID") == value
