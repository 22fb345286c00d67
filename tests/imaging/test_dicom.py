from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

from lumbar_tf.imaging import dicom
from lumbar_tf.imaging.dicom import read_study
from lumbar_tf.imaging.study import RejectReason
from lumbar_tf.labels import Plane

Writer = Callable[..., Path]
STORED = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
TABLE = {"s": Plane.SAGITTAL_T2}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "study1" / "s" / "1.dcm"


def _only(place: Path) -> np.ndarray:
    study = read_study(place.parents[1], TABLE)
    assert study.rejects == ()
    (each,) = study.planes[Plane.SAGITTAL_T2]
    return each.pixels


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
    (each,) = study.planes[Plane.SAGITTAL_T2]
    np.testing.assert_array_equal(each.pixels, STORED)
    assert each.pixels.dtype == np.float32
    assert (study.study_id, study.patient_id) == ("study1", "someone")
    assert (each.series_id, each.instance_number) == ("s", 7)
    assert each.geometry.position == (1.5, -2.0, 30.0)
    assert (each.geometry.row_spacing_mm, each.geometry.column_spacing_mm) == (0.5, 0.75)
    assert (each.geometry.rows, each.geometry.columns) == (3, 4)


def test_rescale_is_applied_once(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, RescaleSlope=2.0, RescaleIntercept=-50.0)
    np.testing.assert_array_equal(_only(place), STORED * 2.0 - 50)


def test_monochrome1_is_turned_round_once(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(_only(place), 4095.0 - STORED)


def test_monochrome1_and_rescale_together(place: Path, write_dicom: Writer) -> None:
    stored = STORED.astype(np.int16) - 500
    write_dicom(place, stored, PhotometricInterpretation="MONOCHROME1", RescaleSlope=0.5, RescaleIntercept=3)
    # Signed values: -1 - stored maps the largest (2^15 - 1) to the smallest (-2^15) and back.
    np.testing.assert_array_equal(_only(place), (-1.0 - stored) * 0.5 + 3)


def test_slices_are_sorted_by_place_not_by_name_or_number(tmp_path: Path, write_dicom: Writer) -> None:
    for name, number, x in (("1", 1, 8.0), ("2", 2, -4.0), ("3", 3, 0.0)):
        path = tmp_path / "study" / "s" / f"{name}.dcm"
        write_dicom(path, STORED, InstanceNumber=number, ImagePositionPatient=[x, 0, 0])
    study = read_study(tmp_path / "study", TABLE)
    assert [each.geometry.position[0] for each in study.planes[Plane.SAGITTAL_T2]] == [-4.0, 0.0, 8.0]


def test_several_series_of_a_plane_are_kept_together(tmp_path: Path, write_dicom: Writer) -> None:
    for series in ("9", "10"):
        write_dicom(tmp_path / "study" / series / "1.dcm", STORED)
    study = read_study(tmp_path / "study", {"9": Plane.SAGITTAL_T1, "10": Plane.SAGITTAL_T1})
    assert [each.series_id for each in study.planes[Plane.SAGITTAL_T1]] == ["10", "9"]


def test_a_table_wins_over_a_header_with_a_note(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], SeriesDescription="T2")
    study = read_study(place.parents[1], {"s": Plane.AXIAL_T2})
    assert len(study.planes[Plane.AXIAL_T2]) == 1
    assert [each.reason for each in study.rejects] == [RejectReason.PLANE_CONTRADICTION]
    assert study.rejects[0].reason.is_note


