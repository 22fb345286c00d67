"""Builds records: finds studies, reads them with their tables, writes shards, folds and manifest.

It lives here and not in `records` because it joins tables (`data`) to records, and imports run
downwards only.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.data.coordinates import Coordinate, place_points, read_coordinates
from lumbar_tf.data.folds import FOLDS_NAME, make_folds, write_folds
from lumbar_tf.data.series_table import read_series_table
from lumbar_tf.data.tables import read_labels
from lumbar_tf.files import file_sha256
from lumbar_tf.imaging.dicom import read_study
from lumbar_tf.imaging.sources import Source, read_source
from lumbar_tf.imaging.study import Reject, Study, no_slices
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Plane
from lumbar_tf.progress import ProgressMaker, silent_progress
from lumbar_tf.records.manifest import (
    MANIFEST_NAME,
    BuildOptions,
    Manifest,
    RejectEntry,
    Shard,
    StudyEntry,
    group_patients,
    package_versions,
    write_manifest,
)
from lumbar_tf.records.schema import SCHEMA_VERSION, encode_plane
from lumbar_tf.records.shards import open_shard, shard_name
from lumbar_tf.runners import Runner, run_jobs


@dataclass(frozen=True, eq=False)
class StudyJob:
    """One study to read, with everything that the tables say of it.

    Attributes:
        study_id: the study.
        folder: its files.
        series_planes: the plane of each series that the table names.
        labels: int8 [25], None where there is no row.
        coordinates: its annotated points.
    """

    study_id: str
    folder: Path
    series_planes: Mapping[str, Plane]
    labels: NDArray[np.int8] | None
    coordinates: Sequence[Coordinate]


@dataclass(frozen=True, eq=False)
class ShardJob:
    """One shard a plane: the studies in it, and where it goes."""

    index: int
    count: int
    studies: tuple[StudyJob, ...]
    out: Path


@dataclass(frozen=True, eq=False)
class ShardResult:
    """What became of a `ShardJob`. PatientIDs stay in memory.

    Attributes:
        index: the job's index.
        shards: by plane; planes that none of the studies has are absent.
        num_slices: by study and plane, for the studies that have any.
        patient_ids: by study.
        source_digests: by study.
        rejects: what was left out or noted.
        num_studies: how many studies the job held.
    """

    index: int
    shards: Mapping[Plane, Shard]
    num_slices: Mapping[str, dict[str, int]]
    patient_ids: Mapping[str, str]
    source_digests: Mapping[str, str]
    rejects: tuple[Reject, ...]
    num_studies: int


def build_records(
    sources: Sequence[Path],
    out: Path,
    options: BuildOptions,
    *,
    workers: int = 1,
    runner: Runner = Runner.LOCAL,
    progress: ProgressMaker = silent_progress,
) -> Manifest:
    """Builds the records of one or several sources.

    The bytes of every shard depend on the input and the options alone, not on the workers.

    Args:
        sources: folders or zips, see `imaging.sources.read_source`. Study ids must be distinct.
        out: gets a folder of shards a plane, `folds.csv` and, last, `manifest.json`.
        options: how to cut shards and folds.
        workers: processes.
        runner: where they run.
        progress: shows it, e.g. `lambda total: progress_bar("Building records", total)`.

    Returns:
        The manifest that was written.

    Raises:
        ValueError: no usable study, an id in two sources, or a table without its columns.
    """
    with _collect_studies(sources) as (studies, rejects):
        _check_fold_count(options.num_folds, len(studies))
        # From here on an older manifest would describe shards that are being replaced.
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        jobs = _cut_jobs(studies, out, options.studies_per_shard)
        results = []
        with progress(len(studies)) as advance:
            for result in run_jobs(_build_shards, jobs, workers=workers, name=_job_name, runner=runner):
                advance(result.num_studies)
                results.append(result)
    results.sort(key=lambda each: each.index)
    manifest = _make_manifest(results, rejects, options)
    if not manifest.studies:
        reasons = Counter(each.reason for each in manifest.rejects)
        raise ValueError(f"At least one study must be usable. Received: none, rejects: {dict(reasons)}.")
    labels = {each.study_id: each.labels for each in studies}
    write_folds(out / FOLDS_NAME, _fold_studies(manifest, labels, options))
    _remove_stale_shards(out, manifest)
    write_manifest(out, manifest)
    return manifest


def _check_fold_count(num_folds: int, num_studies: int) -> None:
    """Says so before hours of reading; patients can still turn out to be fewer than studies."""
    if num_folds > num_studies:
        raise ValueError(
            f"There must be a study for each fold. Received: {num_studies} studies, {num_folds} folds."
        )


@contextmanager
def _collect_studies(sources: Sequence[Path]) -> Iterator[tuple[list[StudyJob], list[Reject]]]:
    """Yields the studies of all sources, by id, while zips stay unpacked."""
    studies: dict[str, StudyJob] = {}
    rejects: list[Reject] = []
    with ExitStack() as stack:
        for root in sources:
            jobs, faults = _join_tables(stack.enter_context(read_source(root)))
            rejects.extend(faults)
            for job in jobs:
                if job.study_id in studies:
                    raise ValueError(f"Study ids must be distinct. Received: {job.study_id} in two folders.")
                studies[job.study_id] = job
        yield [studies[each] for each in sorted(studies)], rejects


def _join_tables(source: Source) -> tuple[list[StudyJob], list[Reject]]:
    series_planes, series_faults = read_series_table(source.series) if source.series else ({}, [])
    coordinates, faults = read_coordinates(source.coordinates) if source.coordinates else ({}, [])
    labels: dict[str, NDArray[np.int8]] = {}
    if source.labels:
        study_ids, grades = read_labels(source.labels)
        labels = dict(zip(study_ids, grades, strict=True))
    jobs = [
        StudyJob(
            each.study_id,
            each.folder,
            series_planes.get(each.study_id, {}),
            labels.get(each.study_id),
            coordinates.get(each.study_id, ()),
        )
        for each in source.studies
    ]
    return jobs, [*series_faults, *faults]


def _cut_jobs(studies: Sequence[StudyJob], out: Path, studies_per_shard: int) -> list[ShardJob]:
    starts = range(0, len(studies), studies_per_shard)
    return [
        ShardJob(index, len(starts), tuple(studies[start : start + studies_per_shard]), out)
        for index, start in enumerate(starts)
    ]


def _job_name(job: ShardJob) -> str:
    return f"shard {job.index} (studies {job.studies[0].study_id} to {job.studies[-1].study_id})"


def _build_shards(job: ShardJob) -> ShardResult:
    """Reads a job's studies one by one and writes one shard for each plane among them."""
    name = shard_name(job.index, job.count)
    written: dict[Plane, list[str]] = {}
    num_slices: dict[str, dict[str, int]] = {}
    patient_ids: dict[str, str] = {}
    digests: dict[str, str] = {}
    rejects: list[Reject] = []
    with ExitStack() as stack:
        writers: dict[Plane, tf.io.TFRecordWriter] = {}
        for item in job.studies:
            study = read_study(item.folder, item.series_planes, study_id=item.study_id)
            rejects.extend(study.rejects)
            if not study.planes:
                rejects.append(no_slices(item.study_id))
                continue
            points, faults = place_points(item.study_id, study.planes, item.coordinates)
            rejects.extend(faults)
            for plane, record in _encode_study(study, item.labels, points):
                if plane not in writers:
                    writers[plane] = stack.enter_context(open_shard(job.out / plane.value / name))
                writers[plane].write(record)
                written.setdefault(plane, []).append(item.study_id)
            num_slices[item.study_id] = {plane.value: len(each) for plane, each in study.planes.items()}
            patient_ids[item.study_id] = study.patient_id
            digests[item.study_id] = study.source_digest
    shards = {plane: _describe_shard(job.out, plane, name, ids) for plane, ids in written.items()}
    return ShardResult(job.index, shards, num_slices, patient_ids, digests, tuple(rejects), len(job.studies))


