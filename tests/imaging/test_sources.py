import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.imaging import sources
from lumbar_tf.imaging.sources import read_source

Writer = Callable[..., Path]
PIXELS = np.zeros((2, 2), np.uint16)


def _fill(folder: Path, write: Writer, *places: str) -> None:
    for place in places:
        study = place.split("/")[0]
        write(folder / place, PIXELS, StudyInstanceUID=study)


def _ids(root: Path) -> list[str]:
    with read_source(root) as source:
        assert all(each.folder.is_dir() for each in source.studies)
        return [each.study_id for each in source.studies]


def test_the_competition_s_folder_comes_with_its_tables(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "train_images", write_dicom, "11/1/1.dcm", "7/1/1.dcm")
    for name in ("train.csv", "train_series_descriptions.csv", "test_series_descriptions.csv"):
        (tmp_path / name).write_text("x\n")
    for root in (tmp_path, tmp_path / "train_images"):
        with read_source(root) as source:
            assert [each.study_id for each in source.studies] == ["11", "7"]
            assert source.labels == tmp_path / "train.csv"
            assert source.coordinates is None
            assert source.series == tmp_path / "train_series_descriptions.csv"


def test_test_images_have_no_labels(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "test_images", write_dicom, "5/1/1.dcm")
    for name in ("train.csv", "test_series_descriptions.csv"):
        (tmp_path / name).write_text("x\n")
    with read_source(tmp_path) as source:
        assert source.labels is None
        assert source.series == tmp_path / "test_series_descriptions.csv"


def test_a_folder_of_studies_and_a_single_study(tmp_path: Path, write_dicom: Writer) -> None:
    root = tmp_path / "cohort"
    _fill(root, write_dicom, "a/s1/1.dcm", "a/s2/1.dcm", "b/s1/1.dcm")
    assert _ids(root) == ["a", "b"]
    assert _ids(root / "a") == ["a"]
    assert _ids(root / "a" / "s1") == ["s1"]


def test_studies_without_series_folders_are_told_by_their_uid(tmp_path: Path, write_dicom: Writer) -> None:
    root = tmp_path / "flat"
    _fill(root, write_dicom, "a/1.dcm", "b/1.dcm")
    assert _ids(root) == ["a", "b"]


@pytest.mark.parametrize("top", ["", "wrapped/"])
def test_a_zip_is_unpacked_and_removed(tmp_path: Path, write_dicom: Writer, top: str) -> None:
    _fill(tmp_path / "in", write_dicom, "a/s/1.dcm", "b/s/1.dcm")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in (tmp_path / "in").rglob("*.dcm"):
            archive.write(path, f"{top}{'train_images/' if top else ''}{path.relative_to(tmp_path / 'in')}")
    with read_source(tmp_path / "x.zip") as source:
        folders = [each.folder for each in source.studies]
        assert [each.study_id for each in source.studies] == ["a", "b"]
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)


def test_a_zipped_study_goes_by_the_zip_s_name(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "in", write_dicom, "a/1.dcm")
    with zipfile.ZipFile(tmp_path / "case7.zip", "w") as archive:
        archive.write(tmp_path / "in" / "a" / "1.dcm", "1.dcm")
    assert _ids(tmp_path / "case7.zip") == ["case7"]


@pytest.mark.parametrize(
    "name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "a\\..\\evil.dcm", "C:evil.dcm"]
)
def test_a_zip_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"data")
    with pytest.raises(ValueError, match="outside"):
        _ids(tmp_path / "x.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip"]


def test_links_and_bombs_in_a_zip_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("a/link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="links"):
        _ids(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.dcm", bytes(20_000_000))
    with pytest.raises(ValueError, match="unpack"):
        _ids(tmp_path / "bomb.zip")
    monkeypatch.setattr(sources, "MAX_ZIP_BYTES", 1000)
    with pytest.raises(ValueError, match="at most"):
        _ids(tmp_path / "bomb.zip")


def test_nothing_there_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "not.zip").write_text("text")
    with pytest.raises(ValueError, match="at least one study"):
        _ids(tmp_path / "empty")
    with pytest.raises(ValueError, match="absent"):
        _ids(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="zip"):
        _ids(tmp_path / "not.zip")


def test_links_out_of_the_tree_are_not_followed(tmp_path: Path, write_dicom: Writer) -> None:
    _fill(tmp_path / "real", write_dicom, "b/s/1.dcm")
    _fill(tmp_path / "cohort", write_dicom, "a/s/1.dcm")
    (tmp_path / "cohort" / "b").symlink_to(tmp_path / "real" / "b")
    assert _ids(tmp_path / "cohort") == ["a"]
