"""Rejection of every fault of `source_faults.SOURCE_FAULTS` with its reason, without a patient's identity."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from lumbar_tf.records.cohort import open_cohort
from lumbar_tf.tables.coordinates import place_points
from lumbar_tf.tables.series_descriptions import absent_series
from tests.dicom.made_sources import GOOD_STUDY, write_competition, write_export
from tests.dicom.source_damage import SourceFault
from tests.dicom.source_faults import SOURCE_FAULTS


def _read(sources: tuple[Path, ...]) -> tuple[dict[str, Any], list[Reject]]:
    """Reads all sources like a build, without writing records."""
    studies = {}
    with open_cohort(sources) as cohort:
        rejects = list(cohort.rejects)
        for job in cohort.jobs:
            study = studies[job.study_id] = read_study_files(job.files, job.series_planes)
            found = [series.series_id for series in study.series]
            _, points = place_points(study.study_id, study.planes, job.coordinates)
            rejects += [*study.rejects, *points, *absent_series(job.study_id, job.series_planes, found)]
    return studies, rejects


@pytest.mark.parametrize("write", [write_export, write_competition])
def test_valid_sources_have_no_rejects(tmp_path: Path, write: Any) -> None:
    studies, rejects = _read((write(tmp_path / "data"),))
    assert rejects == []
    assert set(studies[GOOD_STUDY].planes) == set(Plane)


@pytest.mark.parametrize("fault", SOURCE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_rejected_with_its_reason_and_the_rest_is_read(tmp_path: Path, fault: SourceFault) -> None:
    with warnings.catch_warnings():
        # pydicom warns of intentional faults.
        warnings.simplefilter("ignore")
        sources = fault.write(tmp_path)
    studies, rejects = _read(sources)
    assert fault.reason in {reject.reason for reject in rejects}
    good = studies[GOOD_STUDY]
    assert set(good.planes) == set(Plane)
    assert all(len(image) == 7 for image in good.planes.values())
    written = " ".join(f"{reject.file_name} {reject.message}" for reject in rejects)
    assert "Doe" not in written and str(tmp_path) not in written


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("train_label_coordinates.csv", "1.00E+03,2,4,Spinal Canal Stenosis,L2/L3,8,3"),
        ("train.csv", "1.00E+03" + "," * 25),
    ],
)
def test_a_table_of_other_studies_is_an_error(tmp_path: Path, name: str, row: str) -> None:
    root = write_competition(tmp_path / "data")
    header = (root / name).read_text().partition("\n")[0]
    (root / name).write_text(f"{header}\n{row}\n")
    with pytest.raises(ValueError, match=f"{name} must have a study of the source. Received: 1 study ids"):
        _read((root,))


#: Reasons that accompany a fault: a study without slices, the DICOMDIR of a disc.
_COMPANIONS = {
    "localizer_by_orientations": {"nothing_to_grade"},
    "two_patients": {"no_slices"},
    "empty_study_folder": {"no_slices"},
    "nothing_graded_here": {"unknown_plane"},
    "nothing_readable": {"bad_spacing"},
    "dicomdir": {"listed_file_absent"},
    "dicomdir_names_an_absent_file": {"dicomdir"},
    "point_on_one_of_two_slices": {"duplicate_instance_number"},
}


@pytest.mark.parametrize("fault", SOURCE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_no_other_reasons(tmp_path: Path, fault: SourceFault) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = fault.write(tmp_path)
    others = {item.reason.value for item in _read(sources)[1]} - {fault.reason.value}
    assert others <= _COMPANIONS.get(fault.name, set())


def test_names_are_distinct_and_there_are_many() -> None:
    names = Counter(fault.name for fault in SOURCE_FAULTS)
    assert max(names.values()) == 1
    assert len(names) >= 50
    assert len({fault.reason for fault in SOURCE_FAULTS}) >= 35
