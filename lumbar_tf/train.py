"""`python -m lumbar_tf.train`: trains one plane and writes its out-of-fold tables."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from lumbar_tf.cli import CommaList, CommandOptions, UsageError, run_command, write_options
from lumbar_tf.config import PlaneConfig, default_config_path, load_plane_config
from lumbar_tf.labels import Plane
from lumbar_tf.runners import Runner, run_jobs

if TYPE_CHECKING:
    from lumbar_tf.ensemble.runs import PlaneRun


class TrainOptions(CommandOptions):
    """Trains the localizer and the graders of one plane, for all folds.

    Flags:
        --plane     sagittal_t1, sagittal_t2 or axial_t2. Axial crops are cut at the sagittal landmarks, so
                    train sagittal_t2 first.
        --config    The plane's YAML (configs/<plane>.yaml).
        --set       Overrides, such as --set grader.training.epochs=3.
        --backbone  Backbones to train instead of the configured ones, with commas.
        --fold      One fold instead of all.
        --records   Where build_records put the records (tfrecords).
        --folds     Folds file (folds.csv beside the records).
        --runs      Where runs go (runs).
        --weights   Where backbones start: NAME:FILE or NAME:imagenet (downloads), with commas; one that is
                    not named starts from nothing. Holds for localizer and graders.
        --strategy  auto, mirrored or tpu (untested).
        --workers   Networks that train side by side, in processes that share the cores (1).
        --runner    Where the workers run: local.

    Writes weights, history, TensorBoard logs and out-of-fold tables to RUNS/<plane>. A run that was
    interrupted goes on at the last finished epoch; what is done is passed over.
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
    strategy: Literal["auto", "mirrored", "tpu"] = "auto"
    workers: PositiveInt = 1
    runner: Runner = Runner.LOCAL


def resolve_config(options: TrainOptions) -> PlaneConfig:
    """Returns the configuration with all flags applied.

    Raises:
        ValueError: the file or an override is at fault.
        UsageError: the file is another plane's.
    """
    overrides = list(options.set)
    if options.backbone:
        overrides.append(f"grader.backbones=[{','.join(options.backbone)}]")
    for each in options.weights:
        name, colon, value = each.partition(":")
        if not colon or not value:
            raise UsageError(f"--weights takes NAME:FILE or NAME:imagenet. Received: {each!r}.")
        overrides.append(f"grader.training.weights.{name}={value}")
        if options.plane.is_sagittal:
            overrides.append(f"localizer.training.weights.{name}={value}")
    path = options.config or default_config_path(options.plane)
    config = load_plane_config(path, overrides=overrides)
    known = {*config.grader.backbones, *([config.localizer.backbone] if config.localizer else [])}
    for each in options.weights:
        if each.partition(":")[0] not in known:
            raise UsageError(f"--weights must name one of {', '.join(sorted(known))}. Received: {each!r}.")
    if config.plane is not options.plane:
        raise UsageError(f"{path} configures {config.plane.value}, not --plane={options.plane.value}.")
    return config


def train(options: TrainOptions) -> None:
    """Trains what the options name."""
    config = resolve_config(options)
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.ensemble.runs import open_run
    from lumbar_tf.ensemble.training import grader_jobs, localizer_jobs, run_training_job
    from lumbar_tf.models.strategy import StrategyName

    run = open_run(config, records=options.records, runs=options.runs, folds_path=options.folds)
    folds = _chosen_folds(options, run)
    write_options(options, run.directory)
    shared = {
        "strategy": StrategyName(options.strategy),
        "threads": max((os.cpu_count() or 1) // options.workers, 1) if options.workers > 1 else None,
    }
    for jobs in (localizer_jobs(run, folds, **shared), grader_jobs(run, folds, **shared)):
        for name in run_jobs(
            run_training_job, jobs, workers=options.workers, name=lambda job: job.name, runner=options.runner
        ):
            print(f"{name}: done")
    print(f"Runs and out-of-fold tables: {run.directory}")


def _chosen_folds(options: TrainOptions, run: "PlaneRun") -> tuple[int, ...]:
    if options.fold is None:
        return run.fold_numbers
    if options.fold not in run.fold_numbers:
        raise UsageError(f"--fold must be one of {run.fold_numbers}. Received: {options.fold}.")
    return (options.fold,)


if __name__ == "__main__":
    run_command(TrainOptions, train)
