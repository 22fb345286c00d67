import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.files.headers import read_dataset_header
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import SAGITTAL, encode, make_enhanced, make_file, make_pixels


def _reason(data: bytes) -> RejectReason:
    with pytest.raises(RejectedError) as caught:
        open_image(data)
    return caught.value.reason


def test_a_classic_file_is_one_frame() -> None:
    image = open_image(make_file())
    (frame,) = image.frames
    assert (image.study_uid, image.series_uid, image.sop_uid) == ("1.2.3", "1.2.3.4", "1.2.3.4.5")
    assert image.patient_id == "someone"
    assert (frame.index, frame.instance_number, frame.slope, frame.intercept) == (0, 7, 1.0, 0.0)
    geometry = frame.geometry
    assert geometry.position == (1.5, -20.0, 300.25)
    assert (*geometry.row_direction, *geometry.column_direction) == SAGITTAL
    assert (geometry.row_spacing_mm, geometry.column_spacing_mm) == (0.5, 0.75)
    assert (geometry.rows, geometry.columns) == (12, 16)


def test_the_competitions_files_are_classic_despite_their_meta_information() -> None:
    # Absent there: Modality, SOPClassUID; the file meta says Enhanced MR.
    data = make_file(syntax=uid.RLELossless, Modality=None, SOPClassUID=uid.EnhancedMRImageStorage)
    start = data.index(b"\x08\x00\x16\x00UI")
    data = data[:start] + data[start + 8 + int.from_bytes(data[start + 6 : start + 8], "little") :]
    image = open_image(data)
    assert "SOPClassUID" not in image.dataset
    assert read_dataset_header(data).file_meta.MediaStorageSOPClassUID == uid.EnhancedMRImageStorage
    assert image.frames[0].geometry.position == (1.5, -20.0, 300.25)


def test_absent_identity_is_empty() -> None:
    names = ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "InstanceNumber")
    image = open_image(make_file(**dict.fromkeys(names)))
    assert (image.study_uid, image.series_uid, image.patient_id) == ("", "", "")
    assert image.frames[0].instance_number == 0


def test_frames_have_their_own_position_and_rescale() -> None:
    image = open_image(make_enhanced())
    assert [frame.geometry.position for frame in image.frames] == [
        (0.0, -20.0, 300.25),
        (4.0, -20.0, 300.25),
        (8.0, -20.0, 300.25),
    ]
    assert [(frame.slope, frame.intercept) for frame in image.frames] == [(1, 0), (2, -10), (3, -20)]
    assert [frame.instance_number for frame in image.frames] == [1, 2, 3]
    assert {frame.geometry.row_spacing_mm for frame in image.frames} == {0.5}


def test_a_position_at_the_top_level_belongs_to_no_frame() -> None:
    # A position at the top level would put every frame at one place.
    assert open_image(make_enhanced(ImagePositionPatient=[9, 9, 9])).frames[0].geometry.position[0] == 0.0
    groups = [Dataset() for _ in range(3)]
    data = make_enhanced(ImagePositionPatient=[9, 9, 9], PerFrameFunctionalGroupsSequence=groups)
    assert _reason(data) is RejectReason.BAD_FRAMES


def test_an_enhanced_file_of_one_frame_is_read() -> None:
    image = open_image(make_enhanced(make_pixels()[None]))
    assert image.frames[0].geometry.position == (0.0, -20.0, 300.25)


def test_philips_private_sequences_are_not_searched() -> None:
    private, group = Dataset(), Dataset()
    private.PixelSpacing = [9.0, 9.0]
    group.add_new(0x20050010, "LO", "Philips MR Imaging DD 005")
    group.add_new(0x2005140F, "SQ", [private])
    shared = Dataset()
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [0.5, 0.75], list(SAGITTAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    position = Dataset()
    position.ImagePositionPatient = [0, 0, 0]
    group.PlanePositionSequence = [position]
    data = make_enhanced(
        make_pixels()[None],
        PerFrameFunctionalGroupsSequence=[group],
        SharedFunctionalGroupsSequence=[shared],
    )
    assert open_image(data).frames[0].geometry.row_spacing_mm == 0.5


@pytest.mark.parametrize(
    "orientation",
    [[0, 1.004, 0, 0, 0, -1], [0, 1, 0, 0, 0.009, -1]],
)
def test_orientation_is_normalized_to_unit_vectors(orientation: list[float]) -> None:
    geometry = open_image(make_file(ImageOrientationPatient=orientation)).frames[0].geometry
    np.testing.assert_allclose(np.linalg.norm(geometry.row_direction), 1)
    np.testing.assert_allclose(np.linalg.norm(geometry.column_direction), 1)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, RejectReason.NOT_MR),
        ({"Modality": "OT"}, RejectReason.SECONDARY_CAPTURE),
        ({"Modality": "", "SOPClassUID": uid.CTImageStorage}, RejectReason.NOT_MR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, RejectReason.COLOUR),
        # The type of the image is checked before its faults.
        ({"Modality": "CT", "PixelSpacing": None}, RejectReason.NOT_MR),
        ({"SamplesPerPixel": 3, "Rows": 5}, RejectReason.COLOUR),
    ],
)
def test_other_images_are_rejected_with_their_reason(tags: dict[str, Any], reason: RejectReason) -> None:
    assert _reason(make_file(**tags)) is reason