def _encode_study(
    study: Study, labels: NDArray[np.int8] | None, points: NDArray[np.float32]
) -> Iterator[tuple[Plane, bytes]]:
    for plane, slices in study.planes.items():
        yield plane, encode_plane(study.study_id, plane, slices, labels=labels, points=points)


def _describe_shard(out: Path, plane: Plane, name: str, study_ids: Sequence[str]) -> Shard:
    return Shard(
        file=f"{plane.value}/{name}",
        sha256=file_sha256(out / plane.value / name),
        num_examples=len(study_ids),
        study_ids=tuple(study_ids),
    )


def _make_manifest(
    results: Sequence[ShardResult], rejects: Iterable[Reject], options: BuildOptions
) -> Manifest:
    patients = {study: patient for each in results for study, patient in each.patient_ids.items()}
    groups = group_patients(patients)
    studies = [
        StudyEntry(
            study_id=study_id,
            patient_group=groups[study_id],
            source_digest=each.source_digests[study_id],
            num_slices=num_slices,
        )
        for each in results
        for study_id, num_slices in each.num_slices.items()
    ]
    faults = [*rejects, *(fault for each in results for fault in each.rejects)]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        packages=package_versions(),
        options=options,
        planes={
            plane.value: tuple(each.shards[plane] for each in results if plane in each.shards)
            for plane in Plane
        },
        studies=tuple(studies),
        rejects=tuple(RejectEntry.of(each) for each in faults),
    )


def _fold_studies(
    manifest: Manifest, labels: Mapping[str, NDArray[np.int8] | None], options: BuildOptions
) -> dict[str, int]:
    missing = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
    found = [labels[each.study_id] for each in manifest.studies]
    groups = [each.patient_group for each in manifest.studies]
    if options.num_folds == 1:
        return {each.study_id: 0 for each in manifest.studies}
    return make_folds(
        [each.study_id for each in manifest.studies],
        groups,
        np.stack([missing if each is None else each for each in found]),
        num_folds=options.num_folds,
        seed=options.fold_seed,
    )


def _remove_stale_shards(out: Path, manifest: Manifest) -> None:
    """Removes shards of an earlier build into the same folder: nothing describes them any more."""
    current = {shard.file for shards in manifest.planes.values() for shard in shards}
    for plane in Plane:
        for path in (out / plane.value).glob("part-*-of-*.tfrecord"):
            if f"{plane.value}/{path.name}" not in current:
                path.unlink()
