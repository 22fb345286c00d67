"""The right series are chosen from a hospital's export without tables, and nobody is named."""

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
    """The export, written once."""
    return hospital.write_hospital_export(tmp_path_factory.mktemp("hospital") / "disc")


@pytest.fixture(scope="module")
def studies(export: Any) -> tuple[dict[str, Study], list[Reject]]:
    """Both studies as read, and what was left out of the source."""
    with read_source(export.root) as source:
        return {each.study_id: read_study_files(each) for each in source.studies}, list(source.rejects)


def _series_facts(study: StudyFiles) -> list[SeriesCandidate]:
    """Headers and geometries by series, without the study's reader."""
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


def test_the_right_series_are_chosen_each_with_its_reason(export: Any) -> None:
    told: dict[str, Plane | RejectReason | None] = {}
    with read_source(export.root) as source:
        assert [each.study_id for each in source.studies] == [hospital.LUMBAR_STUDY, hospital.CERVICAL_STUDY]
        for study in source.studies:
            decisions = select_series(_series_facts(study), {})
            told |= {name: each.plane or each.reason for name, each in decisions.items()}
    assert told == {**export.planes, **export.reasons}


def test_the_study_has_three_planes_of_the_right_slices(export: Any, studies: Any) -> None:
    read, _ = studies
    planes = read[hospital.LUMBAR_STUDY].planes
    assert set(planes) == set(Plane)
    for uid, plane in export.planes.items():
        assert {each.series_id for each in planes[plane]} == {uid}
        assert len(planes[plane]) == export.num_slices[uid]
        found = {tuple(np.round(each.geometry.position, 5)) for each in planes[plane]}
        assert found == {tuple(np.round(position, 5)) for position in export.positions[uid]}
    assert read[hospital.CERVICAL_STUDY].planes == {}


def test_the_enhanced_series_lies_where_highdicom_says(export: Any, studies: Any) -> None:
    (path,) = (
        each
        for each in export.root.rglob("IM*")
        if each.is_file() and pydicom.dcmread(each, stop_before_pixels=True).get("NumberOfFrames")
    )
    image = highdicom.imread(path)
    volume = image.get_volume()
    slices = studies[0][hospital.LUMBAR_STUDY].planes[Plane.SAGITTAL_T2]
    assert volume.spatial_shape[0] == len(slices)
    by_place = {tuple(np.round(each.geometry.position, 3)): each for each in slices}
    for index in range(len(slices)):
        corner = volume.map_indices_to_reference(np.array([[index, 0, 0]]))[0]
        np.testing.assert_array_equal(by_place[tuple(np.round(corner, 3))].pixels, volume.array[index])


def test_everything_that_was_left_out_is_said(export: Any, studies: Any) -> None:
    read, rejects = studies
    reasons = [each.reason for each in rejects]
    assert sorted(each.value for each in reasons) == ["dicomdir", "not_dicom", "not_dicom", "not_dicom"]
    rejected = [each for study in read.values() for each in study.rejects]
    assert {each.series_id: each.reason for each in rejected if each.series_id} == export.reasons
    assert [each.reason for each in rejected if not each.series_id] == [
        RejectReason.SECONDARY_CAPTURE,
        # The patient's other study, of the neck.
        RejectReason.NOTHING_TO_GRADE,
    ]


def test_nobody_is_named(studies: Any) -> None:
    read, rejects = studies
    written = " ".join(map(str, [*rejects, *(each for study in read.values() for each in study.rejects)]))
    written += " ".join(str(study.series) for study in read.values())
    for value in (*hospital.IDENTITY.values(), "Musterfrau", "MUSTERFRAU", "Erika", "README"):
        assert value not in written
