"""One part of a build: a run of studies and their shards, done once however often the build is killed."""

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.dicom.sources.study_source import list_study_files
from lumbar_tf.records.cohort import CohortStudy
from lumbar_tf.records.journal import Part, read_part, write_part
from lumbar_tf.records.manifest import BuildOptions, RejectEntry, StudyEntry
from lumbar_tf.records.shards import open_shards
from lumbar_tf.records.study_records import make_study_records, refuse_faults


@dataclass(frozen=True, eq=False)
class ShardJob:
    """One part to build.

    Attributes:
        index: its number.
        studies: in the order in which they are written.
        out: where the records go.
        options: of the build.
        key: for pseudonyms.
        is_strict: whether the first fault ends the build.
    """

    index: int
    studies: tuple[CohortStudy, ...]
    out: Path
    options: BuildOptions
    key: bytes | None = None
    is_strict: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"part {self.index} (studies {self.studies[0].study_id} to {self.studies[-1].study_id})"


@dataclass(frozen=True, eq=False)
class ShardResult:
    """A part that is done.

    Attributes:
        part: its entry in the journal.
        patient_ids: by study, of the studies that were read now; in memory only.
    """

    part: Part
    patient_ids: Mapping[str, str]


def build_shards(job: ShardJob) -> ShardResult:
    """Builds a part, or finds in the journal that it is done already.

    Raises:
        ValueError: the disk is full, or, where faults are fatal, there is one.
    """
    fingerprint = _fingerprint(job)
    done = read_part(job.out, job.index, fingerprint)
    if done is not None:
        return ShardResult(done, {})
    try:
        result = _build(job, fingerprint)
        write_part(job.out, result.part)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"The disk of {job.out} must have room for the records. Received: {error.strerror}. What is done "
            "stays; make room and go on with --resume."
        ) from None
    return result


def _build(job: ShardJob, fingerprint: str) -> ShardResult:
    entries: list[StudyEntry] = []
    rejects: list[RejectEntry] = []
    patient_ids: dict[str, str] = {}
    with open_shards(job.out, job.index) as shards:
        for each in job.studies:
            study = make_study_records(each, job.options, job.key)
            if job.is_strict:
                refuse_faults(study.rejects)
            rejects.extend(map(RejectEntry.of, study.rejects))
            shards.write(each.study_id, study.records)
            if study.entry is not None:
                entries.append(study.entry)
                patient_ids[each.study_id] = study.patient_id
    part = Part(
        index=job.index,
        fingerprint=fingerprint,
        shards=shards.describe(),
        studies=tuple(entries),
        rejects=tuple(rejects),
    )
    return ShardResult(part, patient_ids)


def _fingerprint(job: ShardJob) -> str:
    """SHA-256 over what the part is made from, by names, sizes and times of files instead of their bytes."""
    return hashlib.sha256(json.dumps([_describe(each) for each in job.studies]).encode()).hexdigest()


def _describe(job: CohortStudy) -> Sequence[object]:
    files, _ = list_study_files(job.files)
    return [
        job.study_id,
        sorted((series, plane.value if plane else "") for series, plane in job.series_planes.items()),
        None if job.labels is None else job.labels.tolist(),
        [repr(each) for each in job.coordinates],
        [_describe_file(path, job.files.root) for path in files],
    ]


def _describe_file(path: Path, root: Path) -> Sequence[object]:
    try:
        stat = path.stat()
    except OSError:
        return [str(path.relative_to(root))]
    return [str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns]
