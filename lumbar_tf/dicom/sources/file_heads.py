"""Looks at the head of a file for its StudyInstanceUID, without reading the rest.

Any file may come here: what is not understood is said to be so, and left to whoever reads it in full.
"""

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lumbar_tf.dicom.files.headers import guess_syntax

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_STUDY_UID_TAG = 0x0020000D
#: What comes before the tag is a kilobyte or two; private elements can make it more.
_HEAD_BYTES = (16 << 10, 1 << 20)


@dataclass(frozen=True)
class FileHead:
    """What the first bytes of a file say.

    Attributes:
        is_dicom: whether it looks like DICOM at all.
        study_uid: StudyInstanceUID, "" where the file has none, None where it cannot be read.
    """

    is_dicom: bool
    study_uid: str | None


def read_head(path: Path) -> FileHead:
    """Reads what the head of a file says.

    Callers silence pydicom's warnings, which can repeat what a header holds.

    Raises:
        OSError: the file cannot be opened or read.
    """
    head = b""
    with path.open("rb") as file:
        for size in _HEAD_BYTES:
            head += file.read(size - len(head))
            if not head:
                return FileHead(True, None)  # an image that was lost in a transfer, not a note beside it
            start = _find_start(head)
            if start is None:
                return FileHead(False, None)
            study_uid = _find_study_uid(head, start)
            if study_uid is not None or len(head) < size:
                break
    return FileHead(True, study_uid)


def _find_start(head: bytes) -> int | None:
    """Returns where the elements begin; None where the file does not look like DICOM."""
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == _MAGIC:
        return _PREAMBLE_BYTES + 4
    # Without a preamble the first element is of group 0002 or 0008; the latter in either byte order.
    return 0 if head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08") and len(head) >= 8 else None


def _find_study_uid(head: bytes, start: int) -> str | None:
    """Returns the UID, "" where the elements go past its place without it, None where they break off."""
    stream = BytesIO(head)
    stream.seek(start)
    passed: list[int] = []

    def is_past(tag: int, vr: str | None, length: int) -> bool:
        if tag > _STUDY_UID_TAG:
            passed.append(tag)
        return bool(passed)

    try:
        meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        syntax = str(meta.get("TransferSyntaxUID", "") or guess_syntax(head[stream.tell() :]))
        if syntax == DeflatedExplicitVRLittleEndian:
            # At most as much as is looked at of other files: a bomb never unpacks here.
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            stream = BytesIO(inflate.decompress(head[stream.tell() :], _HEAD_BYTES[-1]))
        dataset = read_dataset(
            stream,
            syntax == ImplicitVRLittleEndian,
            syntax != ExplicitVRBigEndian,
            stop_when=is_past,
            specific_tags=[_STUDY_UID_TAG],
        )
        study_uid = str(dataset.get("StudyInstanceUID", "") or "").strip(" \0")
    except Exception:  # pydicom raises many kinds on damaged headers
        return None
    return study_uid if study_uid or passed else None
