"""Series selection in a hospital's export without tables, without a patient's identity in the rejects."""

from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.series.series_selection import SeriesCandidate, read_series_header, select_series
from lumbar_tf.dicom.sources.study_source import StudyFiles, list_study_files, read_source
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from tests.interop import hospital


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns the export, written once per module."""
    return hospital.write_hospital_export(tmp_path_factory.mktemp("hospital") / "disc")


@pytest.fixture(scope="module")
def studies(export: Any) -> tuple[dict[str, Study], list[Reject]]:
    """Returns both studies and the rejects of the source."""
    with read_source(export.root) as source:
        return {study.study_id: read_study_files(study) for study in source.studies}, list(source.rejects)


def _series_facts(study: StudyFiles) -> list[SeriesCandidate]:
    """Returns headers and geometries by series, without the study reader."""
    images: dict[str, list[Any]] = {}
    for path in list_study_files(study)[0]:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        if dataset.Modality == "MR":
            image = open_image(path.read_bytes())
            images.setdefault(image.series_uid, []).append(image)
    return [
        SeriesCandidate(
            series_id,
            read_series_header(members[0].dataset),
            [frame.geometry for image in members for frame in image.frames],
        )
        for series_id, members in images.items()
    ]


def test_the_right_series_are_selected_and_the_others_have_their_reasons(export: Any) -> None:
    told: dict[str, Plane | RejectReason | None] = {}
    with read_source(export.root) as source:
        assert [study.study_id for study in source.studies] == [
            hospital.LUMBAR_STUDY,
            hospital.CERVICAL_STUDY,
        ]
        for study in source.studies:
            decisions = select_series(_series_facts(study), {})
            told |= {name: decision.plane or decision.reason for name, decision in decisions.items()}
    assert told == {**export.planes, **export.reasons}


def test_the_study_has_three_planes_of_the_right_slices(export: Any, studies: Any) -> None:
    read, _ = studies
    planes = read[hospital.LUMBAR_STUDY].planes
    assert set(planes) == set(Plane)
    for uid, plane in export.planes.items():
        assert {image.series_id for image in planes[plane]} == {uid}
        assert len(planes[plane]) == export.num_slices[uid]
        found = {tuple(np.round(image.geometry.position, 5)) for image in planes[plane]}
        assert found == {tuple(np.round(position, 5)) for position in export.positions[uid]}
    assert read[hospital.CERVICAL_STUDY].planes == {}


def test_positions_of_the_enhanced_series_equal_those_of_highdicom(export: Any, studies: Any) -> None:
    (path,) = (
        path
        for path in export.root.rglob("IM*")
        if path.is_file() and pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames")
    )
    image = highdicom.imread(path)
    volume = image.get_volume()
    slices = studies[0][hospital.LUMBAR_STUDY].planes[Plane.SAGITTAL_T2]
    assert volume.spatial_shape[0] == len(slices)
    by_place = {tuple(np.round(image.geometry.position, 3)): image for image in slices}
    for index in range(len(slices)):
        corner = volume.map_indices_to_reference(np.array([[index, 0, 0]]))[0]
        np.testing.assert_array_equal(by_place[tuple(np.round(corner, 3))].pixels, volume.array[index])


def test_all_rejects_are_reported(export: Any, studies: Any) -> None:
    read, rejects = studies
    reasons = [reject.reason for reject in rejects]
    assert sorted(reason.value for reason in reasons) == ["dicomdir", "not_dicom", "not_dicom", "not_dicom"]
    rejected = [reject for study in read.values() for reject in study.rejects]
    assert {item.series_id: item.reason for item in rejected if item.series_id} == export.reasons
    assert [item.reason for item in rejected if not item.series_id] == [
        RejectReason.SECONDARY_CAPTURE,
        # The other study of the patient, of the neck.
        RejectReason.NOTHING_TO_GRADE,
    ]


def test_rejects_contain_no_identity(studies: Any) -> None:
    read, rejects = studies
    written = " ".join(map(str, [*rejects, *(reject for study in read.values() for reject in study.rejects)]))
    written += " ".join(str(study.series) for study in read.values())
    for value in (*hospital.IDENTITY.values(), "Musterfrau", "MUSTERFRAU", "Erika", "README"):
        assert value not in written
