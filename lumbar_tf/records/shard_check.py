"""Verification of one shard in one pass: digest, framing, records, and agreement with the manifest.

Only one record at a time is held in memory.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumbar_tf.files import open_regular_file
from lumbar_tf.labels import Plane
from lumbar_tf.records.consistency import find_feature_errors
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.framing import HEAD_BYTES, CorruptRecord, FramedRecord, scan_records
from lumbar_tf.records.issues import IssueCode, RecordIssue
from lumbar_tf.records.schema import IMAGE_FEATURE, SCHEMA_VERSION

#: A damaged record stands for the study at its position in the manifest, which is not reported as missing.
_NAMED_BY_PLACE = frozenset({IssueCode.DATA_DAMAGED, IssueCode.NOT_AN_EXAMPLE})


@dataclass(frozen=True)
class ExpectedShard:
    """The manifest's description of a shard.

    Attributes:
        plane: the plane of all its records.
        sha256: SHA-256 of the file.
        size_bytes: size of the file.
        num_slices: number of slices by study, in the order of the records; None if unknown.
    """

    plane: Plane
    sha256: str
    size_bytes: int
    num_slices: Mapping[str, int | None]


@dataclass(frozen=True)
class ShardCheckJob:
    """A file to check; `expected` is None without a manifest."""

    folder: Path
    file: str
    expected: ExpectedShard | None


@dataclass(frozen=True)
class RecordSummary:
    """Position and digests of a valid record.

    Attributes:
        study_id: the study.
        plane: the plane's name.
        file: the shard.
        index: the record's index in the shard, from 0.
        offset: the record's offset in the shard, bytes.
        size_bytes: size of the data.
        sha256: SHA-256 of the data.
        labels: severities of the findings, equal in all planes of a study.
        points_sha256: SHA-256 of the points, equal in all planes of a study.
    """

    study_id: str
    plane: str
    file: str
    index: int
    offset: int
    size_bytes: int
    sha256: str
    labels: tuple[int, ...]
    points_sha256: str


@dataclass(frozen=True)
class ShardReport:
    """Result of the check of a shard.

    Attributes:
        file: the shard.
        sha256: of the file, "" where it cannot be read.
        records: those that are sound.
        found: what is wrong.
    """

    file: str
    sha256: str
    records: tuple[RecordSummary, ...]
    found: tuple[RecordIssue, ...]


def check_shard(job: ShardCheckJob) -> ShardReport:
    """Reads a shard once, from end to end, and names everything that is wrong with it."""
    path = job.folder / job.file
    digest = hashlib.sha256()
    records: list[RecordSummary] = []
    found: list[RecordIssue] = []
    try:
        with open_regular_file(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes == 0:
                return _without_records(job, IssueCode.SHARD_EMPTY, "the file is empty", digest.hexdigest())
            for framed in scan_records(file, digest):
                _check_framed(job, framed, records, found)
    except FileNotFoundError:
        return _without_records(
            job, IssueCode.SHARD_MISSING, "the manifest names it, and it is not there", ""
        )
    except OSError as error:
        return _without_records(job, IssueCode.FILE_UNREADABLE, f"cannot be read: {error.strerror}", "")
    sha256 = digest.hexdigest()
    if job.expected is not None:
        if sha256 != job.expected.sha256:
            message = f"SHA-256 is not the manifest's ({size_bytes} of {job.expected.size_bytes} bytes)"
            found.append(RecordIssue(IssueCode.SHARD_CHANGED, job.file, message))
        hit = {issue.record for issue in found if issue.code in _NAMED_BY_PLACE}
        found.extend(_compare_studies(job.file, list(job.expected.num_slices), records, hit))
    return ShardReport(job.file, sha256, tuple(records), tuple(found))


def _without_records(job: ShardCheckJob, code: IssueCode, message: str, sha256: str) -> ShardReport:
    return ShardReport(job.file, sha256, (), (RecordIssue(code, job.file, message),))


def read_record_at(folder: Path, record: RecordSummary) -> bytes:
    """Reads one record's data again."""
    with open_regular_file(folder / record.file) as file:
        file.seek(record.offset + HEAD_BYTES)
        return file.read(record.size_bytes)


