"""Cross-validation of a plane's networks: localizer, then graders, fold by fold, to the out-of-fold tables.

A job is one network (a plane's localizer or one of its backbones) over some folds. Jobs exchange files only,
so once the landmarks they need exist they run in any order and in any process. A restarted job resumes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from lumbar_tf.config import TrainingConfig
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.inputs.study_batches import batches_per_epoch
from lumbar_tf.runners.memory import keep_freed_memory
from lumbar_tf.tables.landmarks import read_landmarks
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.devices import StrategyName, choose_precision, choose_strategy
from lumbar_tf.training.fitter import Fitter, FoldData, TrainingTask
from lumbar_tf.training.grader_task import grader_task, join_oof_tables
from lumbar_tf.training.localizer_task import axial_localizer_task, localizer_task, write_localizer_error
from lumbar_tf.training.metadata import member_attribution, write_member_metadata
from lumbar_tf.training.runs import LOCALIZER, PlaneRun, landmark_tables
from lumbar_tf.training.warm_start import initial_weights

#: Subfolder of a fold for the first of two training steps.
FIRST_STEP = "features"


@dataclass(frozen=True)
class TrainingJob:
    """Training of a network over some folds.

    Attributes:
        run: the plane's run.
        member: `LOCALIZER` or a backbone's name.
        folds: folds to hold out, one after the other.
        strategy: devices.
        threads: CPU threads; None leaves the number to TensorFlow.
        is_part: whether other jobs train the member's other folds; the caller then waits for all of them and
            calls `finish_member`.
        on_update: called with run and member when a fold has written its table and when the member is
            finished; its exceptions become warnings. A module-level function, since jobs are sent to other
            processes.
    """

    run: PlaneRun
    member: str
    folds: tuple[int, ...]
    strategy: StrategyName = StrategyName.AUTO
    threads: int | None = None
    is_part: bool = False
    on_update: Callable[[PlaneRun, str], None] | None = None

    @property
    def name(self) -> str:
        """Name of the member, such as `sagittal_t2/mobilenet_v2`, with the folds if it is a part."""
        name = self.run.member_name(self.member)
        return f"{name} fold {','.join(map(str, self.folds))}" if self.is_part else name


def localizer_jobs(run: PlaneRun, folds: Sequence[int], **options: object) -> list[TrainingJob]:
    """Returns the plane's localizer job; no job for a plane without a localizer.

    The axial plane's job needs the landmarks of the sagittal planes.
    """
    if run.config.localizer is None:
        return []
    return [TrainingJob(run, LOCALIZER, tuple(folds), **options)]  # type: ignore[arg-type]


def grader_jobs(run: PlaneRun, folds: Sequence[int], **options: object) -> list[TrainingJob]:
    """Returns one job for each of the plane's backbones."""
    backbones = run.config.grader.backbones
    return [TrainingJob(run, backbone, tuple(folds), **options) for backbone in backbones]  # type: ignore[arg-type]


