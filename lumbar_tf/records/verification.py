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
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, Shard
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
    """Reads the manifest, or says what keeps it from being read."""

    def fault(code: IssueCode, message: str) -> tuple[None, list[RecordIssue]]:
        return None, [RecordIssue(code, MANIFEST_NAME, message)]

    path = folder / MANIFEST_NAME
    if not path.is_file():
        return fault(IssueCode.MANIFEST_ABSENT, "it is absent: the build did not finish")
    try:
        data = path.read_bytes()
        version = str(json.loads(data)["schema_version"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return fault(IssueCode.MANIFEST_DAMAGED, f"it is no manifest ({type(error).__name__})")
    major = SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != major:
        return fault(IssueCode.MANIFEST_SCHEMA, f"the schema version must be {major}.x")
    try:
        return Manifest.model_validate_json(data), []
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        return fault(IssueCode.MANIFEST_DAMAGED, f"{place}: {error.errors()[0]['msg']}")


def _is_plain(file: str, plane: str) -> bool:
    """Whether a shard's path is `<plane>/<name>`, so that nothing outside the folder is read."""
    parts = PurePosixPath(file).parts
    return len(parts) == 2 and parts[0] == plane and parts[1] != ".." and "\\" not in file


def listed_shards(manifest: Manifest) -> Iterator[tuple[Plane, Shard]]:
    """Yields the shards that may be read, with their planes."""
    planes = {each.value: each for each in Plane}
    for name, shards in manifest.planes.items():
        for shard in shards:
            if name in planes and _is_plain(shard.file, name):
                yield planes[name], shard


def check_manifest(manifest: Manifest) -> Iterator[RecordIssue]:
    """What the manifest says against itself."""

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
    by_study = Counter(each.study_id for each in manifest.studies)
    yield from (fault("the study is listed twice", each) for each, count in by_study.items() if count > 1)
    listed = Counter((study, plane.value) for plane, shard in known for study in shard.study_ids)
    counted = {(each.study_id, plane) for each in manifest.studies for plane in each.num_slices}
    for (study_id, plane), count in sorted(listed.items()):
        if count > 1:
            yield fault(f"{plane}: the shards list the study {count} times", study_id)
        if (study_id, plane) not in counted:
            yield fault(f"{plane}: a shard lists the study, its slices are not counted", study_id)
    for study_id, plane in sorted(counted - listed.keys()):
        yield fault(f"{plane}: its slices are counted, no shard lists the study", study_id)
    if not manifest.options.is_pseudonymised:
        groups = {each.study_id: each.patient_group for each in manifest.studies}
        for study_id, group in groups.items():
            if groups.get(group) != group:
                yield fault("patient_group must be a study of the same patient", study_id)


SHARD_SUFFIX = ".tfrecord"

#: What may lie beside records: the tables have checks of their own, the others are for people and git.
_COMPANIONS = frozenset({MANIFEST_NAME, "folds.csv", "labels.csv", "README.md", ".gitignore", ".gitkeep"})

#: Damages that follow from a shard holding another shard's bytes.
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
    """What a folder of records was found to be.

    Attributes:
        manifest: None where it cannot be used.
        records: every sound record.
        found: what is wrong, by file and record.
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
    """Checks manifest, shards and records of a folder; folds and source have checks of their own.

    Args:
        folder: what `build_records` wrote.
        workers: processes.
        progress: shows it, a unit a shard.

    Returns:
        What is there and what is wrong. Without a manifest shards are still read for themselves.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"Records must be in a folder. Received: {str(folder)!r}, which is none.")
    manifest, found = load_manifest(folder)
    if manifest is not None:
        found.extend(check_manifest(manifest))
    jobs, strays = _plan(folder, manifest)
    found.extend(strays)
    reports = []
    with progress(len(jobs)) as advance:
        for report in run_jobs(check_shard, jobs, workers=workers, name=_job_name):
            reports.append(report)
            advance(1)
    reports = _name_swaps(reports, manifest)
    records = [record for report in reports for record in report.records]
    found.extend(each for report in reports for each in report.found)
    found.extend(_cross_checks(records))
    return Verification(manifest, tuple(records), sort_issues(found))


def holds_records(folder: Path) -> bool:
    """Whether a folder is one of records, finished or not: it has a manifest, a journal or a shard."""
    names = (PurePosixPath(each) for each in list_record_files(folder))
    marks = (MANIFEST_NAME, BUILD_STATE_NAME)
    return any(each.parts[0] in marks or each.suffix == SHARD_SUFFIX for each in names)


def sort_issues(found: Iterable[RecordIssue]) -> tuple[RecordIssue, ...]:
    """Sorts by file, record, study and code; what concerns a whole file comes first."""

    def place(each: RecordIssue) -> tuple[str, int, str, str]:
        return each.file, -1 if each.record is None else each.record, each.study_id, each.code.value

    return tuple(sorted(found, key=place))


def _job_name(job: ShardCheckJob) -> str:
    return job.file


def _plan(folder: Path, manifest: Manifest | None) -> tuple[list[ShardCheckJob], list[RecordIssue]]:
    """Returns the shards to read and the files that do not belong."""
    expected = _expect(manifest) if manifest else {}
    jobs = [ShardCheckJob(folder, file, each) for file, each in expected.items()]
    found = []
    for file in list_record_files(folder):
        if file in expected or file in _COMPANIONS:
            continue
        name = PurePosixPath(file).name
        if (folder / file).is_symlink():
            found.append(RecordIssue(IssueCode.FOREIGN_FILE, file, "a link that the manifest does not name"))
        elif name.startswith(".") or file.startswith(f"{BUILD_STATE_NAME}/"):
            found.append(RecordIssue(IssueCode.LEFTOVER_FILE, file, "left by a build that did not finish"))
        elif not name.endswith(SHARD_SUFFIX):
            found.append(RecordIssue(IssueCode.FOREIGN_FILE, file, "no part of a folder of records"))
        elif manifest is None:
            jobs.append(ShardCheckJob(folder, file, None))
        else:
            found.append(RecordIssue(IssueCode.SHARD_FOREIGN, file, "the manifest does not name it"))
    return jobs, found


def list_record_files(folder: Path) -> Iterator[str]:
    """Yields every file and link below a folder, by its path there with forward slashes, in order."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        links = [each for each in folders if Path(parent, each).is_symlink()]
        folders[:] = sorted(set(folders) - set(links))
        for name in sorted([*names, *links]):
            yield Path(parent, name).relative_to(folder).as_posix()


def _expect(manifest: Manifest) -> dict[str, ExpectedShard]:
    slices = {each.study_id: each.num_slices for each in manifest.studies}
    expected = {}
    for plane, shard in listed_shards(manifest):
        # A study that the manifest does not count is one of its contradictions: nothing to compare with.
        num_slices = {study: slices.get(study, {}).get(plane.value) for study in shard.study_ids}
        expected[shard.file] = ExpectedShard(plane, shard.sha256, shard.size_bytes, num_slices)
    return expected


def _name_swaps(reports: Sequence[ShardReport], manifest: Manifest | None) -> list[ShardReport]:
    """Says of a shard that holds another one's bytes just that, instead of a damage for each record."""
    expected = {shard.file: shard.sha256 for _, shard in listed_shards(manifest)} if manifest else {}
    owners = {sha256: file for file, sha256 in expected.items()}
    named = []
    for report in reports:
        owner = owners.get(report.sha256)
        if owner is not None and report.file in expected and report.sha256 != expected[report.file]:
            rest = [each for each in report.found if each.code not in _FOLLOW_FROM_SWAP]
            swap = RecordIssue(IssueCode.SHARD_SWAPPED, report.file, f"it holds the bytes of {owner}")
            report = ShardReport(report.file, report.sha256, report.records, (swap, *rest))
        named.append(report)
    return sorted(named, key=lambda each: each.file)


def _cross_checks(records: Sequence[RecordSummary]) -> Iterator[RecordIssue]:
    """What only several shards together can tell."""
    by_record: dict[tuple[str, str], list[RecordSummary]] = defaultdict(list)
    by_study: dict[str, list[RecordSummary]] = defaultdict(list)
    for each in records:
        by_record[each.study_id, each.plane].append(each)
        by_study[each.study_id].append(each)
    for first, *others in by_record.values():
        for other in others:
            if other.file != first.file:
                message = f"{first.file} holds this study too"
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
                message = f"its {' and '.join(differing)} are not those in {first.file}"
                yield RecordIssue(IssueCode.PLANES_DISAGREE, other.file, message, other.study_id, other.index)
