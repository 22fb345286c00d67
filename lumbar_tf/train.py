"""Command `python -m lumbar_tf.train`: trains the networks of one plane and writes out-of-fold tables."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveInt

from lumbar_tf.cli.command import CommaList, CommandOptions, UsageError, run_command, write_options
from lumbar_tf.cli.console import Summary, print_status
from lumbar_tf.cli.progress import progress_bar
from lumbar_tf.config import PlaneConfig, default_config_path, load_plane_config
from lumbar_tf.labels import Plane
from lumbar_tf.runners import JobShare, Runner, run_jobs

if TYPE_CHECKING:
    from lumbar_tf.training.cross_validation import TrainingJob
    from lumbar_tf.training.runs import PlaneRun


class TrainOptions(CommandOptions):
    """Trains the localizer and the graders of one plane, for all folds.

    Flags:
        --plane         sagittal_t1, sagittal_t2 or axial_t2. Axial crops and the axial localizer need the
                        sagittal landmarks, so train sagittal_t2 first.
        --config        The plane's YAML file (configs/<plane>.yaml).
        --set           Overrides, such as --set grader.training.epochs=3.
        --backbone      Comma-separated backbones to train instead of the configured ones.
        --fold          One fold instead of all.
        --records       Folder of the records (tfrecords).
        --folds         Folds file (folds.csv in the folder of the records).
        --runs          Folder of the runs (runs).
        --weights       Comma-separated initial weights of backbones, NAME:FILE or NAME:imagenet (downloads);
                        other backbones start from random weights. For localizer and graders.
        --init-from     Run, or file of weights, to start from, member by member and fold by fold.
        --drop-noisy    Ignore training labels that differ from --noise-oof by this much or more, such as 0.8
                        (off). Labels of the held-out fold are never ignored.
        --noise-oof     Glob pattern of the out-of-fold tables of an earlier run, in another folder.
        --strategy      Devices of one job: auto, mirrored or tpu (untested).
        --workers       Number of parallel jobs (1). With more than one, and with ray, each fold of a network
                        is a job, else each network. Local jobs share this machine's cores.
        --runner        Where jobs run: local or ray (local).
        --ray-address   Existing Ray cluster, "auto" or HOST:PORT; by default one is started on this machine.
                        All machines must have the folders at the same paths.
        --cpus-per-job  With ray: CPUs of each job (1).
        --gpus-per-job  With ray: GPUs of each job (0); below 1, several jobs share one.

    Writes weights, history, TensorBoard logs, out-of-fold tables and a page for each network to RUNS/<plane>,
    and RUNS/training.html with links to the pages. An interrupted run resumes after the last finished epoch
    with the same result; finished folds are skipped.
    """

    plane: Plane
    config: Path | None = None
    set: tuple[str, ...] = ()
    backbone: CommaList = ()
    fold: int | None = None
    records: Path = Path("tfrecords")
    folds: Path | None = None
    runs: Path = Path("runs")
    weights: CommaList = ()
    init_from: str | None = None
    drop_noisy: float | None = None
    noise_oof: str | None = None
    strategy: Literal["auto", "mirrored", "tpu"] = "auto"
    workers: PositiveInt = 1
    runner: Runner = Runner.LOCAL
    ray_address: str | None = None
    cpus_per_job: PositiveInt = 1
    gpus_per_job: NonNegativeFloat = 0.0

    after_interrupt: ClassVar[str] = (
        "Run the same command again: it resumes after the last finished epoch and skips finished folds."
    )


def resolve_config(options: TrainOptions) -> PlaneConfig:
    """Returns the configuration with all flags applied.

    Raises:
        ValueError: the file or an override is invalid.
        UsageError: the file is of another plane, or flags contradict each other.
    """
    overrides = list(options.set)
    path = options.config or default_config_path(options.plane)
    # An axial plane may have no localizer; an override of its weights would create one.
    has_localizer = load_plane_config(path, overrides=overrides).localizer is not None
    if options.backbone:
        overrides.append(f"grader.backbones=[{','.join(options.backbone)}]")
    for item in options.weights:
        name, colon, value = item.partition(":")
        if not colon or not value:
            raise UsageError(f"--weights takes NAME:FILE or NAME:imagenet. Received: {item!r}.")
        overrides.append(f"grader.training.weights.{name}={value}")
        if has_localizer:
            overrides.append(f"localizer.training.weights.{name}={value}")
    if options.init_from is not None:
        overrides.append(f"grader.init_from={options.init_from}")
        if has_localizer:
            overrides.append(f"localizer.init_from={options.init_from}")
    if (options.drop_noisy is None) != (options.noise_oof is None):
        raise UsageError("--drop-noisy and --noise-oof need each other.")
    if options.drop_noisy is not None:
        overrides.append(f"grader.label_noise.threshold={options.drop_noisy}")
        overrides.append(f"grader.label_noise.oof={options.noise_oof}")
    config = load_plane_config(path, overrides=overrides)
    known = {*config.grader.backbones, *([config.localizer.backbone] if config.localizer else [])}
    for item in options.weights:
        if item.partition(":")[0] not in known:
            raise UsageError(f"--weights must name one of {', '.join(sorted(known))}. Received: {item!r}.")
    if config.plane is not options.plane:
        raise UsageError(f"{path} configures {config.plane.value}, not --plane={options.plane.value}.")
    return config


def train(options: TrainOptions) -> Summary:
    """Trains the networks that the options select."""
    config = resolve_config(options)
    share = job_share(options)
    # Imported here, since TensorFlow takes seconds to import and --help must not wait for it.
    from lumbar_tf.reports.training_page import write_training_index, write_training_pages
    from lumbar_tf.training.cross_validation import grader_jobs, localizer_jobs
    from lumbar_tf.training.devices import StrategyName
    from lumbar_tf.training.predicted_points import write_level_slices
    from lumbar_tf.training.runs import open_run

    # Absolute paths, because a job on another machine starts in another folder.
    run = open_run(
        config,
        records=options.records.absolute(),
        runs=options.runs.absolute(),
        folds_path=options.folds,
    )
    folds = _selected_folds(options, run)
    write_options(options, run.directory)
    shared = {
        "strategy": StrategyName(options.strategy),
        "threads": threads_per_job(options),
        "on_update": partial(write_training_pages, is_synthetic=run.manifest.is_synthetic),
    }
    if not config.plane.is_sagittal:
        print_status(f"{config.plane.value}, level points: {write_level_slices(run)}")
    # Graders need the landmarks of finished localizers.
    stages = {
        "Training localizer": localizer_jobs(run, folds, **shared),
        "Training graders": grader_jobs(run, folds, **shared),
    }
    notes = [line for title, jobs in stages.items() for line in _run_jobs(options, title, jobs, share)]
    # Again, since of two jobs that end at the same time the older index may be written last.
    index = write_training_index(run.runs, is_synthetic=run.manifest.is_synthetic)
    return Summary(
        f"{config.plane.value} trained",
        {"networks": [job.name for jobs in stages.values() for job in jobs], "folds": list(map(str, folds))},
        {"run": run.directory, "pages": index},
        notes,
    )


def _run_jobs(
    options: TrainOptions, title: str, jobs: "list[TrainingJob]", share: JobShare | None
) -> list[str]:
    """Runs the jobs of one stage in parallel and joins the results of their folds.

    Returns:
        A line about each network.
    """
    from lumbar_tf.training.cross_validation import finish_member, run_training_job, split_by_fold
    from lumbar_tf.training.epoch_progress import show_epochs

    is_split = options.workers > 1 or options.runner is Runner.RAY
    split = split_by_fold(jobs) if is_split else jobs
    lines = []
    with show_epochs(
        split, progress=lambda total: progress_bar(title, total, unit="epoch"), print_line=print_status
    ):
        for line in run_jobs(
            run_training_job,
            split,
            workers=options.workers,
            name=lambda job: job.name,
            runner=options.runner,
            ray_address=options.ray_address,
            share=share,
        ):
            print_status(line)
            lines.append(line)
    return [f"{job.name}: {finish_member(job) or 'done'}" for job in jobs] if is_split else lines


def job_share(options: TrainOptions) -> JobShare | None:
    """Returns the CPUs and GPUs of each Ray job; None with another runner.

    Raises:
        UsageError: a flag needs Ray, or a path is relative and would differ between machines.
    """
    share = JobShare(options.cpus_per_job, options.gpus_per_job)
    if options.runner is Runner.RAY:
        for item in options.weights:
            name, _, value = item.partition(":")
            if value not in ("none", "imagenet") and not Path(value).is_absolute():
                raise UsageError(
                    f"--weights must be an absolute path with --runner=ray. Received: {value!r} for {name}."
                )
        return share
    if share != JobShare() or options.ray_address is not None:
        raise UsageError("--ray-address, --cpus-per-job and --gpus-per-job need --runner=ray.")
    return None


def threads_per_job(options: TrainOptions) -> int | None:
    """Returns the CPU threads of each job; None leaves the number to TensorFlow."""
    if options.runner is Runner.RAY:
        return options.cpus_per_job
    return max((os.cpu_count() or 1) // options.workers, 1) if options.workers > 1 else None


def _selected_folds(options: TrainOptions, run: "PlaneRun") -> tuple[int, ...]:
    if options.fold is None:
        return run.fold_numbers
    if options.fold not in run.fold_numbers:
        raise UsageError(f"--fold must be one of {run.fold_numbers}. Received: {options.fold}.")
    return (options.fold,)


if __name__ == "__main__":
    run_command(TrainOptions, train)
