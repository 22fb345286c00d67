"""Search of an output folder for identifying values of its source.

The folder can hold records or results of `predict`. Text files are searched word by word, TFRecords feature
by feature, and all other files by the texts among their bytes. Compressed texts of PNG files and streams of
PDF files are unpacked, other archives are not. Images of a record are searched only if they violate the
schema. An issue names the file and the tags of the value, never the value.
"""

import base64
import errno
import html
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.files import open_regular_file
from lumbar_tf.privacy.identifying_values import IdentifyingValues
from lumbar_tf.privacy.phrases import PhraseSearch
from lumbar_tf.records.consistency import find_feature_errors
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.framing import CorruptRecord, scan_records
from lumbar_tf.records.issues import IssueCode, RecordIssue
from lumbar_tf.records.schema import IMAGE_FEATURE
from lumbar_tf.records.verification import SHARD_SUFFIX, list_record_files, sort_issues
from lumbar_tf.runners import run_jobs

_BLOCK_BYTES = 4 << 20
#: Overlap of blocks, longer than any phrase with its separators.
_OVERLAP_BYTES = 4 << 10
#: Limit of unpacked data that is searched; more is a picture or a decompression bomb.
_MAX_UNPACKED_BYTES = 16 << 20
#: Several batches per worker balance their load.
_BATCHES_PER_WORKER = 4

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
#: Escapes of JSON: a character by its code, or a separator of words (line feed, quotation mark).
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")
_DATA_URI = re.compile(r";base64,([A-Za-z0-9+/]{16,}={0,2})")
_PDF_SIGNATURE = b"%PDF-"
#: PNG's chunks of packed text (ISO/IEC 15948, 11.3.4): keyword, NUL, one or more bytes, zlib stream.
_PNG_PACKED_TEXT = re.compile(rb"(?:zTXt|iTXt|iCCP)")
_PDF_STREAM = re.compile(rb"stream\r?\n")
_ZLIB_HEAD = re.compile(rb"\x78[\x01\x5e\x9c\xda]")


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some files to search."""

    folder: Path
    files: tuple[str, ...]
    values: IdentifyingValues


@dataclass(frozen=True)
class _Hit:
    """A phrase that was found; `place` describes the position within the file or record."""

    phrase: str
    place: str = ""
    record: int | None = None


def find_identifying_text(
    folder: Path,
    values: IdentifyingValues,
    *,
    workers: int = 1,
    progress: ProgressMaker = silent_progress,
) -> tuple[RecordIssue, ...]:
    """Searches every file below a folder, including the file names.

    Args:
        folder: records, or any other output.
        values: identifying values; see `identifying_values.collect_identifying_values`.
        workers: processes.
        progress: progress display; a unit is a file.

    Returns:
        One issue for each file, record, position in it and tag.
    """
    files = list(list_record_files(folder))
    found: list[RecordIssue] = []
    with progress(len(files)) as advance:
        batches = _cut(folder, files, values, workers)
        for count, hits in run_jobs(_scan_batch, batches, workers=workers, name=_batch_name):
            found.extend(hits)
            advance(count)
    return sort_issues(found)


def _cut(folder: Path, files: Sequence[str], values: IdentifyingValues, workers: int) -> list[_Batch]:
    """Distributes files to batches, the largest first."""
    by_size = sorted(files, key=lambda file: -(folder / file).lstat().st_size)
    count = min(len(files), workers * _BATCHES_PER_WORKER)
    return [_Batch(folder, tuple(by_size[start::count]), values) for start in range(count)]


def _batch_name(batch: _Batch) -> str:
    return f"a batch of {len(batch.files)} files"


def _scan_batch(batch: _Batch) -> tuple[int, list[RecordIssue]]:
    search = PhraseSearch(batch.values.tags)
    found: list[RecordIssue] = []
    for file in batch.files:
        name = file
        tags: dict[tuple[int | None, str], set[str]] = defaultdict(set)
        for phrase in search.in_text(file):
            # An identifying name is not repeated.
            name = f"file-{sha256(file.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
            tags[None, " in its name"] |= batch.values.tags[phrase]
        try:
            for hit in _search_file(batch.folder / file, search):
                tags[hit.record, hit.place] |= batch.values.tags[hit.phrase]
        except OSError as error:
            found.append(RecordIssue(IssueCode.FILE_UNREADABLE, name, f"cannot be read: {error.strerror}"))
        for (record, place), names in tags.items():
            messages = [f"it contains the source's {tag}{place}" for tag in sorted(names)]
            found.extend(
                RecordIssue(IssueCode.IDENTIFYING_VALUE, name, message, "", record) for message in messages
            )
    return len(batch.files), found


def _search_file(path: Path, search: PhraseSearch) -> Iterator[_Hit]:
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link, which is not followed", str(path))
    with open_regular_file(path) as file:
        head = file.read(_BLOCK_BYTES)
        file.seek(0)
        if path.name.endswith(SHARD_SUFFIX):
            yield from _search_records(file, search)
        elif head.startswith(_PDF_SIGNATURE) or _CONTROL.search(head):
            yield from (_Hit(phrase) for phrase in _in_binary(file, search))
        else:
            yield from (_Hit(phrase) for phrase in _in_text(file, search))


def _search_records(file: IO[bytes], search: PhraseSearch) -> Iterator[_Hit]:
    is_valid = True
    for framed in scan_records(file):
        if isinstance(framed, CorruptRecord):
            is_valid = False
            continue
        try:
            features = parse_example_features(framed.data)
        except ValueError:
            is_valid = False
            continue
        are_pixels = not any(find_feature_errors(features))
        for number, (name, values) in enumerate(sorted(features.items())):
            # An identifying name of a feature is not repeated either.
            place = f", feature {name}"
            for phrase in search.in_text(name):
                place = f", feature number {number}"
                yield _Hit(phrase, f", name of feature number {number}", framed.index)
            if name != IMAGE_FEATURE or not are_pixels:
                for phrase in _in_values(values, search):
                    yield _Hit(phrase, place, framed.index)
    if not is_valid:
        # Damaged records are searched as bytes.
        file.seek(0)
        yield from (_Hit(phrase, ", outside its valid records") for phrase in _in_binary(file, search))


def _in_values(values: Sequence[object], search: PhraseSearch) -> Iterator[str]:
    for value in values:
        if isinstance(value, bytes):
            try:
                yield from search.in_text(value.decode("utf-8"))
            except UnicodeDecodeError:
                yield from search.in_bytes(value)
        elif isinstance(value, int):
            yield from search.in_text(str(value))


def _in_text(file: IO[bytes], search: PhraseSearch) -> Iterator[str]:
    """Searches a text in blocks that end at white space."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        block = rest + block
        cut = max(block.rfind(b" ", 0, -_OVERLAP_BYTES), block.rfind(b"\n", 0, -_OVERLAP_BYTES)) + 1
        yield from _in_block(block, search)
        rest = block[cut:] if cut else block[-_OVERLAP_BYTES:]


