from typing import Any

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
