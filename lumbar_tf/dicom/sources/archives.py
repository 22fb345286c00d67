"""Safe unpacking of zip archives."""

import errno
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lumbar_tf.dicom.identifiers import display_name
from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.files import open_regular_file

#: A lumbar study has 20 to 200 MB; larger archives of a cohort should be unpacked by hand.
MAX_ZIP_BYTES = 64 << 30
MAX_ZIP_MEMBERS = 500_000
#: zipfile reads the whole directory at once, and needs 600 bytes for an entry of 50.
MAX_ZIP_DIRECTORY_BYTES = 64 << 20
#: DICOM files compress by a small factor; a member beyond this ratio is a decompression bomb.
MAX_ZIP_RATIO = 200
#: The ratio is meaningless for a file that is smaller than a disk block.
_SMALLEST_PACKED_BYTES = 4096
#: Unpacked bytes that need no ratio.
_SMALL_ZIP_BYTES = 64 << 20
_COPY_BYTES = 1 << 20
#: End of the directory with the size of the directory: the record, its locator of ZIP64 and that record.
_END_RECORD, _LOCATOR, _END_RECORD_64 = (
    struct.Struct("<12sI6x"),
    struct.Struct("<8sQ4x"),
    struct.Struct("<40sQ8x"),
)
#: The end record has a comment of at most 65,535 bytes.
_END_RECORDS_BYTES = 22 + 65_535 + 20 + 56
#: Signatures of a member, of an empty archive and of a part of an archive.
_ZIP_MAGICS = (b"PK\3\4", b"PK\5\6", b"PK\7\b")
#: Size of a member's header without its name (APPNOTE.TXT section 4.3.7).
_LOCAL_HEADER_BYTES = 30
#: Compression methods that Python reads (APPNOTE.TXT section 4.4.5), and the names of others.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_OTHER_METHODS = {9: "Deflate64, which Windows uses for large files", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
_IS_ENCRYPTED = 0x1
#: Errors of zipfile and its decompressors for damaged and encrypted archives.
_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    UnicodeDecodeError,
    zlib.error,
    lzma.LZMAError,
)
_INTACT = "A zip archive must be intact and unencrypted. Received: {}."
#: File system errors that a member's name can cause. A full disk is not one of them, and its error is raised.
_BAD_NAME_ERRORS = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
#: Those that concern this file system only: the member is left out.
_UNSTORABLE_NAME_ERRORS = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})


class SourceError(ValueError):
    """A source that cannot be read; callers with several sources convert it to a `Reject`.

    Attributes:
        reason: UNREADABLE.
        display_name: name of the source for manifests.
    """

    reason = RejectReason.UNREADABLE
    display_name = ""


class UnsafeArchiveError(SourceError):
    """A zip archive that must not be unpacked.

    Attributes:
        reason: UNSAFE_ARCHIVE.
        display_name: name of the archive for manifests.
    """

    reason = RejectReason.UNSAFE_ARCHIVE


def is_zip(path: Path) -> bool:
    """Returns whether a file is meant to be a zip archive, even a damaged one."""
    if path.suffix.lower() == ".zip":
        return True
    with open_regular_file(path) as file:
        return file.read(len(_ZIP_MAGICS[0])) in _ZIP_MAGICS or zipfile.is_zipfile(file)


def unpack_zip(archive: Path, folder: Path) -> list[Reject]:
    """Unpacks a zip archive into a new folder.

    Backslashes in names are separators, as Windows PowerShell 5.1 and .NET write them, and as unzip reads
    them. Colons are plain characters.

    Args:
        archive: the archive.
        folder: target folder, which is created.

    Returns:
        A reject for each member whose name is too long or invalid on this file system.

    Raises:
        UnsafeArchiveError: the file is not a zip archive, is damaged or encrypted, exceeds the limits above,
            uses a compression method that Python lacks, or has a member that points outside the folder, is a
            link, repeats a name, shares bytes with another one or is a decompression bomb.
        OSError: the disk is full, or too full for the archive.
    """
    try:
        return _unpack(archive, folder)
    except UnsafeArchiveError as error:
        error.display_name = display_name(archive, archive.parent)
        raise


def _unpack(archive: Path, folder: Path) -> list[Reject]:
    rejects: list[Reject] = []
    try:
        _check_directory_size(archive)
        with zipfile.ZipFile(archive) as unpacked:
            members = unpacked.infolist()
            _check_directory(members, archive.stat().st_size)
            for number, member in enumerate(members, start=1):
                _check_member(member, number)
            folder.mkdir(parents=True, exist_ok=True)
            _check_free_space(members, folder)
            for member in members:
                path = _path_in_archive(member)
                if path is None:
                    continue
                try:
                    _copy_member(unpacked, member, folder / path)
                except OSError as error:
                    if error.errno not in _UNSTORABLE_NAME_ERRORS:
                        raise
                    name = display_name(folder / path, folder)
                    message = "the name of a zip member must be valid on this file system"
                    rejects.append(Reject("", "", name, RejectReason.UNREADABLE, message))
    except _DAMAGE_ERRORS as error:
        raise UnsafeArchiveError(_INTACT.format(type(error).__name__)) from None
    except OSError as error:
        if error.errno is None:  # the decompressor of BZIP2
            raise UnsafeArchiveError(_INTACT.format("a damaged member")) from None
        if error.errno not in _BAD_NAME_ERRORS:
            raise
        raise UnsafeArchiveError(
            f"The members of a zip archive must have distinct names. Received: {error.strerror}."
        ) from None
    return rejects