def split_by_fold(jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
    """Returns one job per fold, for more processes or machines than networks."""
    return [replace(job, folds=(fold,), is_part=True) for job in jobs for fold in job.folds]


def run_training_job(job: TrainingJob) -> str:
    """Trains the folds of a job and writes their tables; finished folds are skipped.

    Returns:
        A line with the job's name and the summary of its member.
    """
    if job.threads is not None:
        _limit_threads(job.threads)
    keep_freed_memory()
    choose_precision(job.run.config.mixed_precision)
    remaining = [fold for fold in job.folds if not job.run.is_done(job.member, fold)]
    if remaining:
        _train_folds(job, remaining)
    summary = "" if job.is_part else finish_member(job)
    return f"{job.name}: done" + (f", {summary}" if summary else "")


def _train_folds(job: TrainingJob, folds: Sequence[int]) -> None:
    run = job.run
    task = _training_task(run, job.member)
    strategy, first = choose_strategy(job.strategy), task.pretraining
    fitter = Fitter(task.build, training=task.training, loss=task.loss, strategy=strategy)
    first_fitter = None
    if first is not None:
        first_fitter = Fitter(first.build, training=first.training, loss=first.loss, strategy=strategy)
    for fold in folds:
        seed, directory = run.fold_seed(fold), run.fold_directory(job.member, fold)
        studies = split_fold(run, fold, task.training, seed=seed)
        task.check_source(studies.train)
        # Before the data, which write a file into the fold's folder: afterwards the run cannot be
        # reconfigured.
        initial = initial_weights(run, job.member, fold)
        data = replace(_fold_data(task, studies, fold=fold, seed=seed), initial=initial)
        if first_fitter is not None:
            first_fitter.fit(data, directory / FIRST_STEP, seed=seed)
            data = replace(data, initial=directory / FIRST_STEP / WEIGHTS_NAME)
        fitter.fit(data, directory, seed=seed)
        task.write_predictions(fitter.model, task.eval_dataset(studies.held_out, fold=fold), fold)
        _notify(job)


def _training_task(run: PlaneRun, member: str) -> TrainingTask:
    localizer = run.config.localizer
    if member != LOCALIZER:
        return grader_task(run, member)
    if run.config.plane.is_sagittal or localizer is None:
        return localizer_task(run)
    return axial_localizer_task(run, localizer)


def _fold_data(task: TrainingTask, studies: "FoldStudies", *, fold: int, seed: int) -> FoldData:
    validation, early_stopping = (
        task.eval_dataset(source, fold=fold).map(lambda inputs, targets, _: (inputs, targets))
        if source.study_ids
        else None
        for source in (studies.held_out, studies.early_stopping)
    )
    return FoldData(
        train=lambda start_epoch: task.train_dataset(
            studies.train, fold=fold, seed=seed, start_epoch=start_epoch
        ),
        num_batches=batches_per_epoch(len(studies.train.study_ids), task.training.batch_studies),
        validation=validation,
        early_stopping=early_stopping,
        evaluator=task.evaluator,
    )


@dataclass(frozen=True)
class FoldStudies:
    """Studies of one fold.

    Attributes:
        train: training studies.
        early_stopping: studies of the training folds that are excluded from `train` for early stopping.
        held_out: studies of the held-out fold, which influence neither training nor early stopping.
    """

    train: RecordSource
    early_stopping: RecordSource
    held_out: RecordSource


def split_fold(run: PlaneRun, fold: int, training: TrainingConfig, *, seed: int) -> FoldStudies:
    """Returns the parts of the plane's studies in a fold.

    Raises:
        ValueError: no study is left to train on.
    """
    studies = run.studies(held_out=fold, is_training=True)
    excluded: tuple[str, ...] = ()
    if training.early_stopping is not None:
        excluded = early_stopping_studies(run, studies, share=training.early_stopping.share, seed=seed)
    train = tuple(study for study in studies if study not in set(excluded))
    if not train:
        raise ValueError(f"Fold {fold} leaves no study of {run.config.plane.value} to train on.")
    held_out = run.studies(held_out=fold, is_training=False)
    return FoldStudies(*(RecordSource(run.shards, part) for part in (train, excluded, held_out)))


def early_stopping_studies(
    run: PlaneRun, studies: tuple[str, ...], *, share: float, seed: int
) -> tuple[str, ...]:
    """Returns all studies of randomly selected patients (at least one patient) for early stopping.

    Args:
        run: run with the manifest, which contains the patient of each study.
        studies: studies of the training folds.
        share: share of their patients.
        seed: seed of the selection.

    Raises:
        ValueError: there are fewer than two patients.
    """
    patient_of = {entry.study_id: entry.patient_group for entry in run.manifest.studies}
    patients = sorted({patient_of[study] for study in studies})
    if len(patients) < 2:
        raise ValueError(f"early_stopping needs two training patients at least. Received: {len(patients)}.")
    count = max(round(len(patients) * share), 1)
    selected = set(np.random.default_rng(seed).choice(patients, count, replace=False).tolist())
    return tuple(study for study in studies if patient_of[study] in selected)


def finish_member(job: TrainingJob) -> str:
    """Joins the results of a member's folds: its table or its error, and its `run.json`.

    If several jobs train a member's folds, call it after all of them.

    Returns:
        A summary of a localizer's error, or of what points cost a grader; "" if this is not known.
    """
    run = job.run
    summary = ""
    if job.member == LOCALIZER:
        _check_found_points(run)
        error, shifts, slices = write_localizer_error(run)
        summary = (
            f"{error.num_points} held-out points, median error "
            f"{error.median_mm:.1f} mm, {error.within_10_mm:.1%} within 10 mm, "
            f"{error.own_level:.1%} nearest their own level, {error.num_withheld} withheld; level_shift "
            f"flags {shifts.num_flagged} of {shifts.num_studies} studies, {shifts.num_caught} of the "
            f"{shifts.num_shifted} shifted ones" + (f"; {slices}" if slices is not None else "")
        )
    else:
        join_oof_tables(run, job.member)
        attribution = member_attribution(run, job.member)
        summary = "" if attribution is None else str(attribution)
    write_member_metadata(run, job.member)
    _notify(job)
    return summary


def _check_found_points(run: PlaneRun) -> None:
    """Raises an error for a localizer that found no point: every crop, and so every table, would be empty.

    Raises:
        ValueError: all points of all held-out studies were withheld.
    """
    predicted = read_landmarks(landmark_tables(run.runs, [run.config.plane]))
    if predicted and not any(np.isfinite(points).any() for points in predicted.values()):
        raise ValueError(
            f"The localizer of {run.config.plane.value} must find a point. Received: all points of "
            f"{len(predicted)} held-out studies withheld. Train it longer (localizer.training.epochs) or on "
            "more studies, in another folder (--runs)."
        )


def _notify(job: TrainingJob) -> None:
    if job.on_update is None:
        return
    try:
        job.on_update(job.run, job.member)
    except Exception as error:  # a failed page must not end days of training
        warnings.warn(f"{job.name}: the training page could not be updated. {error!r}", stacklevel=2)


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(threads, 2))
    except RuntimeError:
        # TensorFlow has started already (a job in the command's own process): its threads stay.
        pass
