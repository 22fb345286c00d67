from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from pydicom.uid import RLELossless

from lumbar_tf.dicom import study_files, study_reader
from lumbar_tf.dicom.reasons import ReasonKind, RejectReason
from lumbar_tf.dicom.sources.study_source import StudyFiles
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_files import read_patient_id
from lumbar_tf.labels import Plane

Writer = Callable[..., Path]
STORED = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
TABLE = {"s": Plane.SAGITTAL_T2}


def read_study(folder: Path, table: Mapping[str, Plane | None] = MappingProxyType({})) -> Study:
    return study_reader.read_study_files(StudyFiles(folder.name, folder), table)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "study1" / "s" / "1.dcm"


def _only(place: Path) -> np.ndarray:
    study = read_study(place.parents[1], TABLE)
    assert [reject.reason for reject in study.rejects] == [RejectReason.SINGLE_SLICE]
    (image,) = study.planes[Plane.SAGITTAL_T2]
    return image.pixels


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_pixels_and_headers_are_read(place: Path, write_dicom: Writer, syntax: str | None) -> None:
    write_dicom(
        place,
        STORED,
        compress=syntax,
        PatientID="someone",
        InstanceNumber=7,
        ImagePositionPatient=[1.5, -2.0, 30.0],
        PixelSpacing=[0.5, 0.75],
    )
    study = read_study(place.parents[1], TABLE)
    (image,) = study.planes[Plane.SAGITTAL_T2]
    np.testing.assert_array_equal(image.pixels, STORED)
    assert image.pixels.dtype == np.uint16
    assert (study.study_id, study.patient_id) == ("study1", "someone")
    assert (image.series_id, image.instance_number) == ("s", 7)
    assert image.geometry.position == (1.5, -2.0, 30.0)
    assert (image.geometry.row_spacing_mm, image.geometry.column_spacing_mm) == (0.5, 0.75)
    assert (image.geometry.rows, image.geometry.columns) == (3, 4)


def test_rescale_is_applied_once(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, RescaleSlope=2.0, RescaleIntercept=-50.0)
    np.testing.assert_array_equal(_only(place), STORED * 2.0 - 50)


def test_monochrome1_is_inverted_once(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(_only(place), 4095.0 - STORED)


def test_monochrome1_and_rescale_together(place: Path, write_dicom: Writer) -> None:
    stored = STORED.astype(np.int16) - 500
    write_dicom(place, stored, PhotometricInterpretation="MONOCHROME1", RescaleSlope=0.5, RescaleIntercept=3)
    # Signed values: -1 - stored maps the largest (2^15 - 1) to the smallest (-2^15) and back.
    np.testing.assert_array_equal(_only(place), (-1.0 - stored) * 0.5 + 3)


def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path: Path, write_dicom: Writer) -> None:
    for name, number, x in (("1", 1, 8.0), ("2", 2, -4.0), ("3", 3, 0.0)):
        path = tmp_path / "study" / "s" / f"{name}.dcm"
        write_dicom(path, STORED, InstanceNumber=number, ImagePositionPatient=[x, 0, 0])
    study = read_study(tmp_path / "study", TABLE)
    assert [image.geometry.position[0] for image in study.planes[Plane.SAGITTAL_T2]] == [-4.0, 0.0, 8.0]


def test_several_series_of_a_plane_are_kept_together(tmp_path: Path, write_dicom: Writer) -> None:
    for series in ("9", "10"):
        write_dicom(tmp_path / "study" / series / "1.dcm", STORED)
    study = read_study(tmp_path / "study", {"9": Plane.SAGITTAL_T1, "10": Plane.SAGITTAL_T1})
    assert [image.series_id for image in study.planes[Plane.SAGITTAL_T1]] == ["10", "9"]


