"""Training a plane: localizer, then graders, fold by fold, to the out-of-fold tables.

A job is one network (a plane's localizer or one of its backbones) over some folds. Jobs share
nothing but files, so they run in any order in any process, once the landmarks that they need are there. A
job that is begun again goes on where it was.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from lumbar_tf.inputs.study_order import epoch_batches
from lumbar_tf.training.axial_localizer_task import axial_localizer_task
from lumbar_tf.training.devices import StrategyName, choose_precision, choose_strategy
from lumbar_tf.training.fitter import WEIGHTS_NAME, Fitter, FoldData
from lumbar_tf.training.grader_task import grader_task, join_oof
from lumbar_tf.training.localizer_task import localizer_task, write_localizer_error
from lumbar_tf.training.memory import keep_freed_memory
from lumbar_tf.training.run_metadata import write_member_metadata
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from lumbar_tf.training.task import FoldStudies, TrainingTask, split_fold
from lumbar_tf.training.warm_start import initial_weights

#: Of a fold's folder: where the first of two steps leaves what the second begins with.
FIRST_STEP = "features"


@dataclass(frozen=True)
class TrainingJob:
    """One network over some folds.

    Attributes:
        run: the plane's run.
        member: `LOCALIZER` or a backbone's name.
        folds: which folds to hold out, one after the other.
        strategy: the devices.
        threads: CPU threads; None leaves it to TensorFlow.
        is_part: others train the member's other folds, and whoever waits for all calls `finish_member`.
        tell: is called with run and member when a fold has left its table and when the member is finished;
            what it raises is a warning. Made where jobs are, so a function of a module.
    """

    run: PlaneRun
    member: str
    folds: tuple[int, ...]
    strategy: StrategyName = StrategyName.AUTO
    threads: int | None = None
    is_part: bool = False
    tell: Callable[[PlaneRun, str], None] | None = None

    @property
    def name(self) -> str:
        """`sagittal_t2/mobilenet_v2`, with the fold where there are jobs for others."""
        name = self.run.member_name(self.member)
        return f"{name} fold {','.join(map(str, self.folds))}" if self.is_part else name


def localizer_jobs(run: PlaneRun, folds: Sequence[int], **options: object) -> list[TrainingJob]:
    """Returns the plane's localizer job, or none where its points come from other planes alone.

    The axial plane's waits for those of the sagittal planes.
    """
    if run.config.localizer is None:
        return []
    return [TrainingJob(run, LOCALIZER, tuple(folds), **options)]  # type: ignore[arg-type]


def grader_jobs(run: PlaneRun, folds: Sequence[int], **options: object) -> list[TrainingJob]:
    """Returns a job for each of the plane's backbones."""
    return [TrainingJob(run, each, tuple(folds), **options) for each in run.config.grader.backbones]  # type: ignore[arg-type]


def split_by_fold(jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
    """Returns a job a fold, for more processes or machines than there are networks."""
    return [replace(job, folds=(fold,), is_part=True) for job in jobs for fold in job.folds]


def run_training_job(job: TrainingJob) -> str:
    """Trains what a job names and writes its tables; folds that are done are passed over.

    Returns:
        The job's name, and what is to be said of it.
    """
    if job.threads is not None:
        _limit_threads(job.threads)
    keep_freed_memory()
    choose_precision(job.run.config.mixed_precision)
    waiting = [fold for fold in job.folds if not job.run.is_answered(job.member, fold)]
    if waiting:
        _train_folds(job, waiting)
    words = "" if job.is_part else finish_member(job)
    return f"{job.name}: done" + (f", {words}" if words else "")


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(threads, 2))
    except RuntimeError:
        # TensorFlow is already running here (a job in the command's own process): its threads stay.
        pass


def _train_folds(job: TrainingJob, folds: Sequence[int]) -> None:
    run = job.run
    trainee = _trainee(run, job.member)
    strategy, first = choose_strategy(job.strategy), trainee.first_step
    fitter = Fitter(trainee.build, training=trainee.training, loss=trainee.loss, strategy=strategy)
    first_fitter = None
    if first is not None:
        first_fitter = Fitter(first.build, training=first.training, loss=first.loss, strategy=strategy)
    for fold in folds:
        seed, directory = run.fold_seed(fold), run.fold_directory(job.member, fold)
        sources = split_fold(run, fold, trainee.training, seed=seed)
        trainee.check(sources.train)
        # First what may refuse: the data leave a file in the fold's folder, and the folder claims the run.
        initial = initial_weights(run, job.member, fold)
        data = replace(_fold_data(trainee, sources, fold=fold, seed=seed), initial=initial)
        if first_fitter is not None:
            first_fitter.fit(data, directory / FIRST_STEP, seed=seed)
            data = replace(data, initial=directory / FIRST_STEP / WEIGHTS_NAME)
        fitter.fit(data, directory, seed=seed)
        trainee.write_table(fitter.model, trainee.make_evaluation(sources.held_out, fold=fold), fold)
        _tell(job)


def _trainee(run: PlaneRun, member: str) -> TrainingTask:
    localizer = run.config.localizer
    if member != LOCALIZER:
        return grader_task(run, member)
    if run.config.plane.is_sagittal or localizer is None:
        return localizer_task(run)
    return axial_localizer_task(run, localizer)


def _fold_data(trainee: TrainingTask, sources: FoldStudies, *, fold: int, seed: int) -> FoldData:
    validation, watched = (
        trainee.make_evaluation(source, fold=fold).map(lambda inputs, targets, _: (inputs, targets))
        if source.study_ids
        else None
        for source in (sources.held_out, sources.watched)
    )
    return FoldData(
        train=lambda start_epoch: trainee.make_train(
            sources.train, fold=fold, seed=seed, start_epoch=start_epoch
        ),
        num_batches=epoch_batches(len(sources.train.study_ids), trainee.training.batch_studies),
        validation=validation,
        watched=watched,
        judge=trainee.judge,
    )


def finish_member(job: TrainingJob) -> str:
    """Joins what a member's folds have left: its table or its error, and its `run.json`.

    Where jobs train a member's folds side by side this has to wait for all of them.

    Returns:
        What is to be said of a localizer; "" of a grader.
    """
    run = job.run
    words = ""
    if job.member == LOCALIZER:
        error, flags, slices = write_localizer_error(run)
        words = (
            f"{error.num_points} held-out points, median error "
            f"{error.median_mm:.1f} mm, {error.within_10_mm:.1%} within 10 mm, "
            f"{error.own_level:.1%} nearest their own level, {error.num_withheld} withheld; level_shift "
            f"flags {flags.num_flagged} of {flags.num_studies} studies, {flags.num_caught} of the "
            f"{flags.num_shifted} shifted ones" + (f"; {slices}" if slices is not None else "")
        )
    else:
        join_oof(run, job.member)
    write_member_metadata(run, job.member)
    _tell(job)
    return words


def _tell(job: TrainingJob) -> None:
    if job.tell is None:
        return
    try:
        job.tell(job.run, job.member)
    except Exception as error:  # days of training are worth more than any page about them
        warnings.warn(f"{job.name}: what is shown of it could not be made. {error!r}", stacklevel=2)
