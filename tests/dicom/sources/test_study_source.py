import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from lumbar_tf.dicom.files.tolerant_reading import read_all_elements, read_file_identity
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.sources import study_source
from lumbar_tf.dicom.sources.archives import SourceError
from lumbar_tf.dicom.sources.study_source import (
    StudyFiles,
    StudySources,
    UnsafeArchiveError,
    display_name,
    list_study_files,
    read_source,
)
from lumbar_tf.dicom.study_files import read_patient_id
from lumbar_tf.dicom.study_reader import read_study_files

Writer = Callable[..., Path]
PIXELS = np.zeros((2, 2), np.uint16)


def _fill(folder: Path, write: Writer, *places: str) -> None:
    """Writes small files; the first folder of each path is the StudyInstanceUID."""
    for place in places:
        write(folder / place, PIXELS, StudyInstanceUID=place.split("/")[0])


def _ids(root: Path) -> list[str]:
    with read_source(root) as source:
        assert all(path.is_file() for study in source.studies for path in list_study_files(study)[0])
        return [study.study_id for study in source.studies]


def _find(root: Path) -> StudySources:
    with read_source(root) as source:
        return source


def _reasons(source: StudySources) -> list[tuple[str, RejectReason]]:
    return [(reject.file_name, reject.reason) for reject in source.rejects]


def test_the_competition_s_folder_comes_with_its_tables(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "train_images", write_dicom, "11/1/1.dcm", "7/1/1.dcm")
    for name in ("train.csv", "train_series_descriptions.csv", "test_series_descriptions.csv"):
        (tmp_path / name).write_text("x\n")
    for root in (tmp_path, tmp_path / "train_images"):
        source = _find(root)
        assert [study.study_id for study in source.studies] == ["11", "7"]
        assert source.labels == tmp_path / "train.csv"
        assert source.coordinates is None
        assert source.series == tmp_path / "train_series_descriptions.csv"


def test_test_images_have_no_labels(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "test_images", write_dicom, "5/1/1.dcm")
    for name in ("train.csv", "test_series_descriptions.csv"):
        (tmp_path / name).write_text("x\n")
    source = _find(tmp_path)
    assert source.labels is None
    assert source.series == tmp_path / "test_series_descriptions.csv"


def test_no_file_of_the_competition_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(study_source, "read_file_identity", fail)
    for study in ("1", "2"):
        (tmp_path / "train_images" / study / "7").mkdir(parents=True)
        (tmp_path / "train_images" / study / "7" / "1.dcm").touch()
    assert _find(tmp_path).studies == tuple(
        StudyFiles(study, tmp_path / "train_images" / study) for study in ("1", "2")
    )


def test_folders_of_the_competition_that_cannot_be_studies_are_reported(
    tmp_path: Path, write_dicom: Writer
) -> None:
    images = tmp_path / "train_images"
    _fill(images, write_dicom, "1/1/1.dcm", "Doe, Jane/1/1.dcm")
    (images / "2").mkdir()
    (images / "3").symlink_to(images / "1", target_is_directory=True)
    source = _find(tmp_path)
    assert [study.study_id for study in source.studies] == ["1", "2"]
    assert [reason for _, reason in _reasons(source)] == [RejectReason.SYMLINK, RejectReason.BAD_UID]
    files, rejects = list_study_files(source.studies[1])
    assert files == []
    assert [(reject.study_id, reject.reason) for reject in rejects] == [("2", RejectReason.EMPTY_FOLDER)]


def test_files_beside_the_competition_s_folders_are_read(tmp_path: Path, write_dicom: Writer) -> None:
    images = tmp_path / "train_images"
    _fill(images, write_dicom, "7/1/1.dcm")
    write_dicom(images / "9.dcm", PIXELS, StudyInstanceUID="6", SeriesInstanceUID="1")
    (images / "notes.txt").write_text("Doe")
    (images / "more.zip").write_bytes(b"PK")
    (images / "list.csv").write_text("Doe")
    source = _find(tmp_path)
    assert source.studies == (StudyFiles("6", images, (images / "9.dcm",)), StudyFiles("7", images / "7"))
    assert [reason for _, reason in _reasons(source)] == [
        RejectReason.NESTED_ARCHIVE,
        RejectReason.NOT_DICOM,
    ]


