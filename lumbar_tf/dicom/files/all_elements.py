"""Reads all elements of a DICOM file: what lies behind the pixels too, and what lies before a damage.

`dicom.files.headers` refuses damaged files, as it should: nobody may grade them. They have a patient all
the same, whose values must not be found anywhere.
"""

import io
import struct
from pathlib import Path

from pydicom import filereader, uid
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES, HeaderedFile, read_headered_file
from lumbar_tf.dicom.reasons import RefusedError, RejectReason

#: Where a file's transfer syntax stands, if anywhere.
_HEAD_BYTES = 1024
#: Refused before pydicom may look: too much of it.
_LEFT_ALONE = frozenset({RejectReason.TOO_LARGE, RejectReason.DEFLATE_BOMB})


def read_all_elements(path: Path) -> tuple[Dataset, bool]:
    """Reads every element but the pixels, of damaged files too.

    Returns:
        What can be read, with `file_meta`; and whether the file may be DICOM of which nothing can.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Dataset(), True
        data = path.read_bytes()
    except OSError:
        return Dataset(), True
    try:
        file = read_headered_file(data)
    except RefusedError as error:
        return _read_damaged(data, error.reason)
    dataset = file.joined()
    dataset.update(_behind_pixels(file))
    return dataset, False


def _read_damaged(data: bytes, reason: RejectReason) -> tuple[Dataset, bool]:
    """Returns the elements before the damage: a file that is left out has a patient all the same."""
    if reason is RejectReason.NOT_DICOM:
        return Dataset(), False
    # pydicom inflates without a bound.
    if reason in _LEFT_ALONE or uid.DeflatedExplicitVRLittleEndian.encode() in data[:_HEAD_BYTES]:
        return Dataset(), True
    try:
        dataset = filereader.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    except Exception:  # as above
        return Dataset(), True
    return dataset, False


def _behind_pixels(file: HeaderedFile) -> Dataset:
    """Returns the elements behind the pixel data, private ones among them (groups above 7FE0)."""
    if file.pixels is None:
        return Dataset()
    start, length = file.pixels.start, file.pixels.length
    end = _end_of_fragments(file.body, start) if length is None else start + length
    if end is None or end >= len(file.body):
        return Dataset()
    is_implicit = file.pixels.vr is None
    is_little_endian = file.syntax != uid.ExplicitVRBigEndian
    try:
        return filereader.read_dataset(io.BytesIO(file.body[end:]), is_implicit, is_little_endian)
    except Exception:  # as above
        return Dataset()


def _end_of_fragments(body: bytes, place: int) -> int | None:
    """Returns where encapsulated pixel data end (PS3.5 section A.4); None where they do not."""
    head = struct.Struct("<HHI")
    while place + head.size <= len(body):
        group, element, length = head.unpack_from(body, place)
        place += head.size
        if (group, element) == (0xFFFE, 0xE0DD):
            return place
        if (group, element) != (0xFFFE, 0xE000):
            return None
        place += length
    return None
