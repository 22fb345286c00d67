"""Tolerant reading of DICOM files: the study UID from the first bytes, and the elements of damaged files.

`dicom.files.headers` rejects damaged files, which must not be graded. Their study and their patient are
needed all the same: files are grouped by study, and a patient's values must not appear in any output.
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom import filereader, uid
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.headers import (
    DICM_PREFIX,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    PREAMBLE_BYTES,
    ParsedFile,
    guess_syntax,
    has_too_many_items,
    parse_file,
)
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from lumbar_tf.files import open_regular_file

_STUDY_UID_TAG = 0x0020000D
#: The elements before the tag usually take one or two kilobytes; private elements can make it more.
_IDENTITY_BYTES = (16 << 10, 1 << 20)
#: Part of a damaged file in which its transfer syntax is searched.
_SYNTAX_BYTES = 1024
#: Rejected because they are too large for pydicom.
_OVERSIZED = frozenset({RejectReason.TOO_LARGE, RejectReason.DEFLATE_BOMB})


@dataclass(frozen=True)
class FileIdentity:
    """The study of a file, read from its first bytes.

    Attributes:
        is_dicom: whether the file looks like DICOM at all.
        study_uid: StudyInstanceUID, "" if the file has none, None if it cannot be read.
    """

    is_dicom: bool
    study_uid: str | None


def read_file_identity(path: Path) -> FileIdentity:
    """Reads the StudyInstanceUID from the first bytes of any file.

    The caller suppresses pydicom's warnings, which can quote header values.

    Raises:
        OSError: the file cannot be opened or read.
    """
    head = b""
    with open_regular_file(path) as file:
        for size in _IDENTITY_BYTES:
            head += file.read(size - len(head))
            if not head:
                return FileIdentity(True, None)  # an image lost in a transfer rather than a text file
            start = _find_start(head)
            if start is None:
                return FileIdentity(False, None)
            study_uid = _find_study_uid(head, start)
            if study_uid is not None or len(head) < size:
                break
    return FileIdentity(True, study_uid)


def _find_start(head: bytes) -> int | None:
    """Returns the offset of the first element; None if the file does not look like DICOM."""
    if head[PREAMBLE_BYTES : PREAMBLE_BYTES + len(DICM_PREFIX)] == DICM_PREFIX:
        return PREAMBLE_BYTES + len(DICM_PREFIX)
    # Without a preamble the first element is of group 0002 or 0008; the latter in either byte order.
    return 0 if head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08") and len(head) >= 8 else None


def _find_study_uid(head: bytes, start: int) -> str | None:
    """Returns the UID, "" if later elements follow without it, None if the elements end before its place."""
    if has_too_many_items(head):
        return None
    stream = io.BytesIO(head)
    stream.seek(start)
    passed: list[int] = []

    def is_past(tag: int, vr: str | None, length: int) -> bool:
        if tag > _STUDY_UID_TAG:
            passed.append(tag)
        return bool(passed)

    try:
        meta = filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        syntax = str(meta.get("TransferSyntaxUID", "") or guess_syntax(head[stream.tell() :]))
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            # The limit is that of uncompressed files, so a decompression bomb does no harm.
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            inflated = inflate.decompress(head[stream.tell() :], _IDENTITY_BYTES[-1])
            if has_too_many_items(inflated):
                return None
            stream = io.BytesIO(inflated)
        dataset = filereader.read_dataset(
            stream,
            syntax == uid.ImplicitVRLittleEndian,
            syntax != uid.ExplicitVRBigEndian,
            stop_when=is_past,
            specific_tags=[_STUDY_UID_TAG],
        )
        study_uid = str(dataset.get("StudyInstanceUID", "") or "").strip(" \0")
    except Exception:  # pydicom raises many kinds of errors for damaged headers
        return None
    return study_uid if study_uid or passed else None


def read_all_elements(path: Path) -> tuple[Dataset, bool]:
    """Reads every element except the pixels, including those behind the pixels and those before a damage.

    Returns:
        The readable elements, with `file_meta`; and whether the file may be DICOM of which nothing is
        readable.
    """
    try:
        with open_regular_file(path) as opened:
            size = os.fstat(opened.fileno()).st_size
            if size > MAX_FILE_BYTES:
                return Dataset(), True
            data = opened.read(size)
    except OSError:
        return Dataset(), True
    try:
        file = parse_file(data)
    except RejectedError as error:
        return _read_damaged(data, error.reason)
    dataset = file.with_meta()
    dataset.update(read_behind_pixels(file))
    return dataset, False


def _read_damaged(data: bytes, reason: RejectReason) -> tuple[Dataset, bool]:
    """Returns the elements before the damage: a rejected file still belongs to a patient."""
    if reason is RejectReason.NOT_DICOM:
        return Dataset(), False
    # pydicom inflates without a limit.
    if reason in _OVERSIZED or has_too_many_items(data[:MAX_HEADER_BYTES]):
        return Dataset(), True
    if uid.DeflatedExplicitVRLittleEndian.encode() in data[:_SYNTAX_BYTES]:
        return Dataset(), True
    try:
        head = io.BytesIO(data[:MAX_HEADER_BYTES])
        dataset = filereader.dcmread(head, stop_before_pixels=True, force=True)
    except Exception:  # as above
        return Dataset(), True
    return dataset, False


def read_behind_pixels(file: ParsedFile) -> Dataset:
    """Returns the elements behind the pixel data, including private ones (groups above 7FE0).

    Returns nothing if they are damaged, or beyond the limits of a header.
    """
    if file.pixels is None:
        return Dataset()
    start, length = file.pixels.start, file.pixels.length
    end = _find_fragments_end(file.body, start) if length is None else start + length
    if end is None or end >= len(file.body):
        return Dataset()
    rest = file.body[end:]
    if len(rest) > MAX_HEADER_BYTES or has_too_many_items(rest) or not any(rest):
        return Dataset()
    is_implicit = file.pixels.vr is None
    is_little_endian = file.syntax != uid.ExplicitVRBigEndian
    try:
        return filereader.read_dataset(io.BytesIO(rest), is_implicit, is_little_endian)
    except Exception:  # as above
        return Dataset()


def _find_fragments_end(body: bytes, offset: int) -> int | None:
    """Returns the end of encapsulated pixel data (PS3.5 section A.4); None if there is no delimiter."""
    item = struct.Struct("<HHI")
    while offset + item.size <= len(body):
        group, element, length = item.unpack_from(body, offset)
        offset += item.size
        if (group, element) == (0xFFFE, 0xE0DD):
            return offset
        if (group, element) != (0xFFFE, 0xE000):
            return None
        offset += length
    return None