def test_faults_inside_a_study_are_reported_with_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "train_images" / "1"
    folder.mkdir(parents=True)
    (folder / "1.dcm").touch()
    (folder / "2.dcm").symlink_to("1.dcm")
    (study,) = _find(tmp_path).studies
    files, rejects = list_study_files(study)
    assert files == [folder / "1.dcm"]
    assert [(reject.study_id, reject.file_name, reject.reason) for reject in rejects] == [
        ("1", "2.dcm", RejectReason.SYMLINK)
    ]


@pytest.mark.parametrize(
    "places",
    [
        ("{}/1.dcm",),
        ("{}/7/1.dcm", "{}/8/1.dcm"),
        ("PA0/ST{}/SE0/IM0", "PA0/ST{}/SE1/IM0"),
        ("IM{}",),
        ("2024/05/13/{}/a/b/c/d/1", "elsewhere/{}/2"),
    ],
)
def test_files_are_grouped_by_their_uid_in_any_folder(
    tmp_path: Path, write_dicom: Writer, places: tuple[str, ...]
) -> None:
    expected: dict[str, list[Path]] = {}
    for study in ("1.2.3", "1.2.4"):
        for number, place in enumerate(places):
            path = tmp_path / "cohort" / place.format(study)
            write_dicom(path, PIXELS, StudyInstanceUID=study, SOPInstanceUID=f"{study}.{number}")
            expected.setdefault(study, []).append(path)
    source = _find(tmp_path / "cohort")
    assert {study.study_id: sorted(study.files or ()) for study in source.studies} == {
        study: sorted(paths) for study, paths in expected.items()
    }
    assert all(study.root == tmp_path / "cohort" for study in source.studies)
    is_flat = places == ("IM{}",)
    assert {reject.reason for reject in source.rejects} == (
        {RejectReason.SEVERAL_STUDIES} if is_flat else set()
    )


def test_without_a_uid_the_top_folder_is_the_study(tmp_path: Path, write_dicom: Writer) -> None:
    root = tmp_path / "7"
    for place in ("1/a/1.dcm", "1/b/1.dcm", "2/1.dcm", "Jane Doe/1.dcm", "3.dcm"):
        write_dicom(root / place, PIXELS, StudyInstanceUID=None)
    ids = _ids(root)
    assert [study_id for study_id in ids if not study_id.startswith("study-")] == ["1", "2", "7"]
    assert len(ids) == 4


def test_a_single_study_a_single_folder_and_a_single_file(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "x", write_dicom, "1.5/7/1.dcm", "1.5/8/1.dcm")
    for place in (".", "1.5", "1.5/7", "1.5/7/1.dcm"):
        assert _ids(tmp_path / "x" / place) == ["1.5"]
    (study,) = _find(tmp_path / "x" / "1.5" / "7" / "1.dcm").studies
    assert study.files == (tmp_path / "x" / "1.5" / "7" / "1.dcm",)


