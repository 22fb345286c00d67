import errno
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.sources import archives
from lumbar_tf.dicom.sources.archives import UnsafeArchiveError, unpack_zip


def _pack(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _refused(tmp_path: Path, path: Path, match: str) -> UnsafeArchiveError:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UnsafeArchiveError, match=match) as caught:
        unpack_zip(path, tmp_path / "out")
    after = {path.name for path in tmp_path.iterdir()}
    assert after <= {*before, "out"}
    assert caught.value.reason is RejectReason.UNSAFE_ARCHIVE
    assert str(tmp_path) not in str(caught.value)
    return caught.value


def test_a_zip_is_unpacked_unchanged(tmp_path: Path) -> None:
    members = {"a/1.dcm": os.urandom(3_000_000), "a/b/2": b"", "3": bytes(100_000)}
    unpack_zip(_pack(tmp_path / "x.zip", **members), tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == members


@pytest.mark.parametrize(
    "name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "a\\..\\evil.dcm", "C:evil.dcm", "a/.."]
)
def test_members_that_point_outside_are_rejected(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"data")
    _refused(tmp_path, tmp_path / "x.zip", "outside")


def test_links_are_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    _refused(tmp_path, tmp_path / "x.zip", "links")


def test_bombs_are_rejected_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = _pack(tmp_path / "x.zip", **{"1.dcm": bytes(20_000_000)})
    _refused(tmp_path, bomb, "at most 200-fold")
    monkeypatch.setattr(archives, "MAX_ZIP_BYTES", 1000)
    _refused(tmp_path, bomb, "at most 2000000 files and 1000 bytes")
    monkeypatch.setattr(archives, "MAX_ZIP_MEMBERS", 0)
    _refused(tmp_path, bomb, "at most 0 files")
    assert not (tmp_path / "out").exists()


def test_a_member_larger_than_declared_is_rejected(tmp_path: Path) -> None:
    """The directory declares 1,000 bytes, and the stream has ten million."""
    path = _pack(tmp_path / "x.zip", **{"1.dcm": os.urandom(500) + bytes(10_000_000)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 1000)
    path.write_bytes(bytes(data))
    _refused(tmp_path, path, "intact")
    assert (tmp_path / "out" / "1.dcm").stat().st_size <= 1000


def test_names_that_are_invalid_on_the_file_system_are_rejected(tmp_path: Path) -> None:
    _refused(tmp_path, _pack(tmp_path / "x.zip", **{"a" * 300: b"1"}), "distinct names")


def _twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("1.dcm", b"1")
    archive.writestr("1.dcm", b"2")


def _file_and_folder(archive: zipfile.ZipFile) -> None:
    archive.writestr("1", b"1")
    archive.writestr("1/2", b"2")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [_twice, _file_and_folder])
def test_names_that_clash_are_rejected(tmp_path: Path, pack: Callable[[zipfile.ZipFile], None]) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        pack(archive)
    _refused(tmp_path, tmp_path / "x.zip", "distinct names")


def test_damaged_and_encrypted_zips_are_rejected(tmp_path: Path) -> None:
    sound = _pack(tmp_path / "x.zip", **{"1.dcm": os.urandom(5000)}).read_bytes()
    encrypted = bytearray(sound)
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        encrypted[encrypted.index(signature) + offset] |= 1
    flipped = bytearray(sound)
    flipped[2000] ^= 0xFF
    for data in (sound[:3000], bytes(encrypted), bytes(flipped), b"text", b""):
        (tmp_path / "x.zip").write_bytes(data)
        _refused(tmp_path, tmp_path / "x.zip", "intact and unencrypted")
        for path in (tmp_path / "out").rglob("*"):
            path.unlink()


def test_the_error_has_the_display_name_of_the_zip(tmp_path: Path) -> None:
    for name, shown in (("7.zip", "7.zip"), ("Doe Jane.zip", "file-")):
        (tmp_path / name).write_text("text")
        assert _refused(tmp_path, tmp_path / name, "intact").display_name.startswith(shown)


def test_a_full_disk_is_not_a_fault_of_the_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = _pack(tmp_path / "x.zip", **{"1": b"1"})
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="No space left"):
        unpack_zip(archive, tmp_path / "out")
