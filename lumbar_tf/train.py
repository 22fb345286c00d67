"""`python -m lumbar_tf.train`: trains one plane and writes its out-of-fold tables."""

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
        --plane         sagittal_t1, sagittal_t2 or axial_t2. Axial crops are cut at the sagittal landmarks,
                        and an axial localizer searches around them, so train sagittal_t2 first.
        --config        The plane's YAML (configs/<plane>.yaml).
        --set           Overrides, such as --set grader.training.epochs=3.
        --backbone      Backbones to train instead of the configured ones, with commas.
        --fold          One fold instead of all.
        --records       Where build_records put the records (tfrecords).
        --folds         Folds file (folds.csv beside the records).
        --runs          Where runs go (runs).
        --weights       Where backbones start: NAME:FILE or NAME:imagenet (downloads), with commas; one that
                        is not named starts from nothing. Holds for localizer and graders.
        --init-from     A run whose members' weights these start from, fold by fold, or a file of weights.
        --drop-noisy    Leaves out training labels that --noise-oof disagrees with by as much or more, such
                        as 0.8 (off). Never in the held-out fold.
        --noise-oof     A pattern of the out-of-fold tables of a run before this one, in another folder.
        --strategy      auto, mirrored or tpu (untested): the devices of one job.
        --workers       Jobs side by side (1); with more than one, and with ray, each network and fold is a
                        job of its own, else each network. Local ones share this machine's cores.
        --runner        Where jobs run: local or ray (local).
        --ray-address   A Ray cluster that is there, "auto" or HOST:PORT; by default one is started on this
                        machine. All machines must see the folders at the same paths.
        --cpus-per-job  With ray: CPUs of each job (1).
        --gpus-per-job  With ray: GPUs of each job (0); below 1, several jobs share one.

    Writes weights, history, TensorBoard logs, out-of-fold tables and a page of each network to RUNS/<plane>,
    and RUNS/training.html, which leads to them. A run that was interrupted goes on at the last finished epoch
    and ends as if it had not been; what is done is passed over.
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
        "Run the same command again: it goes on after the last finished epoch and passes over what is done."
    )


def resolve_config(options: TrainOptions) -> PlaneConfig:
    """Returns the configuration with all flags applied.

    Raises:
        ValueError: the file or an override is at fault.
        UsageError: the file is another plane's.
    """
    overrides = list(options.set)
    path = options.config or default_config_path(options.plane)
    # An axial plane may have none, which an override of its weights would seem to begin.
    has_localizer = load_plane_config(path, overrides=overrides).localizer is not None
    if options.backbone:
        overrides.append(f"grader.backbones=[{','.join(options.backbone)}]")
    for each in options.weights:
        name, colon, value = each.partition(":")
        if not colon or not value:
            raise UsageError(f"--weights takes NAME:FILE or NAME:imagenet. Received: {each!r}.")
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
    for each in options.weights:
        if each.partition(":")[0] not in known:
            raise UsageError(f"--weights must name one of {', '.join(sorted(known))}. Received: {each!r}.")
    if config.plane is not options.plane:
        raise UsageError(f"{path} configures {config.plane.value}, not --plane={options.plane.value}.")
    return config


def train(options: TrainOptions) -> Summary:
    """Trains what the options name."""
    config = resolve_config(options)
    share = _job_share(options)
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.reports.training_page import write_training_index, write_training_pages
    from lumbar_tf.training.cross_validation import grader_jobs, localizer_jobs
    from lumbar_tf.training.devices import StrategyName
    from lumbar_tf.training.predicted_points import write_level_slices
    from lumbar_tf.training.runs import open_run

    # Absolute, because a job on another machine starts in another folder.
    run = open_run(
        config,
        records=options.records.absolute(),
        runs=options.runs.absolute(),
        folds_path=options.folds,
    )
    folds = _chosen_folds(options, run)
    write_options(options, run.directory)
    shared = {
        "strategy": StrategyName(options.strategy),
        "threads": _threads(options),
        "tell": partial(write_training_pages, is_synthetic=run.manifest.is_synthetic),
    }
    if not config.plane.is_sagittal:
        print_status(f"{config.plane.value}, level points: {write_level_slices(run)}")
    # Crops are cut where the localizers point: no grader begins before they are done.
    stages = {
        "Training localizer": localizer_jobs(run, folds, **shared),
        "Training graders": grader_jobs(run, folds, **shared),
    }
    notes = [
        line for title, jobs in stages.items() for line in _run_side_by_side(options, title, jobs, share)
    ]
    # Again: of two jobs that end together, the page of the slower one may be the older.
    index = write_training_index(run.runs, is_synthetic=run.manifest.is_synthetic)
    return Summary(
        f"{config.plane.value} trained",
        {"networks": [job.name for jobs in stages.values() for job in jobs], "folds": list(map(str, folds))},
        {"run": run.directory, "pages": index},
        notes,
    )


def _run_side_by_side(
    options: TrainOptions, title: str, jobs: "list[TrainingJob]", share: JobShare | None
) -> list[str]:
    """Runs networks that do not wait for each other, and joins what their folds leave.

    Returns:
        What is to be said of each network.
    """
    from lumbar_tf.training.cross_validation import finish_member, run_training_job, split_by_fold
    from lumbar_tf.training.epoch_progress import show_epochs

    is_split = options.workers > 1 or options.runner is Runner.RAY
    split = split_by_fold(jobs) if is_split else jobs
    lines = []
    with show_epochs(
        split, progress=lambda total: progress_bar(title, total, unit="epoch"), tell=print_status
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


def _job_share(options: TrainOptions) -> JobShare | None:
    """Returns what each job has of a Ray machine; None where jobs run elsewhere.

    Raises:
        UsageError: a flag needs Ray, or a path would be another one elsewhere.
    """
    share = JobShare(options.cpus_per_job, options.gpus_per_job)
    if options.runner is Runner.RAY:
        for each in options.weights:
            name, _, value = each.partition(":")
            if value not in ("none", "imagenet") and not Path(value).is_absolute():
                raise UsageError(
                    f"--weights must be an absolute path with --runner=ray. Received: {value!r} for {name}."
                )
        return share
    if share != JobShare() or options.ray_address is not None:
        raise UsageError("--ray-address, --cpus-per-job and --gpus-per-job need --runner=ray.")
    return None


def _threads(options: TrainOptions) -> int | None:
    """Returns the CPU threads of each job; None leaves them to TensorFlow."""
    if options.runner is Runner.RAY:
        return options.cpus_per_job
    return max((os.cpu_count() or 1) // options.workers, 1) if options.workers > 1 else None


def _chosen_folds(options: TrainOptions, run: "PlaneRun") -> tuple[int, ...]:
    if options.fold is None:
        return run.fold_numbers
    if options.fold not in run.fold_numbers:
        raise UsageError(f"--fold must be one of {run.fold_numbers}. Received: {options.fold}.")
    return (options.fold,)


if __name__ == "__main__":
    run_command(TrainOptions, train)
