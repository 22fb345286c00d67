"""Proves records against the DICOM files that they were made from.

Each study is read and encoded again, and its records are compared byte for byte: the encoder gives the same
bytes for the same input. A study at a time, so memory depends on the workers and not on the cohort.
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

#: Makes a study's records again, as the build did: `make_study_records` with the build's options.
Rebuild = Callable[[CohortStudy], StudyRecords]


@dataclass(frozen=True, eq=False)
class _Comparison:
    """One study: how to make it again, and what the folder holds of it."""

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
    """Reads every study of the source again and compares it with the folder.

    Records that `verification` found damaged are not compared: they are named already.

    Args:
        folder: the records.
        verification: what `verify_records` found in it.
        studies: those of the source, under the ids that the records use.
        rebuild: makes a study's records; a module's top-level function or a `functools.partial` of one.
        workers: processes.
        progress: shows it, a unit a study.

    Returns:
        What differs. Nothing where there is no manifest to compare with: that is named already.
    """
    manifest = verification.manifest
    if manifest is None:
        return ()
    entries = {each.study_id: each for each in manifest.studies}
    found = list(_absent_studies(entries, {each.study_id for each in studies}))
    comparisons = _pair(folder, verification.records, manifest, studies, rebuild)
    with progress(len(comparisons)) as advance:
        for faults in run_jobs(_compare, comparisons, workers=workers, name=_job_name):
            found.extend(faults)
            advance(1)
    return sort_issues(found)


def _absent_studies(entries: Mapping[str, StudyEntry], in_source: Collection[str]) -> Iterator[RecordIssue]:
    for study_id in entries:
        if study_id not in in_source:
            message = "the source does not hold this study"
            yield RecordIssue(IssueCode.SOURCE_MISSING, MANIFEST_NAME, message, study_id)


def _pair(
    folder: Path,
    records: Sequence[RecordSummary],
    manifest: Manifest,
    studies: Sequence[CohortStudy],
    rebuild: Rebuild,
) -> list[_Comparison]:
    entries = {each.study_id: each for each in manifest.studies}
    stored: dict[str, list[RecordSummary]] = defaultdict(list)
    rejects: dict[str, list[RejectEntry]] = defaultdict(list)
    for record in records:
        stored[record.study_id].append(record)
    for reject in manifest.rejects:
        rejects[reject.study_id].append(reject)
    hint = _package_hint(manifest.packages)
    return [
        _Comparison(
            study=each,
            rebuild=rebuild,
            folder=folder,
            entry=entries.get(each.study_id),
            rejects=tuple(rejects[each.study_id]),
            stored=tuple(stored[each.study_id]),
            hint=hint,
        )
        for each in studies
    ]


def _package_hint(built_with: Mapping[str, str]) -> str:
    """Other versions of a decoder or encoder may write other bytes: said beside every difference."""
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
        # A study that gave no records is known to the manifest by its rejects alone.
        if not job.rejects:
            yield of_manifest(IssueCode.SOURCE_ADDED, "the records lack this study")
        elif made.entry is not None:
            yield of_manifest(IssueCode.SOURCE_CHANGED, "it gave no records then and gives some now")
        return
    if made.entry is None:
        yield of_manifest(IssueCode.SOURCE_CHANGED, "its files give no records any more")
        return
    if made.entry.source_digest != job.entry.source_digest:
        # That its records differ too follows, and says nothing more.
        yield of_manifest(IssueCode.SOURCE_CHANGED, "its files are not those that the records were made from")
        return
    for name in ("num_slices", "series"):
        if getattr(made.entry, name) != getattr(job.entry, name):
            yield of_manifest(IssueCode.MANIFEST_DIFFERS, f"{name} is not what its files give{job.hint}")
    lacking = {RejectEntry.of(each) for each in made.rejects} - set(job.rejects)
    if lacking:
        reasons = ", ".join(sorted({each.reason for each in lacking}))
        yield of_manifest(
            IssueCode.MANIFEST_DIFFERS, f"rejects lack {len(lacking)} of it: {reasons}{job.hint}"
        )
    yield from _record_differences(job, made)


def _record_differences(job: _Comparison, made: StudyRecords) -> Iterator[RecordIssue]:
    records = {plane.value: join_pieces(pieces) for plane, pieces in made.records.items()}
    for each in job.stored:
        record = records.get(each.plane)
        if record is None or hashlib.sha256(record).hexdigest() == each.sha256:
            continue
        names = _differing_features(read_record_at(job.folder, each), record)
        message = f"the source gives other values of {names}{job.hint}"
        yield RecordIssue(IssueCode.RECORD_DIFFERS, each.file, message, each.study_id, each.index)


def _differing_features(stored: bytes, made: bytes) -> str:
    """Names the features that differ; NaN equals NaN here, since points that nobody marked are NaN."""
    first, second = parse_example_features(stored), parse_example_features(made)
    # Names in the schema only: those of a foreign record are not ours to show.
    names = [name for name in second if repr(first.get(name)) != repr(second[name])]
    return ", ".join(sorted(names)) or "nothing but order"
