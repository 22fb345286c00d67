"""Building of records: from DICOM studies and tables to shards, labels, folds and the manifest.

Nothing on this path imports TensorFlow.
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

from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.dicom.study_files import read_patient_id
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
from lumbar_tf.tables.folds import FOLDS_NAME, make_folds, read_folds, select_folds, write_folds
from lumbar_tf.tables.labels import read_record_labels, write_record_labels


class BuildMode(Enum):
    """Treatment of existing records."""

    #: Existing records are an error.
    NEW = "new"
    #: Continue an interrupted build of any mode; finished records are left unchanged.
    RESUME = "resume"
    #: Add the studies that are not in the records, in new shards.
    APPEND = "append"
    #: Replace existing records.
    OVERWRITE = "overwrite"


@dataclass(frozen=True, eq=False)
class BuildTask:
    """Input and options of a build.

    Attributes:
        sources: folders or zips, see `dicom.sources.study_source.read_source`.
        out: output folder: one folder of shards per plane, `folds.csv` and, written last, `manifest.json`.
        options: options of shards and folds.
        mode: treatment of existing records.
        series_map: table whose rows override the sources' tables, None for none.
        key: key of the pseudonyms that replace ids, None to keep ids.
        folds: fold by study, below `options.num_folds`; None to assign folds.
        is_strict: whether the first invalid input ends the build.
    """

    sources: Sequence[Path]
    out: Path
    options: BuildOptions
    mode: BuildMode = BuildMode.NEW
    series_map: Path | None = None
    key: bytes | None = None
    folds: Mapping[str, int] | None = None
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

    The bytes of every shard and of the manifest depend on the input and the options only, not on the number
    of workers, the runner or interruptions.

    Args:
        task: input and options.
        workers: processes, or CPUs of a Ray cluster that is started on this machine.
        runner: local processes or Ray.
        ray_address: address of an existing cluster.
        progress: progress display, e.g. `lambda total: progress_bar("Building records", total)`.

    Returns:
        The written manifest.

    Raises:
        ValueError: no study is usable, a table lacks columns, records exist, the disk is full, or, with
            `is_strict`, the first invalid input.
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
    """Determines the parts to build, and writes the build plan.

    Returns:
        The manifest to append to, None for a new build; and the parts.
    """
    if task.mode is BuildMode.OVERWRITE:
        remove_build_state(task.out)
        (task.out / MANIFEST_NAME).unlink(missing_ok=True)
    plan = _read_plan(task.out)
    if task.mode is BuildMode.NEW and (plan is not None or has_manifest(task.out)):
        state, flag = ("unfinished", "--resume") if plan else ("finished", "--append")
        raise ValueError(
            f"{task.out} must hold no records. Received: {state} records; use {flag} or --overwrite."
        )
    is_added_to = has_manifest(task.out) if plan is None else bool(plan.base_sha256)
    base = read_manifest(task.out) if is_added_to else None
    if base is not None:
        check_can_append(task.out, base, task.options, cohort, has_key=task.key is not None)
    studies = studies_to_add(cohort.jobs, base, is_resumed=task.mode is BuildMode.RESUME and plan is None)
    if base is not None and plan is None and not studies:
        return base, []
    first = next_shard_index(base)
    wanted = BuildPlan(
        fingerprint=_fingerprint(task, studies),
        first_part=first,
        base_sha256=file_sha256(task.out / MANIFEST_NAME) if base is not None else "",
    )
    if plan not in (None, wanted):
        raise ValueError(
            f"{task.out} holds an unfinished build of other studies, options or package versions: use the "
            "same ones, or rebuild with --overwrite."
        )
    if base is None:
        _check_count(studies, task.options.num_folds, cohort)
    if task.folds is not None:
        _check_folds(task.folds, studies, task.options.num_folds, is_new=base is None)
    if plan is None:
        kept = {shard.file for shards in (base.planes.values() if base else ()) for shard in shards}
        remove_shards(task.out, kept.__contains__)
        write_build_plan(task.out, wanted)
    return base, _make_jobs(task, studies, first)


def _read_plan(out: Path) -> BuildPlan | None:
    """Returns the plan of an unfinished build, and removes that of one interrupted after its last file."""
    plan = read_build_plan(out)
    if plan is not None and plan.base_sha256 and file_sha256(out / MANIFEST_NAME) != plan.base_sha256:
        # The new manifest was written; only the build state had not been removed yet.
        remove_build_state(out)
        return None
    return plan


def _check_count(studies: Sequence[CohortStudy], num_folds: int, cohort: Cohort) -> None:
    """Checks the numbers of studies and patients before hours of reading; usable ones may be fewer."""
    if not studies:
        raise _no_usable_study(map(RejectEntry.of, cohort.rejects))
    counts = {"studies": len(studies)}
    if num_folds <= len(studies):
        counts["patients"] = _count_patients(studies, num_folds)
    for name, count in counts.items():
        if num_folds > count:
            raise UsageError(
                f"`folds` must be at most the number of {name}. Received: {num_folds} folds, {count} {name}."
            )


def _count_patients(studies: Sequence[CohortStudy], limit: int) -> int:
    """Returns the number of patients, up to a limit: usually a header of the first few studies is enough."""
    patients: set[tuple[str, str]] = set()
    for study in studies:
        if len(patients) == limit or limit == 1:
            return limit
        patient_id = read_patient_id(study.files)
        patients.add(("patient", patient_id) if patient_id else ("study", study.study_id))
    return len(patients)


def _no_usable_study(rejects: Iterable[RejectEntry]) -> ValueError:
    reasons = dict(Counter(reject.reason for reject in rejects))
    return ValueError(f"At least one study must be usable. Received: none, rejects: {reasons}.")


def _check_folds(
    folds: Mapping[str, int], studies: Sequence[CohortStudy], num_folds: int, *, is_new: bool
) -> None:
    """Checks given folds before hours of reading: each study has one, no fold is empty, no patient in two."""
    chosen = select_folds(
        folds, {study.study_id: study.study_id for study in studies}, name="The table of --folds-file"
    )
    empty = sorted(set(range(num_folds)) - set(chosen.values()))
    if is_new and empty:
        raise UsageError(
            f"--folds-file must give a study to each of the folds 0 to {num_folds - 1}. Received: none for "
            f"fold {empty[0]}."
        )
    patients = {study.study_id: read_patient_id(study.files) or study.study_id for study in studies}
    select_folds(folds, patients, name="The table of --folds-file")


def _fingerprint(task: BuildTask, studies: Sequence[CohortStudy]) -> str:
    parts: list[object] = [
        SCHEMA_VERSION,
        package_versions(),
        task.options.model_dump(mode="json"),
        [study.study_id for study in studies],
    ]
    if task.folds is not None:
        parts.append([task.folds.get(study.study_id) for study in studies])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _make_jobs(task: BuildTask, studies: Sequence[CohortStudy], first: int) -> list[ShardSetJob]:
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
    """Writes labels, folds and, last, the manifest."""
    manifest = _make_manifest(task, cohort, base, results)
    labels = {study.study_id: study.labels for study in cohort.jobs if study.labels is not None}
    study_ids = {study.study_id for study in manifest.studies}
    kept_folds: dict[str, int] = {}
    if base is not None:
        kept_folds = read_folds(task.out / FOLDS_NAME, base.patient_groups)
        labels = {**read_record_labels(task.out), **labels}
    labels = {study: row for study, row in labels.items() if study in study_ids}
    write_record_labels(task.out, labels)
    if task.folds is None:
        folds = _assign_folds(manifest, labels, kept_folds)
    else:
        folds = select_folds({**task.folds, **kept_folds}, manifest.patient_groups, name="--folds-file")
    write_folds(task.out / FOLDS_NAME, folds)
    write_manifest(task.out, manifest)
    return manifest


def _make_manifest(
    task: BuildTask, cohort: Cohort, base: Manifest | None, results: Sequence[BuiltShardSet]
) -> Manifest:
    parts = sorted((result.part for result in results), key=lambda part: part.index)
    studies = [*(base.studies if base else ()), *(study for part in parts for study in part.studies)]
    rejects = [
        *(base.rejects if base else ()),
        *map(RejectEntry.of, cohort.rejects),
        *(reject for part in parts for reject in part.rejects),
    ]
    if not studies:
        raise _no_usable_study(rejects)
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
        studies=group_studies(studies, cohort.jobs, _patient_ids(results), has_key=task.key is not None),
        # A study that was tried again has the same rejects again.
        rejects=tuple(dict.fromkeys(rejects)),
        is_synthetic=cohort.is_synthetic and (base is None or base.is_synthetic),
    )


def _patient_ids(results: Sequence[BuiltShardSet]) -> dict[str, str]:
    return {study: patient for result in results for study, patient in result.patient_ids.items()}


def _assign_folds(
    manifest: Manifest, labels: Mapping[str, NDArray[np.int8]], kept: Mapping[str, int]
) -> dict[str, int]:
    options = manifest.options
    study_ids = [study.study_id for study in manifest.studies]
    if options.num_folds == 1:
        return dict.fromkeys(study_ids, 0)
    missing = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
    return make_folds(
        study_ids,
        [study.patient_group for study in manifest.studies],
        np.stack([labels.get(study_id, missing) for study_id in study_ids]),
        num_folds=options.num_folds,
        seed=options.fold_seed,
        kept=kept,
    )
