"""Positions of the records in TFRecord files, so that single studies can be read."""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lumbar_tf.files import open_regular_file
from lumbar_tf.records.example import parse_feature
from lumbar_tf.records.framing import CorruptRecordError, scan_spans


@dataclass(frozen=True)
class RecordPosition:
    """A record's place and what identifies it.

    Attributes:
        path: the file.
        offset: offset of the record in the file, bytes.
        size_bytes: size of its data.
        study_id: its study, "" if it names none.
        has_slices: whether it has at least one slice.
    """

    path: Path
    offset: int
    size_bytes: int
    study_id: str
    has_slices: bool


def find_records(paths: Iterable[Path]) -> list[RecordPosition]:
    """Returns the positions of all records, in the order of the files' names.

    Only lengths and identifying features are read, a few KB for each record, once per process and version of
    a file; checksums of the data are verified when a record is read.

    Raises:
        CorruptRecordError: the length of a record is damaged, or it is not a tf.train.Example.
        OSError: a file cannot be read.
    """
    found: list[RecordPosition] = []
    for path in sorted(paths):
        stat = path.stat()
        found += _find_in_file(path, stat.st_size, stat.st_mtime_ns)
    return found


@lru_cache(maxsize=4096)
def _find_in_file(path: Path, size_bytes: int, mtime_ns: int) -> tuple[RecordPosition, ...]:
    with open_regular_file(path) as file:
        if not size_bytes:  # cannot be mapped
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            spans = enumerate(scan_spans(path, view))
            return tuple(_describe(path, index, offset, data) for index, (offset, data) in spans)


def _describe(path: Path, index: int, offset: int, data: memoryview) -> RecordPosition:
    with data:
        try:
            study_id = b"".join(parse_feature(data, "study_id")).decode()
            has_slices = bool(parse_feature(data, "slices/group"))
        except (ValueError, TypeError) as error:  # UnicodeDecodeError is a ValueError
            raise CorruptRecordError(path, index, offset, str(error).rstrip(".")) from None
        return RecordPosition(path, offset, len(data), study_id, has_slices)
