"""Training of a plane's networks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_tf.api.arguments import PathLike, progress_of
from lumbar_tf.api.cohorts import plane_config
from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.cli.console import print_status
from lumbar_tf.config import PlaneConfig
from lumbar_tf.labels import Plane
from lumbar_tf.runners import JobShare, Runner, run_jobs

if TYPE_CHECKING:
    from lumbar_tf.training.cross_validation import TrainingJob
    from lumbar_tf.training.runs import PlaneRun


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of training.

    Attributes:
        directories: the folder of each plane's run.
        networks: names of the networks that are trained now, such as "sagittal_t2/densenet121".
        folds: the folds that were held out in turn.
        tables: out-of-fold tables of the graders, which `stack` reads.
        index: HTML page that leads to the page of each network.
        notes: a line for each network, such as a localizer's error.
    """

    directories: tuple[Path, ...]
    networks: tuple[str, ...]
    folds: tuple[int, ...]
    tables: tuple[Path, ...]
    index: Path
    notes: tuple[str, ...]


def train(
    config: str | Path | Plane | PlaneConfig | Sequence[PlaneConfig],
    *,
    overrides: Sequence[str] = (),
    records: PathLike = "tfrecords",
    runs: PathLike = "runs",
    folds: PathLike | None = None,
    fold: int | None = None,
    studies: int | None = None,
    strategy: str = "auto",
    workers: int = 1,
    runner: str | Runner = Runner.LOCAL,
    ray_address: str | None = None,
    cpus_per_job: int = 1,
    gpus_per_job: float = 0.0,
    on_open: Callable[[Path], None] | None = None,
    verbose: bool = False,
) -> TrainingResult:
    """Trains the localizer and the graders of a plane, for all folds, and writes out-of-fold tables.

    An interrupted run continues after the last finished epoch; finished networks are skipped.

    Args:
        config: a plane's name such as "sagittal_t2", a YAML file, a configuration, or several of these.
        overrides: such as "grader.training.epochs=3"; applied to a name or file.
        records: folder that `build_records` wrote.
        runs: folder of all runs.
        folds: folds file; by default `folds.csv` of the records.
        fold: trains one fold instead of all.
        studies: size of a sample of the studies, by patient and balanced as the folds are, for a first
            insight in minutes; without `fold` only the first fold is trained. Use a folder of its own.
        strategy: "auto", "mirrored" or "tpu", the devices of one job.
        workers: number of concurrent jobs; with more than one, each network and fold is a job.
        runner: "local" or "ray".
        ray_address: a running Ray cluster; by default one is started on this machine.
        cpus_per_job: with Ray, CPUs of each job.
        gpus_per_job: with Ray, GPUs of each job.
        on_open: called with each run's folder once its records and configuration are accepted.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: configuration, records or folds are at fault, or a folder holds another run.
    """
    from lumbar_tf.reports.training_page import write_training_index, write_training_pages
    from lumbar_tf.training.cross_validation import grader_jobs, localizer_jobs
    from lumbar_tf.training.devices import StrategyName
    from lumbar_tf.training.predicted_points import write_level_slices
    from lumbar_tf.training.runs import OOF_NAME, open_run

    configs = _plane_configs(config, overrides)
    place = _JobPlace(workers, Runner(runner), ray_address, JobShare(cpus_per_job, gpus_per_job))
    # Absolute, because a job on another machine starts in another folder.
    folder = Path(runs).absolute()
    opened = [
        open_run(
            plane,
            records=Path(records).absolute(),
            runs=folder,
            folds_path=None if folds is None else Path(folds),
            num_studies=studies,
        )
        for plane in configs
    ]
    if studies is not None and fold is None:
        fold = opened[0].fold_numbers[0]
    held_out = _chosen_folds(opened[0], fold)
    is_synthetic = all(run.manifest.is_synthetic for run in opened)
    for run in opened:
        if on_open is not None:
            on_open(run.directory)
    shared = {
        "strategy": StrategyName(strategy),
        "threads": place.threads,
        "on_update": partial(write_training_pages, is_synthetic=is_synthetic),
    }
    sagittal = [run for run in opened if run.config.plane.is_sagittal]
    axial = [run for run in opened if not run.config.plane.is_sagittal]
    notes: list[str] = []
    networks: list[str] = []
    # Crops are cut where the localizers point, and the axial localizer searches around the sagittal points.
    # The axial networks take longest and come first, so that no worker ends alone.
    for title, make_jobs, planes in (
        ("Training localizer", localizer_jobs, sagittal),
        ("Training localizer", localizer_jobs, axial),
        ("Training graders", grader_jobs, [*axial, *sagittal]),
    ):
        if make_jobs is localizer_jobs and planes is axial:
            for run in axial:
                found = f"{run.config.plane.value}, level points: {write_level_slices(run)}"
                if verbose:
                    print_status(found)
        jobs = [job for run in planes for job in make_jobs(run, held_out, **shared)]
        networks.extend(job.name for job in jobs)
        notes.extend(_run_side_by_side(title, jobs, place, verbose=verbose))
    for run in opened:
        for backbone in run.config.grader.backbones:
            if diagnosis := _diagnosis(run, backbone):
                notes.append(f"{run.member_name(backbone)}: {diagnosis}")
                if verbose:
                    print_status(notes[-1])
    return TrainingResult(
        directories=tuple(run.directory for run in opened),
        networks=tuple(networks),
        folds=held_out,
        tables=tuple(
            path
            for run in opened
            for backbone in run.config.grader.backbones
            if (path := run.directory / backbone / OOF_NAME).is_file()
        ),
        # Again: of two jobs that end together, the page of the slower one may be the older.
        index=write_training_index(folder, is_synthetic=is_synthetic),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _JobPlace:
    """Place where jobs run."""

    workers: int
    runner: Runner
    address: str | None
    share: JobShare

    def __post_init__(self) -> None:
        if self.runner is not Runner.RAY and (self.share != JobShare() or self.address is not None):
            raise UsageError("`ray_address`, `cpus_per_job` and `gpus_per_job` must come with runner='ray'.")

    @property
    def threads(self) -> int | None:
        """CPU threads of each job; None leaves them to TensorFlow."""
        if self.runner is Runner.RAY:
            return self.share.num_cpus
        return max((os.cpu_count() or 1) // self.workers, 1) if self.workers > 1 else None

    @property
    def splits_folds(self) -> bool:
        """Whether each fold of a network is a job."""
        return self.workers > 1 or self.runner is Runner.RAY


def _plane_configs(config: object, overrides: Sequence[str]) -> list[PlaneConfig]:
    if isinstance(config, Sequence) and not isinstance(config, str) and config:
        return [plane_config(item, overrides) for item in config]
    return [plane_config(config, overrides)]


def _chosen_folds(run: "PlaneRun", fold: int | None) -> tuple[int, ...]:
    if fold is not None and fold not in run.fold_numbers:
        raise UsageError(f"`fold` must be one of {run.fold_numbers}. Received: {fold}.")
    return run.fold_numbers if fold is None else (fold,)


def _diagnosis(run: "PlaneRun", backbone: str) -> str:
    from lumbar_tf.reports.training_summary import summarize_member

    try:
        return summarize_member(run, backbone).diagnosis
    except ValueError:  # a table that cannot be read: the network's page has warned of it
        return ""


def _run_side_by_side(title: str, jobs: "list[TrainingJob]", place: _JobPlace, *, verbose: bool) -> list[str]:
    """Runs networks that do not depend on each other, joins the results of their folds, returns notes."""
    from lumbar_tf.training.cross_validation import finish_member, run_training_job, split_by_fold
    from lumbar_tf.training.epoch_progress import show_epochs

    split = split_by_fold(jobs) if place.splits_folds else jobs
    show: Callable[[str], None] = print_status if verbose else lambda line: None
    lines = []
    with show_epochs(split, progress=progress_of(title, verbose=verbose, unit="epoch"), print_line=show):
        for line in run_jobs(
            run_training_job,
            split,
            workers=place.workers,
            name=lambda job: job.name,
            runner=place.runner,
            ray_address=place.address,
            share=place.share if place.runner is Runner.RAY else None,
        ):
            show(line)
            lines.append(line)
    return [f"{job.name}: {finish_member(job) or 'done'}" for job in jobs] if place.splits_folds else lines
