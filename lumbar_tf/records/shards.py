"""Shards: TFRecord files of a group of studies, one per plane, written atomically."""

import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lumbar_tf.dicom.sources.study_source import list_study_files
from lumbar_tf.files import release_cache, replace_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.build_state import BuiltPart, read_built_part, write_built_part
from lumbar_tf.records.cohort import CohortStudy, make_study_records, raise_first_fault
from lumbar_tf.records.example import Piece
from lumbar_tf.records.framing import RecordWriter
from lumbar_tf.records.manifest import BuildOptions, RejectEntry, Shard, StudyEntry

#: Pattern of the shards' names in a plane's folder.
SHARD_PATTERN = "part-*.tfrecord"


def shard_name(index: int) -> str:
    """Returns a shard's file name, without the number of shards, since studies may be added later.

    >>> shard_name(3)
    'part-00003.tfrecord'
    """
    return f"part-{index:05d}.tfrecord"


@dataclass(frozen=True)
class _OpenShard:
    """A shard that is being written.

    Attributes:
        file: the file under its temporary name.
        writer: the writer of its records.
        study_ids: studies of the records so far.
    """

    file: IO[bytes]
    writer: RecordWriter
    study_ids: list[str]


class ShardSet:
    """Writer of one part's shards, one per plane, each opened for the plane's first record."""

    def __init__(self, folder: Path, index: int, stack: ExitStack) -> None:
        self._folder = folder
        self._name = shard_name(index)
        self._stack = stack
        self._shards: dict[Plane, _OpenShard] = {}

    def write(self, study_id: str, records: Mapping[Plane, Sequence[Piece]]) -> None:
        """Appends a study's records, in pieces, to the shards of their planes."""
        for plane, record in records.items():
            if plane not in self._shards:
                self._shards[plane] = self._open(self._folder / plane.value / self._name)
            shard = self._shards[plane]
            shard.writer.write(*record)
            shard.study_ids.append(study_id)
            release_cache(shard.file)

    def _open(self, path: Path) -> _OpenShard:
        temporary = self._stack.enter_context(replace_atomically(path))
        # Unbuffered: records are written in large pieces, which a buffer would copy.
        file = self._stack.enter_context(temporary.open("wb", buffering=0))
        return _OpenShard(file, RecordWriter(file), [])

    def describe(self) -> dict[str, Shard]:
        """Returns the manifest's entries of the shards, by the plane's name."""
        return {
            plane.value: Shard(
                file=f"{plane.value}/{self._name}",
                sha256=shard.writer.sha256,
                size_bytes=shard.writer.size_bytes,
                num_examples=shard.writer.num_records,
                study_ids=tuple(shard.study_ids),
            )
            for plane, shard in sorted(self._shards.items(), key=lambda item: item[0].value)
        }


@contextmanager
def open_shards(folder: Path, index: int) -> Iterator[ShardSet]:
    """Opens a part's shards, which appear under their names when the block ends without an exception.

    Args:
        folder: the records.
        index: the part's number.

    Yields:
        The writer of the shards.

    Raises:
        OSError: a write fails, for example because the disk is full; then none of the shards appears.
    """
    with ExitStack() as stack:
        yield ShardSet(folder, index, stack)


def replace_shard(path: Path, records: Iterable[bytes]) -> tuple[str, int]:
    """Replaces a shard's records, and returns its SHA-256 and its size in bytes."""
    with replace_atomically(path) as temporary, temporary.open("wb", buffering=0) as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
    return writer.sha256, writer.size_bytes


def remove_shards(folder: Path, is_wanted: Callable[[str], bool]) -> None:
    """Removes shards that are not wanted.

    Args:
        folder: the records.
        is_wanted: predicate of a shard's path as in the manifest, `sagittal_t1/part-00003.tfrecord`.
    """
    for plane in Plane:
        for path in (folder / plane.value).glob(SHARD_PATTERN):
            if not is_wanted(f"{plane.value}/{path.name}"):
                path.unlink()


@dataclass(frozen=True, eq=False)
class ShardSetJob:
    """A part to build.

    Attributes:
        index: the part's number.
        studies: the studies in the order of their records.
        out: folder of the records.
        options: options of the build.
        key: key of the pseudonyms, None to keep ids.
        is_strict: whether the first invalid input ends the build.
    """

    index: int
    studies: tuple[CohortStudy, ...]
    out: Path
    options: BuildOptions
    key: bytes | None = None
    is_strict: bool = False

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"part {self.index} (studies {self.studies[0].study_id} to {self.studies[-1].study_id})"


@dataclass(frozen=True, eq=False)
class BuiltShardSet:
    """A finished part.

    Attributes:
        part: its entry in the build state.
        patient_ids: PatientID by study id of the studies read in this run; kept in memory only.
    """

    part: BuiltPart
    patient_ids: Mapping[str, str]


def build_shards(job: ShardSetJob) -> BuiltShardSet:
    """Builds a part, unless an earlier run has finished it.

    Raises:
        ValueError: the disk is full, or, if the build is strict, an input is invalid.
    """
    fingerprint = _fingerprint(job)
    done = read_built_part(job.out, job.index, fingerprint)
    if done is not None:
        return BuiltShardSet(done, {})
    try:
        result = _build(job, fingerprint)
        write_built_part(job.out, result.part)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"The disk of {job.out} must have room for the records. Received: {error.strerror}. Finished "
            "shards are kept; free some space and continue with --resume."
        ) from None
    return result


def _build(job: ShardSetJob, fingerprint: str) -> BuiltShardSet:
    entries: list[StudyEntry] = []
    rejects: list[RejectEntry] = []
    patient_ids: dict[str, str] = {}
    with open_shards(job.out, job.index) as shards:
        for cohort_study in job.studies:
            study = make_study_records(cohort_study, job.options, job.key)
            if job.is_strict:
                raise_first_fault(study.rejects)
            rejects.extend(map(RejectEntry.of, study.rejects))
            shards.write(cohort_study.study_id, study.records)
            if study.entry is not None:
                entries.append(study.entry)
                patient_ids[cohort_study.study_id] = study.patient_id
    part = BuiltPart(
        index=job.index,
        fingerprint=fingerprint,
        shards=shards.describe(),
        studies=tuple(entries),
        rejects=tuple(rejects),
    )
    return BuiltShardSet(part, patient_ids)


def _fingerprint(job: ShardSetJob) -> str:
    """Returns the SHA-256 of the part's input, with names, sizes and times of files, not their bytes."""
    return hashlib.sha256(json.dumps([_describe(study) for study in job.studies]).encode()).hexdigest()


def _describe(job: CohortStudy) -> Sequence[object]:
    files, _ = list_study_files(job.files)
    return [
        job.study_id,
        sorted((series, plane.value if plane else "") for series, plane in job.series_planes.items()),
        None if job.labels is None else job.labels.tolist(),
        [repr(point) for point in job.coordinates],
        [_describe_file(path, job.files.root) for path in files],
    ]


def _describe_file(path: Path, root: Path) -> Sequence[object]:
    try:
        stat = path.stat()
    except OSError:
        return [str(path.relative_to(root))]
    return [str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns]