def test_without_a_table_headers_tell_the_plane(tmp_path: Path, write_dicom: Writer) -> None:
    write_dicom(tmp_path / "study" / "a" / "1.dcm", STORED, SeriesDescription="Sag T1 TSE")
    write_dicom(tmp_path / "study" / "b" / "1.dcm", STORED, EchoTime=102.0)
    write_dicom(tmp_path / "study" / "c" / "1.dcm", STORED)
    study = read_study(tmp_path / "study")
    assert set(study.planes) == {Plane.SAGITTAL_T1, Plane.SAGITTAL_T2}
    assert [(each.series_id, each.reason) for each in study.rejects] == [("c", RejectReason.UNKNOWN_PLANE)]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImagePositionPatient": None}, RejectReason.BAD_GEOMETRY),
        ({"ImageOrientationPatient": None}, RejectReason.BAD_GEOMETRY),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, RejectReason.BAD_GEOMETRY),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, RejectReason.BAD_GEOMETRY),
        ({"PixelSpacing": None}, RejectReason.BAD_GEOMETRY),
        ({"PixelSpacing": [0, 0.5]}, RejectReason.BAD_GEOMETRY),
        ({"PixelSpacing": [-0.5, 0.5]}, RejectReason.BAD_GEOMETRY),
        ({"RescaleSlope": 0}, RejectReason.BAD_RESCALE),
        ({"RescaleSlope": "1e38"}, RejectReason.BAD_RESCALE),
        ({"Rows": 65535, "Columns": 65535}, RejectReason.TOO_LARGE),
        ({"Rows": 30}, RejectReason.UNDECODABLE),
        ({"NumberOfFrames": 2}, RejectReason.MULTI_FRAME),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, RejectReason.COLOUR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, RejectReason.COLOUR),
        ({"PixelData": None}, RejectReason.NO_PIXELS),
    ],
)
def test_a_bad_file_is_left_out_with_a_reason_and_the_rest_goes_on(
    place: Path, write_dicom: Writer, tags: dict, reason: RejectReason
) -> None:
    write_dicom(place, STORED)
    write_dicom(place.with_name("bad.dcm"), STORED, **tags)
    study = read_study(place.parents[1], TABLE)
    assert [(each.file_name, each.reason) for each in study.rejects] == [("bad.dcm", reason)]
    assert len(study.planes[Plane.SAGITTAL_T2]) == 1


def test_nan_geometry_is_refused(place: Path, write_dicom: Writer) -> None:
    write_dicom(place, STORED, ImagePositionPatient=[1.25, 2, 3])
    # The writer would not write it, a scanner did: patched in place, with the value's own length.
    place.write_bytes(place.read_bytes().replace(b"1.25\\2", b"NaN \\2"))
    study = read_study(place.parents[1], TABLE)
    assert [each.reason for each in study.rejects] == [RejectReason.BAD_GEOMETRY]


def test_truncated_and_foreign_files_are_left_out(place: Path, write_dicom: Writer) -> None:
    data = write_dicom(place, STORED).read_bytes()
    place.write_bytes(data[:-5])
    place.with_name("note.txt").write_text("not an image")
    place.with_name(".DS_Store").write_bytes(b"hidden")
    reasons = {each.file_name: each.reason for each in read_study(place.parents[1], TABLE).rejects}
    assert reasons == {"1.dcm": RejectReason.UNDECODABLE, "note.txt": RejectReason.NOT_DICOM}


def test_a_huge_file_is_not_read(place: Path, write_dicom: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(place, STORED)
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 100)
    assert [each.reason for each in read_study(place.parents[1]).rejects] == [RejectReason.TOO_LARGE]


def test_the_digest_follows_the_bytes_not_the_names(tmp_path: Path, write_dicom: Writer) -> None:
    first = write_dicom(tmp_path / "a" / "s" / "1.dcm", STORED)
    (tmp_path / "b" / "s").mkdir(parents=True)
    (tmp_path / "b" / "s" / "other.dcm").write_bytes(first.read_bytes())
    write_dicom(tmp_path / "c" / "s" / "1.dcm", STORED + 1)
    one, same, other = (read_study(tmp_path / name).source_digest for name in "abc")
    assert one == same != other


def test_spider_studies_are_read_whole(shared_data: Path) -> None:
    for folder in ("spider/midsagittal/train_images/900004", "spider/t2space/train_images/800185"):
        study = read_study(shared_data / folder)
        assert study.rejects == ()
        assert study.patient_id.startswith("spider-")
        x = [each.geometry.position[0] for each in study.planes[Plane.SAGITTAL_T2]]
        assert x == sorted(x)
