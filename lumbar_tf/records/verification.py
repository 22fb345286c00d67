"""Verification of a folder of records against its manifest.

All issues are reported, not only the first. Each shard is read once, one record at a time, so that memory
depends on the number of records and not on their size.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.labels import Plane
from lumbar_tf.records.build_state import BUILD_STATE_NAME
from lumbar_tf.records.issues import IssueCode, RecordIssue
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, Shard, is_shard_name
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.records.shard_check import (
    ExpectedShard,
    RecordSummary,
    ShardCheckJob,
    ShardReport,
    check_shard,
)
from lumbar_tf.runners import run_jobs


def load_manifest(folder: Path) -> tuple[Manifest | None, list[RecordIssue]]:
    """Reads the manifest, or returns the issue that prevents it."""

    def fault(code: IssueCode, message: str) -> tuple[None, list[RecordIssue]]:
        return None, [RecordIssue(code, MANIFEST_NAME, message)]

    path = folder / MANIFEST_NAME
    if not path.is_file():
        return fault(IssueCode.MANIFEST_ABSENT, "it is absent: the build did not finish")
    try:
        data = path.read_bytes()
        version = str(json.loads(data)["schema_version"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return fault(IssueCode.MANIFEST_DAMAGED, f"it is not a manifest ({type(error).__name__})")
    major = SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != major:
        return fault(IssueCode.MANIFEST_SCHEMA, f"the schema version must be {major}.x")
    try:
        return Manifest.model_validate_json(data), []
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        return fault(IssueCode.MANIFEST_DAMAGED, f"{place}: {error.errors()[0]['msg']}")


def listed_shards(manifest: Manifest) -> Iterator[tuple[Plane, Shard]]:
    """Yields the manifest's shards with valid paths, and their planes."""
    for name, shards in manifest.planes.items():
        for shard in shards:
            if is_shard_name(shard.file, name):
                yield Plane(name), shard


def check_manifest(manifest: Manifest) -> Iterator[RecordIssue]:
    """Yields the contradictions within a manifest."""

    def fault(message: str, study_id: str = "") -> RecordIssue:
        return RecordIssue(IssueCode.MANIFEST_CONTRADICTION, MANIFEST_NAME, message, study_id)

    known = list(listed_shards(manifest))
    num_named = sum(len(shards) for shards in manifest.planes.values())
    if len(known) != num_named:
        yield fault(f"{num_named - len(known)} shards are not named <plane>/<file>")
    if len({shard.file for _, shard in known}) != len(known):
        yield fault("a shard is named twice")
    for _, shard in known:
        if shard.num_examples != len(shard.study_ids):
            yield fault(f"{shard.file}: num_examples {shard.num_examples}, study ids {len(shard.study_ids)}")
    by_study = Counter(study.study_id for study in manifest.studies)
    yield from (
        fault("the study is listed twice", study_id) for study_id, count in by_study.items() if count > 1
    )
    listed = Counter((study, plane.value) for plane, shard in known for study in shard.study_ids)
    counted = {(study.study_id, plane) for study in manifest.studies for plane in study.num_slices}
    for (study_id, plane), count in sorted(listed.items()):
        if count > 1:
            yield fault(f"{plane}: the shards list the study {count} times", study_id)
        if (study_id, plane) not in counted:
            yield fault(f"{plane}: a shard lists the study, its slices are not counted", study_id)
    for study_id, plane in sorted(counted - listed.keys()):
        yield fault(f"{plane}: its slices are counted, no shard lists the study", study_id)
    if not manifest.options.is_pseudonymised:
        groups = manifest.patient_groups
        for study_id, group in groups.items():
            if groups.get(group) != group:
                yield fault("patient_group must be a study of the same patient", study_id)


SHARD_SUFFIX = ".tfrecord"

#: Files that may lie beside shards.
_COMPANIONS = frozenset({MANIFEST_NAME, "folds.csv", "labels.csv", "README.md", ".gitignore", ".gitkeep"})

#: Issues that follow from a shard having another shard's content.
_FOLLOW_FROM_SWAP = frozenset(
    {
        IssueCode.SHARD_CHANGED,
        IssueCode.RECORD_PLANE,
        IssueCode.RECORD_FOREIGN,
        IssueCode.RECORD_MISSING,
        IssueCode.RECORD_ORDER,
        IssueCode.SLICE_COUNT,
    }
)


@dataclass(frozen=True, eq=False)
class Verification:
    """The result of verifying a folder of records.

    Attributes:
        manifest: the manifest, None if it cannot be used.
        records: every valid record.
        found: the issues, sorted by file and record.
    """

    manifest: Manifest | None
    records: tuple[RecordSummary, ...]
    found: tuple[RecordIssue, ...]