def test_damaged_files_are_assigned_to_the_nearest_study(tmp_path: Path, write_dicom: Writer) -> None:
    damaged = bytes(128) + b"DICM" + b"\x08\x00\x05\x00ZZ"
    _fill(tmp_path, write_dicom, "1/7/1.dcm", "2/7/1.dcm")
    for place in ("1/7/2.dcm", "1/8/1.dcm", "3/1.dcm"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(damaged)
    source = _find(tmp_path)
    assert {study.study_id: len(study.files or ()) for study in source.studies} == {"1": 3, "2": 1}
    assert _reasons(source) == [("1.dcm", RejectReason.DAMAGED_HEADER)]


def test_a_source_of_damaged_files_only_is_one_study(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    assert _ids(tmp_path) == ["1"]


@pytest.mark.parametrize("uid", ["../../1", "1..2", "1/2", "a b", "x" * 65])
def test_an_unsafe_uid_is_rejected(tmp_path: Path, write_dicom: Writer, uid: str) -> None:
    write_dicom(tmp_path / "1" / "1" / "1.dcm", PIXELS, StudyInstanceUID=uid)
    _fill(tmp_path, write_dicom, "2/1/1.dcm")
    source = _find(tmp_path)
    assert [study.study_id for study in source.studies] == ["2"]
    assert _reasons(source) == [("1.dcm", RejectReason.BAD_UID)]
    assert uid not in source.rejects[0].message


def test_other_files_beside_the_images_are_reported(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path, write_dicom, "1/1/1.dcm")
    (tmp_path / "README").write_text("for Jane Doe")
    (tmp_path / "VIEWER.EXE").write_bytes(b"MZ" + bytes(400))
    (tmp_path / "DICOMDIR").write_bytes(b"damaged")
    (tmp_path / "list.csv").write_text("Doe,Jane\n")
    (tmp_path / ".DS_Store").write_bytes(bytes(10))
    (tmp_path / "1" / "9.zip").write_bytes(b"PK")
    os.mkfifo(tmp_path / "1" / "8")
    source = _find(tmp_path)
    assert [study.study_id for study in source.studies] == ["1"]
    assert sorted(reason.value for _, reason in _reasons(source)) == [
        "dicomdir", "nested_archive", "not_dicom", "not_dicom", "not_dicom", "unreadable",
    ]  # fmt: skip
    names = {name for name, _ in _reasons(source)}
    assert {"DICOMDIR", "9.zip", "8"} <= names
    assert not any("README" in name or "VIEWER" in name for name in names)


def test_a_file_without_read_permission_is_reported(
    tmp_path: Path, write_dicom: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root can read any file, so the error is simulated."""
    _fill(tmp_path, write_dicom, "1/1/1.dcm", "1/1/2.dcm")
    read = study_source.read_file_identity

    def refuse(path: Path) -> Any:
        if path.name == "2.dcm":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(study_source, "read_file_identity", refuse)
    source = _find(tmp_path)
    assert _reasons(source) == [("2.dcm", RejectReason.UNREADABLE)]
    assert source.rejects[0].message == "cannot be read: Permission denied"


def test_a_shared_folder_is_noted_for_each_study(tmp_path: Path, write_dicom: Writer) -> None:
    for number, study in enumerate("112"):
        write_dicom(tmp_path / "x" / "y" / f"{number}", PIXELS, StudyInstanceUID=study)
    write_dicom(tmp_path / "x" / "z" / "1", PIXELS, StudyInstanceUID="3")
    rejects = _find(tmp_path).rejects
    assert [(reject.study_id, reject.reason) for reject in rejects] == [
        ("1", RejectReason.SEVERAL_STUDIES),
        ("2", RejectReason.SEVERAL_STUDIES),
    ]


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir"])
def test_a_dicomdir_stands_for_its_folder(tmp_path: Path, write_dicom: Writer, name: str) -> None:
    _fill(tmp_path, write_dicom, "1/1/1.dcm", "2/1/1.dcm")
    (tmp_path / name).write_bytes(b"whatever it says, files are looked at")
    assert _ids(tmp_path / name) == _ids(tmp_path) == ["1", "2"]


@pytest.mark.parametrize("top", ["", "wrapped/"])
def test_a_zip_is_unpacked_and_removed(tmp_path: Path, write_dicom: Writer, top: str) -> None:
    _fill(tmp_path / "in", write_dicom, "1/s/1.dcm", "2/s/1.dcm")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in (tmp_path / "in").rglob("*.dcm"):
            archive.write(path, f"{top}{'train_images/' if top else ''}{path.relative_to(tmp_path / 'in')}")
    with read_source(tmp_path / "x.zip") as source:
        files = [path for study in source.studies for path in list_study_files(study)[0]]
        assert [study.study_id for study in source.studies] == ["1", "2"]
        assert len(files) == 2
        assert all(path.is_file() for path in files)
    assert not any(path.exists() for path in files)


def test_an_unsafe_zip_is_a_value_error_with_its_reason(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("../evil.dcm"), b"data")
    with pytest.raises(ValueError, match="outside") as caught:
        _find(tmp_path / "x.zip")
    assert isinstance(caught.value, UnsafeArchiveError)
    assert caught.value.reason is RejectReason.UNSAFE_ARCHIVE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip"]


def test_a_source_without_studies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty" / "7").mkdir(parents=True)
    (tmp_path / "none" / "train_images").mkdir(parents=True)
    (tmp_path / "not.zip").write_text("text")
    with pytest.raises(ValueError, match="at least one study"):
        _find(tmp_path / "empty")
    with pytest.raises(ValueError, match="one folder per study"):
        _find(tmp_path / "none")
    with pytest.raises(ValueError, match="absent"):
        _find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="zip"):
        _find(tmp_path / "not.zip")


def test_links_out_of_the_tree_are_not_followed(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "outside", write_dicom, "9/1/1.dcm")
    _fill(tmp_path / "root", write_dicom, "1/1/1.dcm")
    (tmp_path / "root" / "9").symlink_to(tmp_path / "outside" / "9", target_is_directory=True)
    source = _find(tmp_path / "root")
    assert [study.study_id for study in source.studies] == ["1"]
    assert _reasons(source) == [("9", RejectReason.SYMLINK)]
    (tmp_path / "link").symlink_to(tmp_path / "root", target_is_directory=True)
    assert _ids(tmp_path / "link") == ["1"]


def test_display_names_do_not_depend_on_the_root(tmp_path: Path) -> None:
    first, second = (display_name(tmp_path / name / "s" / "Doe", tmp_path / name) for name in ("a", "b"))
    assert first == second


def test_real_exports_are_grouped_as_pydicom_reads_them(shared_data: Path) -> None:
    folder = shared_data / "formats"
    source = _find(folder)
    expected: dict[str, set[Path]] = {}
    for path in folder.rglob("*.dcm"):
        expected.setdefault(str(pydicom.dcmread(path).StudyInstanceUID), set()).add(path)
    assert {study.study_id: set(study.files or ()) for study in source.studies} == expected
    assert {reject.reason for reject in source.rejects} == {
        RejectReason.NOT_DICOM,  # licences
        RejectReason.SEVERAL_STUDIES,
    }


@pytest.mark.parametrize("data", [b"text", bytes(500), b"\xff\xd8\xff\xe0JFIF"])
def test_a_lone_file_of_another_kind_is_not_called_a_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "Doe Jane.dcm").write_bytes(data)
    with pytest.raises(SourceError, match="a folder, a DICOM file or a zip archive") as caught:
        _find(tmp_path / "Doe Jane.dcm")
    assert caught.value.reason is RejectReason.UNREADABLE
    assert "Doe" not in str(caught.value)


def test_a_path_over_the_systems_limit_is_an_error_of_that_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="File name too long"):
        _find(tmp_path / ("a" * 300))


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.dcm")
    with pytest.raises(ValueError, match="a pipe or a device"):
        _find(tmp_path / "1.dcm")


def test_a_pipe_that_replaces_a_listed_file_costs_that_file_only(tmp_path: Path, write_dicom: Writer) -> None:
    for name in ("1.dcm", "2.dcm"):
        write_dicom(tmp_path / name, PIXELS, StudyInstanceUID="5", PatientID="p5")
    (study,) = _find(tmp_path).studies
    (tmp_path / "1.dcm").unlink()
    os.mkfifo(tmp_path / "1.dcm")
    rejects = read_study_files(study).rejects
    assert [(reject.file_name, reject.reason) for reject in rejects][:1] == [
        ("1.dcm", RejectReason.UNREADABLE)
    ]
    assert read_patient_id(study) == "p5"
    assert read_all_elements(tmp_path / "1.dcm")[1]
    with pytest.raises(OSError, match="not a regular file"):
        read_file_identity(tmp_path / "1.dcm")
