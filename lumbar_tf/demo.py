"""`python -m lumbar_tf.demo`: the whole way on synthetic studies, from DICOM to a scored SavedModel."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, run_command
from lumbar_tf.cli.console import Summary, print_status, print_tables
from lumbar_tf.config import DEMO_CONFIG_PATH, DemoConfig, VarietyConfig, dump_config, load_demo_config

if TYPE_CHECKING:
    from rich.table import Table

#: Held-out ids start here, so that no id is in both cohorts.
_FIRST_HELD_OUT_ID = 800000001
_FIRST_STUDY_SEED = 2026
#: Sheets to look at; drawing takes about as long as grading.
_MAX_SHEETS = 6
#: Tells a folder that the demo may empty from any other.
_MARKER_NAME = "lumbar_tf_demo.yaml"


class DemoOptions(CommandOptions):
    """Makes a synthetic cohort, trains an ensemble on it and scores it on held-out studies.

    All figures that it prints are of synthetic studies and say nothing about patients.
    """

    config: Path = Field(
        DEMO_CONFIG_PATH,
        description="YAML file of the demo.",
    )
    set: tuple[str, ...] = Field(
        (),
        description="Overrides, such as --set cohort.num_training=60.",
    )
    out: Path = Field(
        Path("demo"),
        description="Folder for all results; emptied first.",
    )
    resume: bool = Field(
        False,
        description="Continue an interrupted demo; needs the same options as its start.",
    )
    workers: PositiveInt = Field(
        2,
        description="Number of processes.",
    )

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


def run_demo(options: DemoOptions) -> Summary:
    """Runs all stages and shows times and scores."""
    config = load_demo_config(options.config, overrides=options.set)
    open_folder(options, dump_config(config))
    watch = Stopwatch()
    grade_first_study(options, watch)
    make_cohorts(config, options, watch)
    train_members(config, options, watch)
    stack_members(options, watch)
    export_and_predict(options, watch)
    return summarise(options, watch)


def grade_first_study(options: DemoOptions, watch: Stopwatch) -> None:
    """Grades one synthetic study with the package's pretrained ensemble and prints where its report is."""
    first = options.out / "first_study"
    if first.is_dir():
        return
    with watch.stage("a first study, graded by the pretrained ensemble"):
        try:
            ensemble = lumbar_tf.load_ensemble("pretrained")
        except ValueError as error:
            print_status(f"   left out: {error}")
            return
        study = lumbar_tf.write_synthetic_cohort(
            first / "cohort", 1, seed=_FIRST_STUDY_SEED, variety=VarietyConfig()
        )
        with ensemble:
            ensemble.predict_studies(study, first / "predictions", formats=("report",))
    print_status(f"   {next((first / 'predictions').rglob('*.html'))}")


def is_begun(folder: Path) -> bool:
    """Returns whether a demo has begun in a folder."""
    return (folder / _MARKER_NAME).is_file()


def open_folder(options: DemoOptions, text: str) -> None:
    """Empties the folder, or finds there what the same configuration has begun."""
    marker = options.out / _MARKER_NAME
    if options.resume:
        if not marker.is_file() or marker.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{options.out} must have been begun with the same configuration, to be resumed. Received: "
                "another one. Choose another --out, or remove the folder."
            )
        return
    if options.out.exists() and not marker.is_file() and any(options.out.iterdir()):
        raise ValueError(f"--out must be absent, empty or an earlier demo's folder. Received: {options.out}.")
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    marker.write_text(text, encoding="utf-8")


def make_cohorts(config: DemoConfig, options: DemoOptions, watch: Stopwatch) -> None:
    """Writes training and held-out studies as DICOM, and the records of the former only."""
    cohort = config.cohort
    with watch.stage(f"synthetic studies ({cohort.num_training} + {cohort.num_held_out} held out)"):
        for name, num_studies, seed, first_id in (
            ("training", cohort.num_training, cohort.seed, None),
            ("held_out", cohort.num_held_out, cohort.seed + 1, _FIRST_HELD_OUT_ID),
        ):
            # The tables are written last, this one at the very end.
            if not (options.out / name / "truth.csv").is_file():
                lumbar_tf.write_synthetic_cohort(
                    options.out / name,
                    num_studies,
                    seed=seed,
                    first_study_id=first_id,
                    resolution=cohort.resolution,
                    severity_shift=cohort.severity_shift,
                    variety=cohort.variety,
                    resume=options.resume,
                    workers=options.workers,
                    verbose=True,
                )
    with watch.stage("records"):
        lumbar_tf.build_records(
            options.out / "training",
            options.out / "tfrecords",
            mode="resume" if options.resume else "overwrite",
            folds=config.num_folds,
            fold_seed=cohort.seed,
            workers=options.workers,
            verbose=True,
        )