def verify_records(
    folder: Path,
    *,
    workers: int = 1,
    progress: ProgressMaker = silent_progress,
) -> Verification:
    """Verifies manifest, shards and records of a folder; see `table_check` and `source_check` for the rest.

    Args:
        folder: output of `build_records`.
        workers: processes.
        progress: progress display; a unit is a shard.

    Returns:
        Valid records and issues. Without a manifest the shards are still read.

    Raises:
        ValueError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ValueError(f"Records must be a folder. Received: {str(folder)!r}, which is not one.")
    manifest, found = load_manifest(folder)
    if manifest is not None:
        found.extend(check_manifest(manifest))
    jobs, unexpected = _list_shards(folder, manifest)
    found.extend(unexpected)
    reports = []
    with progress(len(jobs)) as advance:
        for report in run_jobs(check_shard, jobs, workers=workers, name=_job_name):
            reports.append(report)
            advance(1)
    reports = _detect_swapped_shards(reports, manifest)
    records = [record for report in reports for record in report.records]
    found.extend(issue for report in reports for issue in report.found)
    found.extend(_cross_checks(records))
    return Verification(manifest, tuple(records), sort_issues(found))


def holds_records(folder: Path) -> bool:
    """Whether a folder contains records, finished or not: a manifest, a build state or a shard."""
    names = (PurePosixPath(file) for file in list_record_files(folder))
    marks = (MANIFEST_NAME, BUILD_STATE_NAME)
    return any(name.parts[0] in marks or name.suffix == SHARD_SUFFIX for name in names)


def sort_issues(found: Iterable[RecordIssue]) -> tuple[RecordIssue, ...]:
    """Sorts issues by file, record, study and code; issues of a whole file come first."""

    def place(issue: RecordIssue) -> tuple[str, int, str, str]:
        return issue.file, -1 if issue.record is None else issue.record, issue.study_id, issue.code.value

    return tuple(sorted(found, key=place))


def _job_name(job: ShardCheckJob) -> str:
    return job.file


def _list_shards(folder: Path, manifest: Manifest | None) -> tuple[list[ShardCheckJob], list[RecordIssue]]:
    """Returns the shards to read, and an issue for every other file and for links."""
    expected = _expect(manifest) if manifest else {}
    jobs = [ShardCheckJob(folder, file, shard) for file, shard in expected.items()]
    found = [
        RecordIssue(IssueCode.SHARD_LINK, file, "a link: its records are stored elsewhere")
        for file in expected
        if is_linked(folder, file)
    ]
    linked = {PurePosixPath(issue.file).parts[0] for issue in found}
    for file in list_record_files(folder):
        if file in linked or file in expected or file in _COMPANIONS:
            continue
        name = PurePosixPath(file).name
        if (folder / file).is_symlink():
            found.append(RecordIssue(IssueCode.FOREIGN_FILE, file, "a link that is not in the manifest"))
        elif name.startswith(".") or file.startswith(f"{BUILD_STATE_NAME}/"):
            found.append(RecordIssue(IssueCode.LEFTOVER_FILE, file, "left by a build that did not finish"))
        elif not name.endswith(SHARD_SUFFIX):
            found.append(RecordIssue(IssueCode.FOREIGN_FILE, file, "not part of a folder of records"))
        elif manifest is None:
            jobs.append(ShardCheckJob(folder, file, None))
        else:
            found.append(RecordIssue(IssueCode.SHARD_FOREIGN, file, "it is not in the manifest"))
    return jobs, found


def is_linked(folder: Path, file: str) -> bool:
    """Whether a file of a folder of records, or the plane's folder that it is in, is a link."""
    path = folder / file
    return path.is_symlink() or path.parent.is_symlink()


def list_record_files(folder: Path) -> Iterator[str]:
    """Yields the relative path, with forward slashes, of every file and link below a folder, in order."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links))
        for name in sorted([*names, *links]):
            yield Path(parent, name).relative_to(folder).as_posix()


def _expect(manifest: Manifest) -> dict[str, ExpectedShard]:
    slices = {study.study_id: study.num_slices for study in manifest.studies}
    expected = {}
    for plane, shard in listed_shards(manifest):
        # None for a study without a number of slices, which `check_manifest` reports.
        num_slices = {study: slices.get(study, {}).get(plane.value) for study in shard.study_ids}
        expected[shard.file] = ExpectedShard(plane, shard.sha256, shard.size_bytes, num_slices)
    return expected


def _detect_swapped_shards(reports: Sequence[ShardReport], manifest: Manifest | None) -> list[ShardReport]:
    """Replaces the issues of a shard with another shard's content by a single one."""
    expected = {shard.file: shard.sha256 for _, shard in listed_shards(manifest)} if manifest else {}
    owners = {sha256: file for file, sha256 in expected.items()}
    named = []
    for report in reports:
        owner = owners.get(report.sha256)
        if owner is not None and report.file in expected and report.sha256 != expected[report.file]:
            rest = [issue for issue in report.found if issue.code not in _FOLLOW_FROM_SWAP]
            swap = RecordIssue(IssueCode.SHARD_SWAPPED, report.file, f"it has the content of {owner}")
            report = ShardReport(report.file, report.sha256, report.records, (swap, *rest))
        named.append(report)
    return sorted(named, key=lambda report: report.file)


def _cross_checks(records: Sequence[RecordSummary]) -> Iterator[RecordIssue]:
    """Compares the records of several shards."""
    by_record: dict[tuple[str, str], list[RecordSummary]] = defaultdict(list)
    by_study: dict[str, list[RecordSummary]] = defaultdict(list)
    for record in records:
        by_record[record.study_id, record.plane].append(record)
        by_study[record.study_id].append(record)
    for first, *others in by_record.values():
        for other in others:
            if other.file != first.file:
                message = f"{first.file} contains this study too"
                yield RecordIssue(
                    IssueCode.STUDY_IN_TWO_SHARDS, other.file, message, other.study_id, other.index
                )
    for first, *others in by_study.values():
        for other in others:
            differing = [
                name
                for name, differs in (
                    ("labels", other.labels != first.labels),
                    ("points", other.points_sha256 != first.points_sha256),
                )
                if differs
            ]
            if differing:
                message = f"its {' and '.join(differing)} differ from those in {first.file}"
                yield RecordIssue(IssueCode.PLANES_DISAGREE, other.file, message, other.study_id, other.index)
