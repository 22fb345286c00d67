"""Verification of records against the DICOM files that they were made from.

Each study is read and encoded again, and its records are compared byte for byte, since encoding is
deterministic. Each worker holds one study in memory.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.records.cohort import CohortStudy, StudyRecords
from lumbar_tf.records.example import join_pieces, parse_example_features
from lumbar_tf.records.issues import IssueCode, RecordIssue
from lumbar_tf.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    RejectEntry,
    StudyEntry,
    package_versions,
)
from lumbar_tf.records.shard_check import RecordSummary, read_record_at
from lumbar_tf.records.verification import Verification, sort_issues
from lumbar_tf.runners import run_jobs

#: Function that encodes a study again: `make_study_records` with the build's options.
Rebuild = Callable[[CohortStudy], StudyRecords]


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A study of the source, the function to encode it, and its records."""

    study: CohortStudy
    rebuild: Rebuild
    folder: Path
    entry: StudyEntry | None
    rejects: tuple[RejectEntry, ...]
    stored: tuple[RecordSummary, ...]
    hint: str


def verify_source(
    folder: Path,
    verification: Verification,
    studies: Sequence[CohortStudy],
    rebuild: Rebuild,
    *,
    workers: int = 1,
    progress: ProgressMaker = silent_progress,
) -> tuple[RecordIssue, ...]:
    """Encodes every study of the source again and compares the result with the records.

    Damaged records, which `verification` already reports, are not compared.

    Args:
        folder: the records.
        verification: result of `verify_records`.
        studies: studies of the source, under the ids of the records.
        rebuild: function that encodes a study; a top-level function or a `functools.partial` of one.
        workers: processes.
        progress: progress display; a unit is a study.

    Returns:
        The differences. None without a manifest, which `verification` already reports.
    """
    manifest = verification.manifest
    if manifest is None:
        return ()
    entries = {entry.study_id: entry for entry in manifest.studies}
    found = list(_absent_studies(entries, {study.study_id for study in studies}))
    comparisons = _pair(folder, verification.records, manifest, studies, rebuild)
    with progress(len(comparisons)) as advance:
        for faults in run_jobs(_compare, comparisons, workers=workers, name=_job_name):
            found.extend(faults)
            advance(1)
    return sort_issues(found)


def _absent_studies(entries: Mapping[str, StudyEntry], in_source: Collection[str]) -> Iterator[RecordIssue]:
    for study_id in entries:
        if study_id not in in_source:
            message = "the source does not contain this study"
            yield RecordIssue(IssueCode.SOURCE_MISSING, MANIFEST_NAME, message, study_id)


def _pair(
    folder: Path,
    records: Sequence[RecordSummary],
    manifest: Manifest,
    studies: Sequence[CohortStudy],
    rebuild: Rebuild,
) -> list[_Comparison]:
    entries = {entry.study_id: entry for entry in manifest.studies}
    stored: dict[str, list[RecordSummary]] = defaultdict(list)
    rejects: dict[str, list[RejectEntry]] = defaultdict(list)
    for record in records:
        stored[record.study_id].append(record)
    for reject in manifest.rejects:
        rejects[reject.study_id].append(reject)
    hint = _package_hint(manifest.packages)
    return [
        _Comparison(
            study=study,
            rebuild=rebuild,
            folder=folder,
            entry=entries.get(study.study_id),
            rejects=tuple(rejects[study.study_id]),
            stored=tuple(stored[study.study_id]),
            hint=hint,
        )
        for study in studies
    ]


def _package_hint(built_with: Mapping[str, str]) -> str:
    """Returns a hint at differing package versions, which can change decoded or encoded bytes."""
    here = package_versions()
    others = sorted(name for name, version in built_with.items() if here.get(name) != version)
    return f"; built with other versions of {', '.join(others)}" if others else ""


def _job_name(job: _Comparison) -> str:
    return f"study {job.study.study_id}"


def _compare(job: _Comparison) -> tuple[RecordIssue, ...]:
    return tuple(_differences(job, job.rebuild(job.study)))


def _differences(job: _Comparison, made: StudyRecords) -> Iterator[RecordIssue]:
    study_id = job.study.study_id

    def of_manifest(code: IssueCode, message: str) -> RecordIssue:
        return RecordIssue(code, MANIFEST_NAME, message, study_id)

    if job.entry is None:
        # The manifest contains only the rejects of a study without records.
        if not job.rejects:
            yield of_manifest(IssueCode.SOURCE_ADDED, "the records lack this study")
        elif made.entry is not None:
            yield of_manifest(
                IssueCode.SOURCE_CHANGED, "it gave no records when they were built, and gives some now"
            )
        return
    if made.entry is None:
        yield of_manifest(IssueCode.SOURCE_CHANGED, "its files no longer give records")
        return
    if made.entry.source_digest != job.entry.source_digest:
        # Its records then differ as well.
        yield of_manifest(
            IssueCode.SOURCE_CHANGED, "its files differ from those that the records were made from"
        )
        return
    for name in ("num_slices", "series"):
        if getattr(made.entry, name) != getattr(job.entry, name):
            yield of_manifest(IssueCode.MANIFEST_DIFFERS, f"{name} differs from that of its files{job.hint}")
    lacking = {RejectEntry.of(reject) for reject in made.rejects} - set(job.rejects)
    if lacking:
        reasons = ", ".join(sorted({reject.reason for reject in lacking}))
        yield of_manifest(
            IssueCode.MANIFEST_DIFFERS, f"rejects lack {len(lacking)} of it: {reasons}{job.hint}"
        )
    yield from _record_differences(job, made)


def _record_differences(job: _Comparison, made: StudyRecords) -> Iterator[RecordIssue]:
    records = {plane.value: join_pieces(pieces) for plane, pieces in made.records.items()}
    for stored in job.stored:
        record = records.get(stored.plane)
        if record is None or hashlib.sha256(record).hexdigest() == stored.sha256:
            continue
        names = _differing_features(read_record_at(job.folder, stored), record)
        message = f"the source gives other values of {names}{job.hint}"
        yield RecordIssue(IssueCode.RECORD_DIFFERS, stored.file, message, stored.study_id, stored.index)


def _differing_features(stored: bytes, made: bytes) -> str:
    """Returns the names of the features that differ; NaN equals NaN, which marks a missing point."""
    first, second = parse_example_features(stored), parse_example_features(made)
    # Only names in the schema: unknown names could contain anything.
    names = [name for name in second if repr(first.get(name)) != repr(second[name])]
    return ", ".join(sorted(names)) or "nothing but order"
