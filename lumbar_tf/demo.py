"""`python -m lumbar_tf.demo`: the whole way on synthetic studies, from DICOM to a scored SavedModel."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, run_command
from lumbar_tf.cli.console import Summary, print_status, print_tables
from lumbar_tf.cli.progress import progress_bar, show_activity
from lumbar_tf.config import DEMO_CONFIG_PATH, DemoConfig, PlaneConfig, dump_config, load_demo_config
from lumbar_tf.runners import run_jobs

#: Held-out ids start here, so that no id is in both cohorts.
_FIRST_HELD_OUT_ID = 800000001
#: Sheets to look at; drawing takes about as long as grading.
_MAX_SHEETS = 6
#: Tells a folder that the demo may empty from any other.
_MARKER_NAME = "lumbar_tf_demo.yaml"


class DemoOptions(CommandOptions):
    """Makes a synthetic cohort, trains an ensemble on it and scores it on studies that it never saw.

    Flags:
        --config   The demo's YAML (configs/demo.yaml).
        --set      Overrides, such as --set cohort.num_training=60.
        --out      Folder for everything that it makes (demo); emptied first.
        --resume   Go on with a demo that was cut off, with the flags that it was begun with.
        --workers  Processes side by side (2).

    Every figure that it prints is of synthetic studies and says nothing about patients.
    """

    config: Path = DEMO_CONFIG_PATH
    set: tuple[str, ...] = ()
    out: Path = Path("demo")
    resume: bool = False
    workers: PositiveInt = 2

    after_interrupt: ClassVar[str] = "Go on with the same flags and --resume; without, it begins anew."


@dataclass
class Stopwatch:
    """Wall-clock seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times its block and says that it began."""
        print_status(f"-- {name}")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def demo(options: DemoOptions) -> Summary:
    """Runs all stages and shows times and scores."""
    config = load_demo_config(options.config, overrides=options.set)
    _open_folder(options, dump_config(config))
    watch = Stopwatch()
    make_cohorts(config, options, watch)
    train_members(config, options, watch)
    stack_members(options, watch)
    export_and_predict(options, watch)
    return report(options, watch)


def _open_folder(options: DemoOptions, text: str) -> None:
    """Empties the folder, or finds there what the same configuration has begun."""
    marker = options.out / _MARKER_NAME
    if options.resume:
        if not marker.is_file() or marker.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"--resume needs a demo that was begun with the same configuration. Received: {options.out}."
            )
        return
    if options.out.exists() and not marker.is_file() and any(options.out.iterdir()):
        raise ValueError(f"--out must be absent, empty or an earlier demo's folder. Received: {options.out}.")
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    marker.write_text(text, encoding="utf-8")


def make_cohorts(config: DemoConfig, options: DemoOptions, watch: Stopwatch) -> None:
    """Writes training and held-out studies as DICOM, and the records of the former only."""
    from lumbar_tf.records.build import BuildMode, BuildTask, run_build_task
    from lumbar_tf.records.manifest import BuildOptions
    from lumbar_tf.synthetic import CohortOptions, Resolution, write_cohort

    cohort = config.cohort
    training = CohortOptions(
        num_studies=cohort.num_training,
        seed=cohort.seed,
        workers=options.workers,
        resolution=Resolution(cohort.resolution),
        severity_shift=cohort.severity_shift,
    )
    held_out = replace(
        training, num_studies=cohort.num_held_out, seed=cohort.seed + 1, first_study_id=_FIRST_HELD_OUT_ID
    )
    with watch.stage(f"synthetic studies ({cohort.num_training} + {cohort.num_held_out} held out)"):
        for name, each in (("training", training), ("held_out", held_out)):
            # The tables are written last, this one at the very end.
            if not (options.out / name / "truth.csv").is_file():
                write_cohort(
                    options.out / name, each, progress=lambda total: progress_bar("Rendering", total)
                )
    with watch.stage("records"):
        run_build_task(
            BuildTask(
                sources=[options.out / "training"],
                out=options.out / "tfrecords",
                options=BuildOptions(studies_per_shard=16, num_folds=config.num_folds, fold_seed=cohort.seed),
                mode=BuildMode.RESUME if options.resume else BuildMode.OVERWRITE,
            ),
            workers=options.workers,
            progress=lambda total: progress_bar("Building records", total),
        )


def train_members(config: DemoConfig, options: DemoOptions, watch: Stopwatch) -> None:
    """Trains localizers, then graders; networks train side by side in processes."""
    from lumbar_tf.reports.training_page import write_training_pages
    from lumbar_tf.training.cross_validation import grader_jobs, localizer_jobs, run_training_job
    from lumbar_tf.training.epoch_progress import show_epochs
    from lumbar_tf.training.runs import PlaneRun, open_run

    def opened(plane: PlaneConfig) -> PlaneRun:
        return open_run(plane, records=options.out / "tfrecords", runs=options.out / "runs")

    runs = [opened(plane) for plane in config.planes]
    shared = {
        "threads": max((os.cpu_count() or 1) // options.workers, 1),
        "on_update": partial(write_training_pages, is_synthetic=True),
    }
    sagittal = [run for run in runs if run.config.plane.is_sagittal]
    axial = [run for run in runs if not run.config.plane.is_sagittal]
    stages = (
        ("localizers", localizer_jobs, sagittal),
        # Searches around the points of those before.
        ("axial localizer", localizer_jobs, axial),
        ("graders", grader_jobs, runs),
    )
    for title, make_jobs, located in stages:
        # The axial networks see most pictures: the longest jobs first, so that no worker ends alone.
        jobs = [
            job for run in reversed(located) for job in reversed(make_jobs(run, run.fold_numbers, **shared))
        ]
        if not jobs:
            continue
        with (
            watch.stage(f"{title} ({len(jobs)} networks x {config.num_folds} folds)"),
            show_epochs(
                jobs,
                progress=lambda total: progress_bar("Training", total, unit="epoch"),
                print_line=print_status,
            ),
        ):
            for line in run_jobs(run_training_job, jobs, workers=options.workers, name=lambda job: job.name):
                print_status(line)


def stack_members(options: DemoOptions, watch: Stopwatch) -> None:
    """Fits the stacker to the out-of-fold tables."""
    from lumbar_tf.ensemble.stacking_run import stack_tables, write_stacking_run
    from lumbar_tf.evaluation.console_tables import comparison_table
    from lumbar_tf.evaluation.evaluation_run import write_scores
    from lumbar_tf.evaluation.scorecard import compare_members
    from lumbar_tf.tables.labels import read_labels
    from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables

    with watch.stage("stacking"):
        study_ids, labels = read_labels(options.out / "training" / "train.csv")
        tables = read_out_of_fold_tables(sorted((options.out / "runs").glob("*/*/oof.csv")))
        blend = stack_tables(
            tables, study_ids, labels, progress=lambda total: progress_bar("Fitting", total, unit="fit")
        )
        rows = compare_members(blend)
        write_stacking_run(blend, options.out / "runs" / "stack")
        write_scores(rows, options.out / "runs" / "stack")
    print_tables(comparison_table(rows, title="out of fold, synthetic training studies"))


def export_and_predict(options: DemoOptions, watch: Stopwatch) -> None:
    """Exports the ensemble and grades the held-out DICOM studies with the SavedModel alone."""
    from lumbar_tf.bundle.exporting import export_ensemble
    from lumbar_tf.bundle.model_card import ModelFacts
    from lumbar_tf.bundle.trained_ensemble import load_trained_ensemble
    from lumbar_tf.evaluation.evaluation_run import measure_out_of_fold
    from lumbar_tf.monitoring.bundle_reference import reference_writer
    from lumbar_tf.tables.labels import read_labels
    from lumbar_tf.training.runs import OOF_NAME

    runs = options.out / "runs"
    with watch.stage("export"):
        ensemble = load_trained_ensemble(runs, runs / "stack" / "stacker.json")
        measured = measure_out_of_fold(runs / "stack", *read_labels(options.out / "training" / "train.csv"))
        facts = ModelFacts("Synthetic studies of `lumbar_tf.demo`.", is_synthetic=True, measured=[measured])
        tables = [runs / member / OOF_NAME for member in ensemble.stacker.members]
        path = options.out / "models" / "1"
        if not path.is_dir():  # a version appears whole
            with show_activity("Writing and testing the bundle"):
                export_ensemble(
                    ensemble,
                    runs,
                    path.parent,
                    version=1,
                    facts=facts,
                    add=reference_writer(runs / "stack", tables, options.out / "tfrecords"),
                )
    with watch.stage("prediction of held-out studies"):
        lumbar_tf.load_ensemble(path, with_saliency=True).predict_studies(
            options.out / "held_out",
            options.out / "predictions",
            max_sheets=_MAX_SHEETS,
            progress=lambda total: progress_bar("Grading", total),
        )


def write_best_possible(truth: Path, out: Path) -> None:
    """Writes the best answers there can be: each finding's exact P(grade | anatomy), in the metric's weights.

    Args:
        truth: the cohort's `truth.csv`.
        out: a table in the submission's format.
    """
    from lumbar_tf.evaluation.metrics import SEVERITY_WEIGHTS
    from lumbar_tf.tables.out_of_fold import align_members, read_out_of_fold_tables, write_out_of_fold_table

    tables = read_out_of_fold_tables([truth])
    study_ids = sorted(tables[0].rows)
    weighted = align_members(tables, study_ids).probabilities[0] * SEVERITY_WEIGHTS
    write_out_of_fold_table(out, study_ids, weighted / weighted.sum(axis=-1, keepdims=True))


def report(options: DemoOptions, watch: Stopwatch) -> Summary:
    """Scores the held-out answers and shows times and scores."""
    from rich.table import Table

    from lumbar_tf.ensemble.stacker import Head
    from lumbar_tf.evaluation.console_tables import comparison_table, scorecard_table
    from lumbar_tf.evaluation.evaluation_run import compare_files, evaluate_files
    from lumbar_tf.reports.evaluation_page import PAGE_NAME, write_evaluation_page
    from lumbar_tf.reports.prediction_folder import PredictedFolder
    from lumbar_tf.reports.training_page import write_training_index

    with watch.stage("evaluation"):
        labels = options.out / "held_out" / "train.csv"
        predictions = options.out / "predictions"
        graded, page = PredictedFolder(predictions), options.out / "evaluation" / PAGE_NAME
        evaluated = evaluate_files(
            predictions / "submission.csv",
            [labels],
            page.parent,
            head=Head.COMPETITION,
            members=graded.members,
            progress=lambda total: progress_bar("Evaluating", total, unit="part"),
        )
        write_evaluation_page(
            page,
            evaluated,
            reports=graded.reports,
            model_version=graded.model_version,
            is_synthetic=True,
        )
        index = write_training_index(options.out / "runs", is_synthetic=True)
        write_best_possible(options.out / "held_out" / "truth.csv", predictions / "best_possible.csv")
        names = ("members.csv", "submission.csv", "best_possible.csv")
        rows = compare_files([predictions / name for name in names], [labels])
    print_tables(comparison_table(rows, title="held-out SYNTHETIC studies: members and stack (submission)"))
    card = evaluated.card
    print_tables(scorecard_table(card, title="held-out SYNTHETIC studies, competition head"))
    prior, value = card.floors["prior by level"].score, card.scores["score"].value
    times = Table(title="stages", title_justify="left")
    times.add_column("")
    times.add_column("seconds", justify="right")
    for name, seconds in watch.seconds.items():
        times.add_row(name, f"{seconds:.0f}")
    times.add_row("all", f"{sum(watch.seconds.values()):.0f}")
    print_tables(times)
    return Summary(
        "Demo: every figure is of SYNTHETIC studies and says nothing about patients",
        {
            "score": value,
            "weighted prior by condition and level": prior,
            "score under the prior": f"{1 - value / prior:.1%}",
        },
        {
            "pictures": predictions / "sheets",
            "evaluation": page,
            "training": index,
            "model": options.out / "models" / "1",
        },
        lists={"stages": [{"stage": name, "seconds": spent} for name, spent in watch.seconds.items()]},
    )


if __name__ == "__main__":
    run_command(DemoOptions, demo)
