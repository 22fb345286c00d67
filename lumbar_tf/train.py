"""Command `python -m lumbar_tf.train`: trains the networks of one plane and writes out-of-fold tables."""

from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommaList, CommandOptions, UsageError, run_command, write_options
from lumbar_tf.cli.console import Summary
from lumbar_tf.config import PlaneConfig, default_config_path, load_plane_config
from lumbar_tf.labels import Plane


class TrainOptions(CommandOptions):
    """Trains the localizer and the graders of one plane, for all folds.

    Writes weights, history, TensorBoard logs, out-of-fold tables and a page for each network to RUNS/<plane>,
    and RUNS/training.html with links to the pages. An interrupted run resumes after the last finished epoch
    with the same result; finished folds are skipped.
    """

    plane: Plane = Field(
        description="sagittal_t1, sagittal_t2 or axial_t2. Axial crops and the axial localizer need the "
        "sagittal landmarks, so train sagittal_t2 first.",
    )
    config: Path | None = Field(
        None,
        description="YAML file of the plane. By default configs/<plane>.yaml.",
    )
    set: tuple[str, ...] = Field(
        (),
        description="Overrides, such as --set grader.training.epochs=3.",
    )
    backbone: CommaList = Field(
        (),
        description="Backbones to train instead of the configured ones, comma-separated.",
    )
    fold: int | None = Field(
        None,
        description="One fold instead of all.",
    )
    studies: PositiveInt | None = Field(
        None,
        description="Train on a random sample of this many studies, by patient, and on one fold: a first "
        "insight in minutes. Use another --runs folder.",
    )
    records: Path = Field(
        Path("tfrecords"),
        description="Folder of the records.",
    )
    folds: Path | None = Field(
        None,
        description="Folds file. By default folds.csv of the records.",
    )
    runs: Path = Field(
        Path("runs"),
        description="Folder of the runs.",
    )
    weights: CommaList = Field(
        (),
        description="Initial weights of backbones, NAME:FILE or NAME:imagenet (downloads), "
        "comma-separated; other backbones start from random weights. For localizer and "
        "graders.",
    )
    init_from: str | None = Field(
        None,
        description="Run, or file of weights, to start from, member by member and fold by fold; `pretrained` "
        "for the weights that come with the package.",
    )
    drop_noisy: float | None = Field(
        None,
        description="Ignore training labels that differ from --noise-oof by this much or more, such as "
        "0.8. Labels of the held-out fold are never ignored.",
    )
    noise_oof: str | None = Field(
        None,
        description="Glob pattern of the out-of-fold tables of an earlier run, in another folder.",
    )
    strategy: Literal["auto", "mirrored", "tpu"] = Field(
        "auto",
        description="Devices of one job: auto, mirrored or tpu (untested).",
    )
    workers: PositiveInt = Field(
        1,
        description="Number of parallel jobs. With more than one, and with ray, each fold of a network is "
        "a job, else each network. Local jobs share this machine's cores.",
    )
    runner: Literal["local", "ray"] = Field(
        "local",
        description="Place of the jobs: local or ray.",
    )
    ray_address: str | None = Field(
        None,
        description="Existing Ray cluster, auto or HOST:PORT. By default one is started on this machine. "
        "All machines must have the folders at the same paths.",
    )
    cpus_per_job: PositiveInt = Field(
        1,
        description="With ray: CPUs of each job.",
    )
    gpus_per_job: NonNegativeFloat = Field(
        0.0,
        description="With ray: GPUs of each job; below 1, several jobs share one.",
    )

    output: ClassVar[str] = "runs"
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


def run_train(options: TrainOptions) -> Summary:
    """Trains the networks that the options name."""
    config = resolve_config(options)
    _check_place(options)
    trained = lumbar_tf.train(
        config,
        records=options.records,
        runs=options.runs,
        folds=options.folds,
        fold=options.fold,
        studies=options.studies,
        strategy=options.strategy,
        workers=options.workers,
        runner=options.runner,
        ray_address=options.ray_address,
        cpus_per_job=options.cpus_per_job,
        gpus_per_job=options.gpus_per_job,
        on_open=partial(write_options, options),
        verbose=True,
    )
    return Summary(
        f"{config.plane.value} trained",
        {"networks": trained.networks, "folds": list(map(str, trained.folds))},
        {"run": trained.directories[0], "pages": trained.index},
        trained.notes,
    )


def _check_place(options: TrainOptions) -> None:
    """Checks the flags that concern Ray.

    Raises:
        UsageError: a flag needs Ray, or a path would be relative on another machine.
    """
    if options.runner == "ray":
        for weights in options.weights:
            name, _, value = weights.partition(":")
            if value not in ("none", "imagenet") and not Path(value).is_absolute():
                raise UsageError(
                    f"--weights must be an absolute path with --runner=ray. Received: {value!r} for {name}."
                )
    elif (options.ray_address, options.cpus_per_job, options.gpus_per_job) != (None, 1, 0.0):
        raise UsageError("--ray-address, --cpus-per-job and --gpus-per-job need --runner=ray.")


if __name__ == "__main__":
    run_command(TrainOptions, run_train)