def test_one_bad_frame_does_not_affect_the_others() -> None:
    frames = np.stack([make_pixels(seed=seed) for seed in range(3)])
    streams = [encode(frame, uid.RLELossless) for frame in frames]
    streams[1] = streams[1][: len(streams[1]) // 2 * 2 - 40]
    image = open_image(make_enhanced(frames, syntax=uid.RLELossless, streams=streams))
    # The others are decoded without it.
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), frames[0])
    np.testing.assert_array_equal(decode_frame(image, image.frames[2]), frames[2] * 3.0 - 20)
    with pytest.raises(RejectedError):
        decode_frame(image, image.frames[1])


def _add_element(data: bytes, element: bytes, *, before: bytes = b"\xe0\x7f\x10\x00OW") -> bytes:
    """Inserts an element of Explicit VR Little Endian before another one; an empty one means the end."""
    at = data.rindex(before) if before else len(data)
    return data[:at] + element + data[at:]


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


@pytest.mark.parametrize(
    "element",
    [
        _element(0x0028, 0x1053, b"DS", b"3 "),
        _element(0x0020, 0x0032, b"DS", b"1\\2\\3 "),
        _element(0x0018, 0x0081, b"DS", b"15"),
        _element(0x0008, 0x0008, b"CS", b"DERIVED "),
        _element(0x0010, 0x0020, b"LO", b"somebody"),
    ],
)
@pytest.mark.parametrize("before", [b"\xe0\x7f\x10\x00OW", b""])
def test_decisive_elements_are_there_once_and_before_the_pixels(element: bytes, before: bytes) -> None:
    data = make_file(RescaleSlope=2, RescaleIntercept=1, EchoTime=90, ImageType=["ORIGINAL", "PRIMARY"])
    assert _reason(_add_element(data, element, before=before)) is RejectReason.DAMAGED_HEADER


def test_an_element_may_be_repeated_with_the_same_value() -> None:
    data = make_file(RescaleSlope="2", RescaleIntercept=1)
    image = open_image(_add_element(data, _element(0x0028, 0x1053, b"DS", b"2 ")))
    assert (image.frames[0].slope, image.notes) == (2.0, ())


def test_a_contradiction_that_does_not_concern_the_image_is_a_note() -> None:
    data = _add_element(make_file(StudyDescription="A"), _element(0x0008, 0x1030, b"LO", b"SPINE "))
    (note,) = open_image(data).notes
    assert "0008,1030" in note
    assert "SPINE" not in note


@pytest.mark.parametrize(
    "behind",
    [
        _element(0xFFFC, 0xFFFC, b"OB", b"\0\0" + bytes(6)),
        _element(0x7FE1, 0x0010, b"LO", b"MAKER "),
        bytes(512),
        b"\xff" * 64,
    ],
)
def test_other_elements_behind_the_pixels_are_no_fault(behind: bytes) -> None:
    assert open_image(_add_element(make_file(), behind, before=b"")).notes == ()


def test_blank_bytes_behind_the_last_pixel_are_a_note() -> None:
    pixels = make_pixels()
    image = open_image(make_file(pixels, streams=[encode(pixels, uid.ExplicitVRLittleEndian) + bytes(128)]))
    assert image.notes == ("128 blank bytes follow the last pixel",)
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), pixels)


def test_a_jp2_file_around_the_pixels_is_a_note() -> None:
    pixels = make_pixels()
    stream = imagecodecs.jpeg2k_encode(
        pixels, codecformat="jp2", reversible=True, resolutions=2, bitspersample=12
    )
    image = open_image(make_file(pixels, syntax=uid.JPEG2000Lossless, streams=[stream]))
    assert image.notes == ("the JPEG 2000 code stream is wrapped in a JP2 file",)
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), pixels)


def test_slides_are_no_secondary_captures() -> None:
    data = make_file(Modality="SM", SOPClassUID=uid.VLWholeSlideMicroscopyImageStorage)
    assert _reason(data) is RejectReason.NOT_MR
    data = make_file(Modality="MR", SOPClassUID=uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage)
    assert _reason(data) is RejectReason.SECONDARY_CAPTURE


@pytest.mark.parametrize(
    ("sop_class", "reason"),
    [
        ("1.3.46.670589.11.0.0.12.4", RejectReason.NO_PIXELS),  # Philips, parameters of a series
        (uid.MRImageStorage, RejectReason.TRUNCATED),
    ],
)
def test_private_objects_without_pixels_are_not_truncated(sop_class: str, reason: RejectReason) -> None:
    data = make_file(SOPClassUID=sop_class)
    assert _reason(data[: data.rindex(b"\xe0\x7f\x10\x00OW")]) is reason