def test_the_table_overrides_the_header_with_a_note(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], SeriesDescription="T2")
    study = read_study(place.parents[1], {"s": Plane.AXIAL_T2})
    assert len(study.planes[Plane.AXIAL_T2]) == 1
    assert _reasons(study) == [RejectReason.PLANE_CONTRADICTION]
    assert RejectReason.PLANE_CONTRADICTION.kind is ReasonKind.NOTE


def test_without_a_table_headers_determine_the_plane(tmp_path: Path, write_dicom: Writer) -> None:
    write_dicom(tmp_path / "study" / "a" / "1.dcm", STORED, SeriesDescription="Sag T1 TSE")
    write_dicom(tmp_path / "study" / "b" / "1.dcm", STORED, EchoTime=102.0)
    write_dicom(tmp_path / "study" / "c" / "1.dcm", STORED)
    study = read_study(tmp_path / "study")
    assert set(study.planes) == {Plane.SAGITTAL_T1, Plane.SAGITTAL_T2}
    assert _reasons(study) == [RejectReason.UNKNOWN_WEIGHTING]
    assert [
        (series.series_id, series.plane, series.reason, series.num_slices) for series in study.series
    ] == [
        ("a", Plane.SAGITTAL_T1, "", 1),
        ("b", Plane.SAGITTAL_T2, "", 1),
        ("c", None, "unknown_weighting", 1),
    ]


def test_a_bad_file_is_rejected_with_a_reason_and_the_rest_is_read(place: Path, write_dicom: Writer) -> None:
    """The reasons have tests of their own; this one checks that the rest is read."""
    write_dicom(place, STORED)
    data = place.read_bytes()
    place.with_name("2.dcm").write_bytes(data[:-5])
    place.with_name("3.dcm").write_text("not an image")
    place.with_name(".DS_Store").write_bytes(b"hidden")
    write_dicom(place.with_name("4.dcm"), STORED, PixelSpacing=[0, 0.5])
    study = read_study(place.parents[1], TABLE)
    assert {reject.file_name: reject.reason for reject in study.rejects if reject.file_name} == {
        "2.dcm": RejectReason.TRUNCATED,
        "4.dcm": RejectReason.BAD_SPACING,
        "3.dcm": RejectReason.NOT_DICOM,
    }
    assert len(study.planes[Plane.SAGITTAL_T2]) == 1


def test_a_file_given_twice_counts_once(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED)
    (place.parents[1] / "copy").mkdir()
    (place.parents[1] / "copy" / "1.dcm").write_bytes(place.read_bytes())
    study = read_study(place.parents[1], {"s": Plane.SAGITTAL_T2, "copy": Plane.SAGITTAL_T2})
    assert _reasons(study) == [RejectReason.DUPLICATE_INSTANCE]
    assert len(study.planes[Plane.SAGITTAL_T2]) == 1


def test_a_study_of_two_patients_is_rejected(tmp_path: Path, write_dicom: Writer) -> None:
    for number, patient in enumerate(("a", "b"), start=1):
        path = tmp_path / "study" / "s" / f"{number}.dcm"
        write_dicom(path, STORED, PatientID=patient, ImagePositionPatient=[number, 0, 0])
    study = read_study(tmp_path / "study", TABLE)
    assert study.planes == {}
    assert study.patient_id == ""
    assert [reject.reason for reject in study.rejects] == [
        RejectReason.MIXED_PATIENTS,
        RejectReason.NO_SLICES,
    ]


def test_a_series_is_excluded_by_the_table(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, SeriesDescription="Sag T2")
    study = read_study(place.parents[1], {"s": None})
    assert study.planes == {}
    assert [reject.reason for reject in study.rejects] == [
        RejectReason.LEFT_OUT_BY_MAP,
        RejectReason.NOTHING_TO_GRADE,
    ]