def _in_block(block: bytes, search: PhraseSearch) -> Iterator[str]:
    try:
        text = block.decode("utf-8-sig")
    except UnicodeDecodeError:
        # A character cut at the end, or a text in another encoding: both decodings are searched.
        yield from search.in_text(block.decode("utf-8", "replace"))
        text = block.decode("latin-1")
    yield from search.in_text(text)
    plain = html.unescape(_ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else " ", text))
    if plain != text:
        yield from search.in_text(plain)
    for match in _DATA_URI.finditer(text):
        yield from _in_picture(base64.b64decode(match[1][: len(match[1]) // 4 * 4]), search)


def _in_binary(file: IO[bytes], search: PhraseSearch) -> Iterator[str]:
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        yield from _in_picture(rest + block, search)
        rest = block[-_OVERLAP_BYTES:]


def _in_picture(data: bytes, search: PhraseSearch) -> Iterator[str]:
    """Searches bytes, and compressed texts of PNG and PDF among them."""
    yield from search.in_bytes(data)
    for mark in (_PNG_PACKED_TEXT, _PDF_STREAM):
        for match in mark.finditer(data):
            # The stream begins directly or after a short keyword.
            head = _ZLIB_HEAD.search(data, match.end(), match.end() + 256)
            if head:
                yield from search.in_bytes(_inflated(memoryview(data)[head.start() :]))


def _inflated(data: memoryview) -> bytes:
    """Returns the data that can be unpacked before the first error."""
    inflate = zlib.decompressobj()
    try:
        return inflate.decompress(data, _MAX_UNPACKED_BYTES)
    except zlib.error:
        return b""
