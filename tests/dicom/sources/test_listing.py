import os
import shutil
from pathlib import Path

import pytest

from lumbar_tf.dicom.identifiers import display_name, display_study_id, is_plain_name
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.sources import listing
from lumbar_tf.dicom.sources.listing import list_files


def _reasons(folder: Path) -> list[tuple[str, RejectReason]]:
    return [(reject.file_name, reject.reason) for reject in list_files(folder)[1]]


def test_files_are_in_path_order_without_hidden_ones_and_tables(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a/1.dcm", ".DS_Store", ".hidden/1.dcm", "a/x.csv", "a/X.CSV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, rejects = list_files(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == ["a/1.dcm", "b/10", "b/2"]
    assert rejects == []


def test_links_are_not_followed_but_the_root_may_be_one(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "1.dcm").touch()
    (inside / "2.dcm").symlink_to(outside / "1.dcm")
    (inside / "3.dcm").symlink_to(tmp_path / "nowhere")
    (inside / "4").symlink_to(outside, target_is_directory=True)
    (inside / "5").symlink_to(inside, target_is_directory=True)
    assert list_files(inside)[0] == [inside / "1.dcm"]
    assert sorted(_reasons(inside)) == [(name, RejectReason.SYMLINK) for name in ("2.dcm", "3.dcm", "4", "5")]
    (tmp_path / "link").symlink_to(inside, target_is_directory=True)
    assert list_files(tmp_path / "link")[0] == [tmp_path / "link" / "1.dcm"]


def test_a_named_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.dcm")
    assert _reasons(tmp_path) == [("1.dcm", RejectReason.UNREADABLE)]


@pytest.mark.parametrize("name", ["1.zip", "1.ZIP", "1.tar", "1.tar.gz", "1.7z", "1.rar"])
def test_archives_inside_are_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert [reason for _, reason in _reasons(tmp_path)] == [RejectReason.NESTED_ARCHIVE]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can list any folder, so the error is simulated."""
    (tmp_path / "7").mkdir()
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "1.dcm").touch()
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "7":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    assert [path.name for path in list_files(tmp_path)[0]] == ["1.dcm"]
    assert _reasons(tmp_path) == [("7", RejectReason.UNREADABLE)]


@pytest.mark.parametrize(
    "name",
    [
        "7", "0001.dcm", "IM000001", "IM_0027", "IM-0001-0002.dcm", "I10", "img7.IMA",
        "MR.1.2.840.113619.2.5",
        "1.2.840.113619.2.5.dcm", "slice_3.dcm",
        "DICOMDIR", "SE0", "a", "study-12",
        "image001-02.dicom",
    ],
)  # fmt: skip
def test_numbers_and_scanners_names_are_kept(name: str) -> None:
    assert display_name(Path("x") / name, Path("x")) == name


@pytest.mark.parametrize(
    "name",
    [
        "Doe^Jane", "DOE", "Kim_19500312", "lee.1950.03.12", "JaneDoe.dcm", "Müller.dcm", "IM0001 Doe", "",
        "1 2",
        "MR.1.2.doe.dcm", "1.2.3.doe", "IM1.doe", "doe/1", "MRN-0815-47", "dr_7",
    ],
)  # fmt: skip
def test_anything_else_could_be_a_name_and_is_replaced(name: str) -> None:
    assert not is_plain_name(name)
    if name and "/" not in name:
        shown = display_name(Path("x") / name, Path("x"))
        assert shown.startswith("file-") and len(shown) == 17
        assert display_study_id(name).startswith("study-")


def test_replaced_names_differ_by_folder(tmp_path: Path) -> None:
    names = {display_name(tmp_path / place / "Doe", tmp_path) for place in ("a", "b", "a/b")}
    assert len(names) == 3
    assert display_name(Path("/a/Doe"), Path("/a")) == display_name(Path("/b/Doe"), Path("/b"))


def test_names_that_are_not_text_are_replaced(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\xfe"))
    path.touch()
    assert display_name(path, tmp_path).startswith("file-")
    assert list_files(tmp_path)[0] == [path]


def test_paths_over_the_systems_limit_are_reported(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").touch()
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(20):  # 5,000 characters; relative names reach further than absolute ones
            os.mkdir("d" * 250)  # noqa: PTH102 - relative to the folder that has no absolute path
            os.chdir("d" * 250)
        with open("2.dcm", "wb"):  # noqa: PTH123 - as above
            pass
    finally:
        os.chdir(before)
    try:
        files, rejects = list_files(tmp_path)
        assert files == [tmp_path / "1.dcm"]
        assert [reject.reason for reject in rejects] == [RejectReason.UNREADABLE]
    finally:
        shutil.rmtree(tmp_path / ("d" * 250))