def _check_directory_size(archive: Path) -> None:
    """Checks the size of an archive's directory by its end record (APPNOTE.TXT sections 4.3.14 to 4.3.16)."""
    with open_regular_file(archive) as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _END_RECORDS_BYTES)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + _END_RECORD.size > len(tail):
            return  # zipfile reports it
        num_bytes = _END_RECORD.unpack_from(tail, at)[1]
        locator = tail[max(0, at - _LOCATOR.size) : at]
        if locator.startswith(b"PK\6\7") and len(locator) == _LOCATOR.size:
            file.seek(min(_LOCATOR.unpack(locator)[1], size))
            record = file.read(_END_RECORD_64.size)
            # zipfile takes the record right before the locator, wherever the locator points.
            near = tail[max(0, at - _LOCATOR.size - _END_RECORD_64.size) : at - _LOCATOR.size]
            sizes = [
                _END_RECORD_64.unpack(data)[1] for data in (record, near) if len(data) == _END_RECORD_64.size
            ]
            num_bytes = max(sizes, default=num_bytes)
    if num_bytes > MAX_ZIP_DIRECTORY_BYTES:
        raise UnsafeArchiveError(
            f"The directory of a zip archive must have at most {MAX_ZIP_DIRECTORY_BYTES} bytes. "
            f"Received: {num_bytes}."
        )


def _path_in_archive(member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Returns the path of a member; None for a folder."""
    name = member.filename.replace("\\", "/")
    return None if name.endswith("/") else PurePosixPath(name)


def _check_directory(members: Sequence[zipfile.ZipInfo], size_bytes: int) -> None:
    """Checks the directory of an archive as a whole."""
    total = sum(member.file_size for member in members)
    if total > MAX_ZIP_BYTES or len(members) > MAX_ZIP_MEMBERS:
        raise UnsafeArchiveError(
            f"A zip archive must contain at most {MAX_ZIP_MEMBERS} files and {MAX_ZIP_BYTES} bytes. "
            f"Received: {len(members)} files, {total} bytes."
        )
    # zipfile checks overlaps since Python 3.11.8 only.
    places = sorted(
        (member.header_offset, member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size)
        for member in members
    )
    starts = (*(start for start, _ in places[1:]), size_bytes)
    if any(end > start for (_, end), start in zip(places, starts)):
        raise UnsafeArchiveError(
            "The members of a zip archive must not share bytes, and must be inside the file. "
            f"Received: {sum(member.compress_size for member in members)} packed bytes in a file of "
            f"{size_bytes}."
        )
    if total > max(_SMALL_ZIP_BYTES, MAX_ZIP_RATIO * size_bytes):
        raise UnsafeArchiveError(
            f"A zip archive must expand at most {MAX_ZIP_RATIO}-fold. "
            f"Received: {size_bytes} bytes that expand to {total}."
        )


def _check_member(member: zipfile.ZipInfo, number: int) -> None:
    """Checks a member's entry. Messages omit names, which may be those of patients."""
    path = _path_in_archive(member)
    if path is not None and (path.is_absolute() or ".." in path.parts or not path.parts):
        raise UnsafeArchiveError(
            f"The members of a zip archive must not point outside its folder. Received: member {number}."
        )
    # Bits 16 to 31 are the Unix mode of the packed file.
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UnsafeArchiveError(f"A zip archive must not contain links. Received: member {number}.")
    if member.compress_type not in _METHODS and not member.flag_bits & _IS_ENCRYPTED:
        method = _OTHER_METHODS.get(member.compress_type, f"method {member.compress_type}")
        raise UnsafeArchiveError(
            "The members of a zip archive must be stored or compressed with Deflate, BZIP2 or LZMA: unpack "
            f"it by hand. Received: {method}, member {number}."
        )
    ratio = member.file_size / max(member.compress_size, _SMALLEST_PACKED_BYTES)
    if ratio > MAX_ZIP_RATIO:
        raise UnsafeArchiveError(
            f"A member of a zip archive must expand at most {MAX_ZIP_RATIO}-fold. "
            f"Received: {ratio:.0f}-fold, member {number}."
        )


def _check_free_space(members: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    """Raises an error if the unpacked files do not fit on the disk."""
    total, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
    if total > free:
        raise OSError(
            errno.ENOSPC,
            f"A zip archive must fit on the disk of the temporary folder (TMPDIR). Received: {total} bytes "
            f"to unpack, {free} free",
        )


def _copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Copies a member; zipfile stops at the declared `file_size` and checks the CRC."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as destination:
        while block := source.read(_COPY_BYTES):
            destination.write(block)