def test_large_studies_are_not_kept_in_memory_and_give_the_same_result(
    tmp_path: Path, write_dicom: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        path = tmp_path / "study" / "s" / f"{number}.dcm"
        write_dicom(path, STORED + number, ImagePositionPatient=[4 * number, 0, 0], InstanceNumber=number)
    whole = read_study(tmp_path / "study", TABLE)
    monkeypatch.setattr(study_files, "MAX_KEPT_BYTES", 2 * path.stat().st_size)
    parts = read_study(tmp_path / "study", TABLE)
    assert parts.source_digest == whole.source_digest
    for one, other in zip(parts.planes[Plane.SAGITTAL_T2], whole.planes[Plane.SAGITTAL_T2], strict=True):
        assert one.geometry == other.geometry
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_the_patient_is_found_by_headers_alone(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, PatientID="someone")
    write_dicom(place.with_name("0.dcm"), STORED)
    assert read_patient_id(StudyFiles("study1", place.parents[1])) == "someone"


def _reasons(study: Study) -> list[RejectReason]:
    """Returns the reasons of the rejects except SINGLE_SLICE."""
    return [reject.reason for reject in study.rejects if reject.reason is not RejectReason.SINGLE_SLICE]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ([{"Modality": "CT"}], [RejectReason.NOT_MR]),
        ([{"Modality": "CT"}, {"Modality": "OT"}], [RejectReason.NOT_MR, RejectReason.SECONDARY_CAPTURE]),
        ([{"ImageType": ["ORIGINAL", "PRIMARY", "VFRAME"]}], [RejectReason.DERIVED]),
    ],
)
def test_a_sound_study_without_a_graded_image_is_no_fault(
    place: Path, write_dicom: Writer, changes: list[dict[str, object]], reasons: list[RejectReason]
) -> None:
    for number, tags in enumerate(changes):
        write_dicom(place.with_name(f"{number}.dcm"), STORED, **tags)
    study = read_study(place.parents[1])
    assert _reasons(study) == [*reasons, RejectReason.NOTHING_TO_GRADE]
    assert not [reject for reject in study.rejects if reject.reason.kind is ReasonKind.FAULT]


def test_a_damaged_file_among_them_is_one(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, Modality="CT")
    place.with_name("2.dcm").write_bytes(b"")
    assert _reasons(read_study(place.parents[1]))[-1] is RejectReason.NO_SLICES


def test_a_huge_file_is_not_read(place: Path, write_dicom: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(place, STORED)
    monkeypatch.setattr(study_files, "MAX_FILE_BYTES", 100)
    assert _reasons(read_study(place.parents[1])) == [RejectReason.TOO_LARGE, RejectReason.NO_SLICES]


def test_the_digest_follows_the_bytes_not_the_names(tmp_path: Path, write_dicom: Writer) -> None:
    first = write_dicom(tmp_path / "a" / "s" / "1.dcm", STORED)
    (tmp_path / "b" / "s").mkdir(parents=True)
    (tmp_path / "b" / "s" / "other.dcm").write_bytes(first.read_bytes())
    write_dicom(tmp_path / "c" / "s" / "1.dcm", STORED + 1)
    one, same, other = (read_study(tmp_path / name).source_digest for name in "abc")
    assert one == same != other


def test_spider_studies_are_read_completely(shared_data: Path) -> None:
    for folder in ("spider/midsagittal/train_images/900004", "spider/t2space/train_images/800185"):
        study = read_study(shared_data / folder)
        assert {reject.reason for reject in study.rejects} <= {RejectReason.SINGLE_SLICE}
        assert study.patient_id.startswith("spider-")
        x = [image.geometry.position[0] for image in study.planes[Plane.SAGITTAL_T2]]
        assert x == sorted(x)


def test_no_header_value_appears_in_warnings_or_logs(
    place: Path, write_dicom: Writer, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    write_dicom(
        place, STORED, PatientBirthDate="born 1 May, Doe", PatientAge="no age of Doe", PatientID="Doe"
    )
    caplog.clear()
    recwarn.clear()
    assert len(read_study(place.parents[1], TABLE).planes) == 1
    assert "Doe" not in caplog.text
    assert not [warning for warning in recwarn if "Doe" in str(warning.message)]