def train_members(config: DemoConfig, options: DemoOptions, watch: Stopwatch) -> None:
    """Trains localizers, then graders; networks train side by side in processes."""
    with watch.stage(f"training ({len(config.planes)} planes x {config.num_folds} folds)"):
        lumbar_tf.train(
            config.planes,
            records=options.out / "tfrecords",
            runs=options.out / "runs",
            workers=options.workers,
            verbose=True,
        )


def stack_members(options: DemoOptions, watch: Stopwatch) -> None:
    """Fits the stacker to the out-of-fold tables."""
    runs = options.out / "runs"
    with watch.stage("stacking"):
        stacked = lumbar_tf.stack(
            sorted(runs.glob("*/*/oof.csv")),
            options.out / "training" / "train.csv",
            out=runs / "stack",
            verbose=True,
        )
    print_tables(stacked.console_table("out of fold, synthetic training studies"))


def export_and_predict(options: DemoOptions, watch: Stopwatch) -> None:
    """Exports the ensemble and grades the held-out DICOM studies with the SavedModel alone."""
    path = options.out / "models" / "1"
    with watch.stage("export"):
        if not path.is_dir():  # a version appears whole
            lumbar_tf.export(
                options.out / "runs",
                path.parent,
                version=1,
                labels=options.out / "training" / "train.csv",
                data="Synthetic studies of `lumbar_tf.demo`.",
                synthetic=True,
                records=options.out / "tfrecords",
                verbose=True,
            )
    with watch.stage("prediction of held-out studies"):
        lumbar_tf.load_ensemble(path, with_saliency=True).predict_studies(
            options.out / "held_out", options.out / "predictions", max_sheets=_MAX_SHEETS, verbose=True
        )


def summarise(options: DemoOptions, watch: Stopwatch) -> Summary:
    """Scores the held-out predictions and prints times and scores."""
    predictions, labels = options.out / "predictions", options.out / "held_out" / "train.csv"
    with watch.stage("evaluation"):
        evaluated = lumbar_tf.evaluate(
            predictions / "submission.csv",
            labels,
            out=options.out / "evaluation",
            head="competition",
            verbose=True,
        )
        lumbar_tf.write_best_predictions(options.out / "held_out", predictions / "best_possible.csv")
        names = ("members.csv", "submission.csv", "best_possible.csv")
        compared = lumbar_tf.compare([predictions / name for name in names], labels)
    print_tables(
        compared.console_table("held-out SYNTHETIC studies: members and stack (submission)"),
        evaluated.console_tables("held-out SYNTHETIC studies, competition head")[0],
        _time_table(watch),
    )
    prior, value = evaluated.prior_score, evaluated.score.value
    return Summary(
        "Demo: every figure is of SYNTHETIC studies and says nothing about patients",
        {
            "score": value,
            "weighted prior by condition and level": prior,
            "score under the prior": f"{1 - value / prior:.1%}",
        },
        {
            "pictures": predictions / "sheets",
            "evaluation": options.out / "evaluation" / "evaluation.html",
            "training": options.out / "runs" / "training.html",
            "model": options.out / "models" / "1",
        },
        lists={"stages": [{"stage": name, "seconds": spent} for name, spent in watch.seconds.items()]},
    )


def _time_table(watch: Stopwatch) -> "Table":
    from rich.table import Table

    times = Table(title="stages", title_justify="left")
    times.add_column("")
    times.add_column("seconds", justify="right")
    for name, seconds in watch.seconds.items():
        times.add_row(name, f"{seconds:.0f}")
    times.add_row("all", f"{sum(watch.seconds.values()):.0f}")
    return times


if __name__ == "__main__":
    run_command(DemoOptions, run_demo)
