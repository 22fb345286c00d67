"""Unpacks a zip into a folder, and nothing anywhere else."""

import errno
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from lumbar_tf.dicom.identifiers import display_name
from lumbar_tf.dicom.reasons import RejectReason

#: A lumbar study is 20 to 200 MB; a cohort's zip beyond this should be unpacked by hand.
MAX_ZIP_BYTES = 64 << 30
MAX_ZIP_MEMBERS = 2_000_000
#: DICOM compresses at most a few times; beyond this a member is a bomb.
MAX_ZIP_RATIO = 200
#: The ratio means nothing for a file that is smaller than a disk block.
_SMALLEST_PACKED_BYTES = 4096
_COPY_BYTES = 1 << 20
#: What a name can do to the file system; a full disk is not among it, and goes through.
_BAD_NAME_ERRORS = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
)


class UnsafeArchiveError(ValueError):
    """A zip is not unpacked. One bad source among several becomes a reject with this reason.

    Attributes:
        reason: UNSAFE_ARCHIVE.
        display_name: the zip's name as a manifest may hold it.
    """

    reason = RejectReason.UNSAFE_ARCHIVE
    display_name = ""


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpacks a zip into a new folder.

    Args:
        archive: the zip.
        folder: where to; made here.

    Raises:
        UnsafeArchiveError: not a zip, or a damaged or encrypted one; a member that points outside the
            folder, is a link, has another's name, or unpacks to far more than it holds; more bytes or
            members than the limits above.
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
            members = [each for each in unpacked.infolist() if not each.is_dir()]
            _check_members(members)
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                _copy_member(unpacked, member, folder.joinpath(*PurePosixPath(member.filename).parts))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise UnsafeArchiveError(
            f"A zip must be sound and unencrypted. Received: {type(error).__name__}."
        ) from None
    except OSError as error:
        if error.errno not in _BAD_NAME_ERRORS:
            raise
        raise UnsafeArchiveError(
            f"A zip's members must have distinct names that a disk can hold. Received: {error.strerror}."
        ) from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    """Checks what the zip's directory announces. Names are not repeated: they can be patients'."""
    total = sum(each.file_size for each in members)
    if total > MAX_ZIP_BYTES or len(members) > MAX_ZIP_MEMBERS:
        raise UnsafeArchiveError(
            f"A zip must hold at most {MAX_ZIP_MEMBERS} files and {MAX_ZIP_BYTES} bytes. "
            f"Received: {len(members)} files, {total} bytes."
        )
    for number, each in enumerate(members, start=1):
        path = PurePosixPath(each.filename)
        # zipfile itself turns backslashes only on Windows, where they are separators.
        if path.is_absolute() or ".." in path.parts or "\\" in each.filename or ":" in each.filename:
            raise UnsafeArchiveError(f"A zip must not point outside its folder. Received: member {number}.")
        # Bits 16 to 31 hold the Unix mode of what was packed.
        if stat.S_ISLNK(each.external_attr >> 16):
            raise UnsafeArchiveError(f"A zip must not hold links. Received: member {number}.")
        ratio = each.file_size / max(each.compress_size, _SMALLEST_PACKED_BYTES)
        if ratio > MAX_ZIP_RATIO:
            raise UnsafeArchiveError(
                f"A zip's member must unpack at most {MAX_ZIP_RATIO}-fold. "
                f"Received: {ratio:.0f}-fold, member {number}."
            )


def _copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Copies what the directory announced; zipfile stops at `file_size` and checks the CRC."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as destination:
        while block := source.read(_COPY_BYTES):
            destination.write(block)