def _check_framed(
    job: ShardCheckJob,
    framed: FramedRecord | CorruptRecord,
    records: list[RecordSummary],
    found: list[RecordIssue],
) -> None:
    """Adds what a record is to `records`, or what is wrong with it to `found`, or both."""
    expected = list(job.expected.num_slices) if job.expected else []
    by_place = expected[framed.index] if framed.index < len(expected) else ""
    if isinstance(framed, CorruptRecord):
        found.append(RecordIssue(framed.code, job.file, framed.message, by_place, framed.index))
        return
    try:
        features = parse_example_features(framed.data)
        study_id, plane, version = (
            features[name][0].decode("utf-8") for name in ("study_id", "plane", "schema_version")
        )
    except (ValueError, KeyError, IndexError, AttributeError):
        message = "the data are not an Example with study_id, plane and schema_version"
        found.append(RecordIssue(IssueCode.NOT_AN_EXAMPLE, job.file, message, by_place, framed.index))
        return
    faults = list(_record_faults(job.expected, features, study_id, plane, version))
    found.extend(RecordIssue(code, job.file, text, study_id, framed.index) for code, text in faults)
    records.append(
        RecordSummary(
            study_id=study_id,
            plane=plane,
            file=job.file,
            index=framed.index,
            offset=framed.offset,
            size_bytes=len(framed.data),
            sha256=hashlib.sha256(framed.data).hexdigest(),
            labels=tuple(features.get("labels", ())),
            points_sha256=hashlib.sha256(repr(features.get("points")).encode()).hexdigest(),
        )
    )


def _record_faults(
    expected: ExpectedShard | None,
    features: Mapping[str, Sequence[Any]],
    study_id: str,
    plane: str,
    version: str,
) -> Iterator[tuple[IssueCode, str]]:
    major = SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != major:
        yield IssueCode.RECORD_SCHEMA, f"schema version must be {major}.x"
    else:
        yield from ((IssueCode.BAD_FEATURE, fault) for fault in find_feature_errors(features))
    if expected is None:
        return
    if plane != expected.plane.value:
        yield IssueCode.RECORD_PLANE, f"plane must be {expected.plane.value}"
    count, num_slices = len(features.get(IMAGE_FEATURE, ())), expected.num_slices.get(study_id)
    if num_slices is not None and count != num_slices:
        yield IssueCode.SLICE_COUNT, f"the manifest has {num_slices} slices, the record {count}"


def _compare_studies(
    file: str, expected: Sequence[str], records: Sequence[RecordSummary], damaged: set[int | None]
) -> Iterator[RecordIssue]:
    """Yields additional, missing and misplaced records."""
    names, seen = set(expected), set()
    kept = []
    for record in records:
        if record.study_id not in names:
            message = "the manifest has this study elsewhere or nowhere"
            yield RecordIssue(IssueCode.RECORD_FOREIGN, file, message, record.study_id, record.index)
        elif record.study_id in seen:
            message = "the shard holds this study before"
            yield RecordIssue(IssueCode.RECORD_TWICE, file, message, record.study_id, record.index)
        else:
            seen.add(record.study_id)
            kept.append(record)
    for place, study_id in enumerate(expected):
        if study_id not in seen and place not in damaged:
            message = "the manifest has a record of this study here"
            yield RecordIssue(IssueCode.RECORD_MISSING, file, message, study_id)
    right_order = [study_id for study_id in expected if study_id in seen]
    for record, study_id in zip(kept, right_order, strict=True):
        if record.study_id != study_id:
            message = "the records are not in the manifest's order from here on"
            yield RecordIssue(IssueCode.RECORD_ORDER, file, message, record.study_id, record.index)
            break
