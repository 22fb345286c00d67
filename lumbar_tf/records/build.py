"""Builds records: finds studies, reads them with their tables, writes shards, folds and manifest.

It lives here and not in `records` because it joins tables (`data`) to records, and imports run
downwards only. Nothing on this path needs TensorFlow.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Plane
from lumbar_tf.records.build_state import (
    BuildPlan,
    check_can_append,
    lock_records,
    next_shard_index,
    read_build_plan,
    remove_build_state,
    studies_to_add,
    write_build_plan,
)
from lumbar_tf.records.cohort import Cohort, CohortStudy, open_cohort, raise_first_fault
from lumbar_tf.records.manifest import (
    MANIFEST_NAME,
    BuildOptions,
    Manifest,
    RejectEntry,
    has_manifest,
    package_versions,
    read_manifest,
    write_manifest,
)
from lumbar_tf.records.patients import group_studies
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.records.shards import BuiltShardSet, ShardSetJob, build_shards, remove_shards
from lumbar_tf.runners import Runner, run_jobs
from lumbar_tf.tables.folds import FOLDS_NAME, make_folds, read_folds, write_folds
from lumbar_tf.tables.labels import read_record_labels, write_record_labels


class BuildMode(Enum):
    """What to do about records that are there already."""

    #: Refuse to touch them.
    NEW = "new"
    #: Go on with a build that was cut off, whatever its mode; a finished one is left as it is.
    RESUME = "resume"
    #: Add the studies that are not among them, in new shards.
    APPEND = "append"
    #: Replace them.
    OVERWRITE = "overwrite"


@dataclass(frozen=True, eq=False)
class BuildTask:
    """What to build from what, and how faults are taken.

    Attributes:
        sources: folders or zips, see `dicom.sources.study_source.read_source`.
        out: gets a folder of shards a plane, `folds.csv` and, last, `manifest.json`.
        options: how to cut shards and folds.
        mode: what to do about records that are there already.
        series_map: a table whose rows override the sources' own, None for none.
        key: replaces ids by keyed hashes, None to keep them.
        is_strict: whether the first fault ends the build.
    """

    sources: Sequence[Path]
    out: Path
    options: BuildOptions
    mode: BuildMode = BuildMode.NEW
    series_map: Path | None = None
    key: bytes | None = None
    is_strict: bool = False


def run_build_task(
    task: BuildTask,
    *,
    workers: int = 1,
    runner: Runner = Runner.LOCAL,
    ray_address: str | None = None,
    progress: ProgressMaker = silent_progress,
) -> Manifest:
    """Builds the records of one or several sources.

    The bytes of every shard and of the manifest depend on the input and the options alone: not on the
    workers, not on where they ran, and not on how often the build was cut off and resumed.

    Args:
        task: what to build.
        workers: processes, or CPUs of a cluster of this machine's own.
        runner: where they run.
        ray_address: of a cluster that is there.
        progress: shows it, e.g. `lambda total: progress_bar("Building records", total)`.

    Returns:
        The manifest that was written.

    Raises:
        ValueError: no usable study, a table without its columns, records in the way, a disk that is
            full, or, with `is_strict`, the first fault.
    """
    task.out.mkdir(parents=True, exist_ok=True)
    with (
        lock_records(task.out),
        open_cohort(task.sources, series_map=task.series_map, key=task.key) as cohort,
    ):
        if task.is_strict:
            raise_first_fault(cohort.rejects)
        base, jobs = _prepare(task, cohort)
        if base is not None and not jobs:
            return base
        results = []
        with progress(sum(len(job.studies) for job in jobs)) as advance:
            for result in run_jobs(
                build_shards,
                jobs,
                workers=workers,
                name=lambda job: job.name,
                runner=runner,
                ray_address=ray_address,
            ):
                advance(len(jobs[result.part.index - jobs[0].index].studies))
                results.append(result)
        manifest = _finish(task, cohort, base, results)
        remove_build_state(task.out)
    return manifest


def _prepare(task: BuildTask, cohort: Cohort) -> tuple[Manifest | None, list[ShardSetJob]]:
    """Decides what is left to build, and writes it down before the first shard.

    Returns:
        The manifest that is added to, None for a build of its own; and the parts.
    """
    if task.mode is BuildMode.OVERWRITE:
        remove_build_state(task.out)
        (task.out / MANIFEST_NAME).unlink(missing_ok=True)
    plan = _read_plan(task.out)
    if task.mode is BuildMode.NEW and (plan is not None or has_manifest(task.out)):
        state, flag = ("unfinished", "--resume") if plan else ("finished", "--append")
        raise ValueError(f"{task.out} must hold no records. Received: {state} ones; {flag} or --overwrite.")
    is_added_to = has_manifest(task.out) if plan is None else bool(plan.base_sha256)
    base = read_manifest(task.out) if is_added_to else None
    if base is not None:
        check_can_append(task.out, base, task.options, cohort, has_key=task.key is not None)
    studies = studies_to_add(cohort.jobs, base, is_resumed=task.mode is BuildMode.RESUME and plan is None)
    if base is not None and plan is None and not studies:
        return base, []
    first = next_shard_index(base)
    wanted = BuildPlan(
        fingerprint=_fingerprint(task.options, studies),
        first_part=first,
        base_sha256=file_sha256(task.out / MANIFEST_NAME) if base is not None else "",
    )
    if plan not in (None, wanted):
        raise ValueError(
            f"{task.out} holds an unfinished build of other studies, options or package versions: give what "
            "it was begun with, or build anew with --overwrite."
        )
    if base is None:
        _check_count(len(studies), task.options.num_folds, cohort)
    if plan is None:
        kept = {shard.file for shards in (base.planes.values() if base else ()) for shard in shards}
        remove_shards(task.out, kept.__contains__)
        write_build_plan(task.out, wanted)
    return base, _cut_parts(task, studies, first)


def _read_plan(out: Path) -> BuildPlan | None:
    """Returns the plan of an unfinished build; one that was cut off after its last file is finished here."""
    plan = read_build_plan(out)
    if plan is not None and plan.base_sha256 and file_sha256(out / MANIFEST_NAME) != plan.base_sha256:
        # The manifest that was to be written is there; only the journal was still to be removed.
        remove_build_state(out)
        return None
    return plan


def _check_count(num_studies: int, num_folds: int, cohort: Cohort) -> None:
    """Says so before hours of reading; studies can still turn out unusable, or of fewer patients."""
    if not num_studies:
        raise _nothing_usable(map(RejectEntry.of, cohort.rejects))
    if num_folds > num_studies:
        raise ValueError(
            f"There must be a study for each fold. Received: {num_studies} studies, {num_folds} folds."
        )


def _nothing_usable(rejects: Iterable[RejectEntry]) -> ValueError:
    reasons = dict(Counter(each.reason for each in rejects))
    return ValueError(f"At least one study must be usable. Received: none, rejects: {reasons}.")


def _fingerprint(options: BuildOptions, studies: Sequence[CohortStudy]) -> str:
    parts = [
        SCHEMA_VERSION,
        package_versions(),
        options.model_dump(mode="json"),
        [each.study_id for each in studies],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cut_parts(task: BuildTask, studies: Sequence[CohortStudy], first: int) -> list[ShardSetJob]:
    step = task.options.studies_per_shard
    return [
        ShardSetJob(
            index=index,
            studies=tuple(studies[start : start + step]),
            out=task.out,
            options=task.options,
            key=task.key,
            is_strict=task.is_strict,
        )
        for index, start in enumerate(range(0, len(studies), step), start=first)
    ]


def _finish(
    task: BuildTask, cohort: Cohort, base: Manifest | None, results: Sequence[BuiltShardSet]
) -> Manifest:
    """Writes labels and folds and, last, the manifest."""
    manifest = _make_manifest(task, cohort, base, results)
    labels = {each.study_id: each.labels for each in cohort.jobs if each.labels is not None}
    known = {each.study_id for each in manifest.studies}
    kept_folds: dict[str, int] = {}
    if base is not None:
        kept_folds = read_folds(task.out / FOLDS_NAME, base.patient_groups)
        labels = {**read_record_labels(task.out), **labels}
    labels = {study: row for study, row in labels.items() if study in known}
    write_record_labels(task.out, labels)
    write_folds(task.out / FOLDS_NAME, _deal_folds(manifest, labels, kept_folds))
    write_manifest(task.out, manifest)
    return manifest


def _make_manifest(
    task: BuildTask, cohort: Cohort, base: Manifest | None, results: Sequence[BuiltShardSet]
) -> Manifest:
    parts = sorted((each.part for each in results), key=lambda part: part.index)
    studies = [*(base.studies if base else ()), *(each for part in parts for each in part.studies)]
    rejects = [
        *(base.rejects if base else ()),
        *map(RejectEntry.of, cohort.rejects),
        *(each for part in parts for each in part.rejects),
    ]
    if not studies:
        raise _nothing_usable(rejects)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        packages=package_versions(),
        options=task.options,
        planes={
            plane.value: (
                *(base.planes.get(plane.value, ()) if base else ()),
                *(part.shards[plane.value] for part in parts if plane.value in part.shards),
            )
            for plane in Plane
        },
        studies=group_studies(studies, cohort.jobs, _known_patients(results), has_key=task.key is not None),
        # A study that was tried again says the same again.
        rejects=tuple(dict.fromkeys(rejects)),
        is_synthetic=cohort.is_synthetic and (base is None or base.is_synthetic),
    )


def _known_patients(results: Sequence[BuiltShardSet]) -> dict[str, str]:
    return {study: patient for each in results for study, patient in each.patient_ids.items()}


def _deal_folds(
    manifest: Manifest, labels: Mapping[str, NDArray[np.int8]], kept: Mapping[str, int]
) -> dict[str, int]:
    options = manifest.options
    study_ids = [each.study_id for each in manifest.studies]
    if options.num_folds == 1:
        return dict.fromkeys(study_ids, 0)
    missing = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
    return make_folds(
        study_ids,
        [each.patient_group for each in manifest.studies],
        np.stack([labels.get(each, missing) for each in study_ids]),
        num_folds=options.num_folds,
        seed=options.fold_seed,
        kept=kept,
    )
