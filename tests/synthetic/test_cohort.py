import csv
import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedMRImageStorage, RLELossless

from lumbar_tf.labels import FINDINGS, Plane, parse_condition, parse_level, parse_plane, parse_row_id
from lumbar_tf.synthetic import CohortOptions, write_cohort
from lumbar_tf.synthetic.cohort import draw_study
from tests.command_line import run_in_process


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, CohortOptions(num_studies=2, seed=5, first_study_id=900))
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_the_files(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, CohortOptions(num_studies=2, seed=5, first_study_id=900, workers=2))
    assert digests(tmp_path) == digests(cohort)


@pytest.mark.slow
def test_an_interrupted_cohort_is_resumed_to_the_same_files(cohort: Path, tmp_path: Path) -> None:
    options = CohortOptions(num_studies=2, seed=5, first_study_id=900)
    write_cohort(tmp_path, CohortOptions(num_studies=1, seed=5, first_study_id=900))
    # A study that was being written, and one that was finished.
    (tmp_path / "train_images" / ".901.partial" / "1").mkdir(parents=True)
    (first, *_) = sorted((tmp_path / "train_images" / "900").rglob("*.dcm"))
    written = first.stat().st_mtime_ns
    write_cohort(tmp_path, options, is_resumed=True)
    assert digests(tmp_path) == digests(cohort)
    assert first.stat().st_mtime_ns == written
    assert sorted(path.name for path in (tmp_path / "train_images").iterdir()) == ["900", "901"]


def test_present_and_absent_tags_are_those_of_the_competition(cohort: Path) -> None:
    for path in (cohort / "train_images").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == RLELossless
        assert dataset.file_meta.MediaStorageSOPClassUID == EnhancedMRImageStorage
        study_id, series_id, name = path.parts[-3:]
        assert dataset.InstanceNumber == int(name.removesuffix(".dcm"))
        assert dataset.StudyInstanceUID == dataset.PatientID == study_id
        assert dataset.SeriesInstanceUID == f"{study_id}.{series_id}"
        assert dataset.SeriesDescription in ("T1", "T2")
        assert dataset.PatientPosition == "HFS"
        assert dataset.PhotometricInterpretation == "MONOCHROME2"
        stored = (dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation)
        assert stored == (16, 12, 0)
        for keyword in ("SliceThickness", "SpacingBetweenSlices", "SliceLocation", "FrameOfReferenceUID"):
            assert keyword in dataset
        for keyword in ("WindowCenter", "WindowWidth", "ContentDate", "SOPInstanceUID"):
            assert keyword in dataset
        for keyword in ("Modality", "Manufacturer", "SOPClassUID", "RescaleSlope", "RescaleIntercept"):
            assert keyword not in dataset
        orientation = np.array(dataset.ImageOrientationPatient, float)
        assert orientation[:3] @ orientation[3:] == pytest.approx(0, abs=1e-6)
        assert dataset.pixel_array.shape == (dataset.Rows, dataset.Columns)
        assert 300 < dataset.pixel_array.max() < 4096


def test_frame_of_reference_differs_between_series(cohort: Path) -> None:
    frames = {
        folder: pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).FrameOfReferenceUID
        for folder in (cohort / "train_images" / "900").iterdir()
    }
    assert len(set(frames.values())) == len(frames) >= 2


def test_tables_follow_the_competition(cohort: Path) -> None:
    labels = table(cohort / "train.csv")
    assert list(labels[0]) == ["study_id", *(finding.name for finding in FINDINGS)]
    assert {value for row in labels for value in list(row.values())[1:]} <= {
        "Normal/Mild",
        "Moderate",
        "Severe",
        "",
    }
    for row in table(cohort / "train_series_descriptions.csv"):
        parse_plane(row["series_description"])
        assert (cohort / "train_images" / row["study_id"] / row["series_id"]).is_dir()
    for row in table(cohort / "train_label_coordinates.csv"):
        parse_condition(row["condition"])
        parse_level(row["level"])
        assert row["level"][2] == "/"
        folder = cohort / "train_images" / row["study_id"] / row["series_id"]
        dataset = pydicom.dcmread(folder / f"{row['instance_number']}.dcm", stop_before_pixels=True)
        assert 0 <= float(row["x"]) < dataset.Columns
        assert 0 <= float(row["y"]) < dataset.Rows


def test_truth_has_every_row_and_sums_to_one(cohort: Path) -> None:
    rows = table(cohort / "truth.csv")
    assert len(rows) == 2 * 25
    for row in rows:
        parse_row_id(row["row_id"])
        total = sum(float(row[name]) for name in ("normal_mild", "moderate", "severe"))
        assert total == pytest.approx(1, abs=2e-6)


def test_a_study_does_not_depend_on_how_many_there_are() -> None:
    first, _ = draw_study(CohortOptions(num_studies=1, seed=7), 3)
    second, _ = draw_study(CohortOptions(num_studies=50, seed=7, workers=2), 3)
    np.testing.assert_array_equal(first.latent, second.latent)
    assert first.series_ids == second.series_ids


def test_protocols_vary_as_in_the_competition() -> None:
    studies = [draw_study(CohortOptions(num_studies=300, seed=1), index)[0] for index in range(300)]
    axial = [sum(plan.plane is Plane.AXIAL_T2 for plan in study.plans) for study in studies]
    assert set(axial) == {1, 2}
    assert 0.10 < np.mean([count == 2 for count in axial]) < 0.26
    assert any(study.patient_id != study.study_id for study in studies)
    left_last = [
        study.plans[0].slices[-1][1].centre[0] > study.plans[0].slices[0][1].centre[0] for study in studies
    ]
    assert 0.56 < np.mean(left_last) < 0.76
    planes = [{plan.plane for plan in study.plans} for study in studies]
    assert 0.9 < np.mean([len(image) == 3 for image in planes]) < 1


@pytest.mark.parametrize(
    ("field", "value"), [("num_studies", 0), ("workers", 0), ("seed", -1), ("severity_shift", 9.0)]
)
def test_impossible_options_are_rejected(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        CohortOptions(**{"num_studies": 1, field: value})


def test_the_command_rejects_a_misspelt_flag_before_it_writes(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    result = run_in_process("synthetic", f"--out={out}", "--studys=1")
    assert result.returncode == 2
    assert "studys" in result.stderr
    assert not out.exists()
