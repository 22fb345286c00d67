import errno
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.sources import archives
from lumbar_tf.dicom.sources.archives import UnsafeArchiveError, unpack_zip
from lumbar_tf.dicom.sources.study_source import read_source
from lumbar_tf.dicom.study_reader import read_study_files

_END_OF_ZIP64 = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


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
    "name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "a\\..\\evil.dcm", "\\evil.dcm", "a/.."]
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
    _refused(tmp_path, bomb, "at most 500000 files and 1000 bytes")
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


def test_a_member_whose_name_is_too_long_is_left_out(tmp_path: Path) -> None:
    names = ("a" * 300, "/".join(["b" * 200] * 25))
    path = _pack(tmp_path / "x.zip", **{names[0]: b"1", names[1]: b"2", "1.dcm": b"3"})
    rejects = unpack_zip(path, tmp_path / "out")
    assert [reject.reason for reject in rejects] == [RejectReason.UNREADABLE] * 2
    assert all(reject.file_name.startswith("file-") for reject in rejects)
    assert [file.name for file in (tmp_path / "out").rglob("*") if file.is_file()] == ["1.dcm"]


def _write_members(path: Path, *names: str) -> Path:
    """Writes members under the names as they are; zipfile itself would change some."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            member = zipfile.ZipInfo()
            member.filename = name
            archive.writestr(member, b"" if name.endswith(("/", "\\")) else name.encode())
    return path


def test_backslashes_are_separators_and_colons_are_not(tmp_path: Path) -> None:
    path = _write_members(tmp_path / "x.zip", "a\\", "a\\b\\1.dcm", "a/c\\2.dcm", "10:30/3.dcm", "C:\\4.dcm")
    assert unpack_zip(path, tmp_path / "out") == []
    files = sorted(
        file.relative_to(tmp_path / "out").as_posix()
        for file in (tmp_path / "out").rglob("*")
        if file.is_file()
    )
    assert files == ["10:30/3.dcm", "C:/4.dcm", "a/b/1.dcm", "a/c/2.dcm"]


@pytest.mark.parametrize("name", ["powershell", "colon"])
def test_sound_exports_with_unusual_names_are_read(shared_data: Path, name: str) -> None:
    with read_source(shared_data.parent / "cases" / "zips" / f"{name}.zip") as source:
        (study,) = source.studies
        planes = read_study_files(study).planes
        assert source.rejects == ()
        assert planes


def _set_method(data: bytes, method: int) -> bytes:
    changed = bytearray(data)
    for signature, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        struct.pack_into("<H", changed, changed.index(signature) + offset, method)
    return bytes(changed)


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (77, "method 77")])
def test_a_compression_method_that_python_lacks_is_named(tmp_path: Path, method: int, name: str) -> None:
    path = _pack(tmp_path / "x.zip", **{"1.dcm": os.urandom(100)})
    path.write_bytes(_set_method(path.read_bytes(), method))
    _refused(tmp_path, path, name)


def _overlapping(num_members: int, size_bytes: int) -> bytes:
    """Returns a zip whose directory names one packed member under many names."""
    packed = zlib.compress(os.urandom(size_bytes // 150) + bytes(size_bytes), 9)[2:-4]
    content = zlib.decompress(packed, -15)
    crc, sizes = zlib.crc32(content), (len(packed), len(content))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, *sizes, 5, 0) + b"00000" + packed
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, *sizes, 5, 0, 0, 0, 0, 0, 0)
        + f"{index:05}".encode()
        for index in range(num_members)
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, num_members, num_members, len(directory), len(local), 0)
    return local + directory + end


def test_members_must_not_share_bytes(tmp_path: Path) -> None:
    # 152 KB became 1,150 MB.
    (tmp_path / "x.zip").write_bytes(_overlapping(200, 1_000_000))
    _refused(tmp_path, tmp_path / "x.zip", "must not share bytes")
    assert not (tmp_path / "out").exists()


def test_a_zip_of_many_small_bombs_is_rejected(tmp_path: Path) -> None:
    path = _pack(tmp_path / "x.zip", **{str(index): bytes(800_000) for index in range(100)})
    _refused(tmp_path, path, "at most 200-fold")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_zip64", [False, True])
def test_a_large_directory_is_rejected_before_it_is_read(tmp_path: Path, is_zip64: bool) -> None:
    num_bytes = archives.MAX_ZIP_DIRECTORY_BYTES + 1
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, num_bytes, 0, 0)
    if is_zip64:
        record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, num_bytes, 0)
        end = record + struct.pack("<4sIQI", b"PK\6\7", 0, num_bytes, 1) + _END_OF_ZIP64
    with (tmp_path / "x.zip").open("wb") as file:
        file.truncate(num_bytes)  # sparse
        file.seek(0, os.SEEK_END)
        file.write(end + b"comment")
    _refused(tmp_path, tmp_path / "x.zip", f"at most 67108864 bytes. Received: {num_bytes}")


def test_the_free_space_is_checked_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _pack(tmp_path / "x.zip", **{"1.dcm": bytes(100_000)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000))
    with pytest.raises(OSError, match=r"must fit on the disk.* 100000 bytes to unpack, 50000 free"):
        unpack_zip(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


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
