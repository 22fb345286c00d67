"""Safe unpacking of zip archives."""

import errno
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from lumbar_tf.dicom.identifiers import display_name
from lumbar_tf.dicom.reasons import RejectReason

#: A lumbar study has 20 to 200 MB; larger archives of a cohort should be unpacked by hand.
MAX_ZIP_BYTES = 64 << 30
MAX_ZIP_MEMBERS = 2_000_000
#: DICOM files compress by a small factor; a member beyond this ratio is a decompression bomb.
MAX_ZIP_RATIO = 200
#: The ratio is meaningless for a file that is smaller than a disk block.
_SMALLEST_PACKED_BYTES = 4096
_COPY_BYTES = 1 << 20
#: File system errors that a member's name can cause. A full disk is not one of them, and its error is raised.
_BAD_NAME_ERRORS = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
)


class UnsafeArchiveError(ValueError):
    """A zip archive that must not be unpacked; callers with several sources convert it to a `Reject`.

    Attributes:
        reason: UNSAFE_ARCHIVE.
        display_name: name of the archive for manifests.
    """

    reason = RejectReason.UNSAFE_ARCHIVE
    display_name = ""


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpacks a zip archive into a new folder.

    Args:
        archive: the archive.
        folder: target folder, which is created.

    Raises:
        UnsafeArchiveError: the file is not a zip archive, is damaged or encrypted, exceeds the limits above,
            or has a member that points outside the folder, is a link, repeats a name or is a decompression
            bomb.
        OSError: the disk is full.
    """
    try:
        _unpack(archive, folder)
    except UnsafeArchiveError as error:
        error.display_name = display_name(archive, archive.parent)
        raise


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as unpacked:
            members = [member for member in unpacked.infolist() if not member.is_dir()]
            _check_members(members)
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                _copy_member(unpacked, member, folder.joinpath(*PurePosixPath(member.filename).parts))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise UnsafeArchiveError(
            f"A zip archive must be intact and unencrypted. Received: {type(error).__name__}."
        ) from None
    except OSError as error:
        if error.errno not in _BAD_NAME_ERRORS:
            raise
        raise UnsafeArchiveError(
            "The members of a zip archive must have distinct names that are valid on this file system. "
            f"Received: {error.strerror}."
        ) from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    """Checks the directory of an archive. Messages omit names, which may be those of patients."""
    total = sum(member.file_size for member in members)
    if total > MAX_ZIP_BYTES or len(members) > MAX_ZIP_MEMBERS:
        raise UnsafeArchiveError(
            f"A zip archive must contain at most {MAX_ZIP_MEMBERS} files and {MAX_ZIP_BYTES} bytes. "
            f"Received: {len(members)} files, {total} bytes."
        )
    for number, member in enumerate(members, start=1):
        path = PurePosixPath(member.filename)
        # zipfile converts backslashes only on Windows, where they are separators.
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
            raise UnsafeArchiveError(
                f"The members of a zip archive must not point outside its folder. Received: member {number}."
            )
        # Bits 16 to 31 are the Unix mode of the packed file.
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafeArchiveError(f"A zip archive must not contain links. Received: member {number}.")
        ratio = member.file_size / max(member.compress_size, _SMALLEST_PACKED_BYTES)
        if ratio > MAX_ZIP_RATIO:
            raise UnsafeArchiveError(
                f"A member of a zip archive must expand at most {MAX_ZIP_RATIO}-fold. "
                f"Received: {ratio:.0f}-fold, member {number}."
            )


def _copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Copies a member; zipfile stops at the declared `file_size` and checks the CRC."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as destination:
        while block := source.read(_COPY_BYTES):
            destination.write(block)
