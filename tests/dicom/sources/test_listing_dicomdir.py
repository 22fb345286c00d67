from pathlib import Path

import pydicom
import pytest

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.sources.listing import find_absent_files, list_files
from tests.dicom.made_sources import write_disc


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    return write_disc(tmp_path / "disc", files=tmp_path / "in")


def _absent(disc: Path) -> list[tuple[str, RejectReason]]:
    files, _ = list_files(disc)
    return [(reject.file_name, reject.reason) for reject in find_absent_files(disc / "DICOMDIR", files, disc)]


def test_a_complete_disc_lacks_nothing(disc: Path) -> None:
    assert len(list_files(disc)[0]) == 4
    assert _absent(disc) == []


def test_an_absent_file_is_reported(disc: Path) -> None:
    next(disc.rglob("IM000001")).unlink()
    assert _absent(disc) == [("IM000001", RejectReason.LISTED_FILE_ABSENT)]


def test_upper_and_lower_case_are_equal(disc: Path) -> None:
    for path in sorted(disc.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    assert _absent(disc) == []


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_name_that_points_outside_is_absent(disc: Path) -> None:
    dataset = pydicom.dcmread(disc / "DICOMDIR")
    images = [record for record in dataset.DirectoryRecordSequence if "ReferencedFileID" in record]
    images[0].ReferencedFileID = ["..", "in", "1.dcm"]
    images[1].ReferencedFileID = "/etc/passwd"
    dataset.save_as(disc / "DICOMDIR")
    assert [reason for _, reason in _absent(disc)] == [RejectReason.LISTED_FILE_ABSENT] * 2
    assert "passwd" not in str(_absent(disc))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", RejectReason.TRUNCATED),
        (b"no index at all", RejectReason.NOT_DICOM),
        (bytes(128) + b"DICM\x02\x00", None),
    ],
)
def test_an_unreadable_directory_is_reported(disc: Path, data: bytes, reason: RejectReason | None) -> None:
    (disc / "DICOMDIR").write_bytes(data)
    ((name, found),) = _absent(disc)
    assert name == "DICOMDIR"
    assert reason in (None, found)


def test_a_truncated_directory_is_reported_and_never_raises(disc: Path) -> None:
    whole = (disc / "DICOMDIR").read_bytes()
    for size in range(0, len(whole), 37):
        (disc / "DICOMDIR").write_bytes(whole[:size])
        assert [name for name, _ in _absent(disc)] == ["DICOMDIR"], size
