"""`python -m lumbar_tf.evaluate`: what predictions are worth, in figures, pictures and one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lumbar_tf.cli.command import (
    CommaList,
    CommandOptions,
    UsageError,
    existing_file,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary, print_tables
from lumbar_tf.cli.progress import progress_bar

if TYPE_CHECKING:
    from lumbar_tf.evaluation.evaluation_run import EvaluationRun


class EvaluateOptions(CommandOptions):
    """Scores predictions against labels, with bootstrap intervals over studies.

    --predictions   a CSV row_id,normal_mild,moderate,severe of one model; others, after commas, are compared
                    with it
    --labels        the label table train.csv, or several with commas between them (default train.csv)
    --out           the folder for metrics.json, evaluation.html and the pictures
    --before        a pattern of the members' tables: the reliability diagrams show their plain mean as before
                    calibration (members.csv beside the first table, where predict left one)
    --reports       the folder of predict's reports, which the worst cases link to (reports beside the first
                    table, where predict left them)
    --records       records, or their manifest.json: scores by vendor, field strength, planes and matrix too
    --head          what the first table holds: probability, or competition, whose weights 1, 2, 4 are taken
                    out before anything but a log loss is measured (default probability)
    --resamples     of the bootstrap (default 1000)
    --seed          of the bootstrap (default 0)
    """

    predictions: CommaList = Field(min_length=1)
    labels: CommaList = ("train.csv",)
    out: Path
    before: str | None = None
    reports: Path | None = None
    records: Path | None = None
    head: Literal["probability", "competition"] = "probability"
    resamples: int = Field(default=1000, ge=1)
    seed: int = 0


def main(options: EvaluateOptions) -> Summary:
    """Reads, evaluates, writes."""
    from lumbar_tf.ensemble.stacker import Head
    from lumbar_tf.evaluation.calibration import find_tables
    from lumbar_tf.evaluation.evaluation_run import evaluate_files
    from lumbar_tf.records.manifest import is_synthetic_folder, read_manifest
    from lumbar_tf.reports.evaluation_page import PAGE_NAME, write_evaluation_page
    from lumbar_tf.reports.prediction_folder import PredictedFolder
    from lumbar_tf.reports.study_groups import study_groupings

    predictions, labels = (
        [existing_file(Path(name)) for name in names] for names in (options.predictions, options.labels)
    )
    if options.reports is not None and not options.reports.is_dir():
        raise UsageError(f"--reports must be a folder. Received: {options.reports}.")
    beside = PredictedFolder(predictions[0].parent)
    run = evaluate_files(
        predictions,
        labels,
        options.out,
        head=Head(options.head),
        members=beside.members if options.before is None else find_tables(options.before),
        groupings=study_groupings(read_manifest(options.records)) if options.records else (),
        num_resamples=options.resamples,
        seed=options.seed,
        progress=lambda total: progress_bar("Evaluating", total, unit="part"),
    )
    write_evaluation_page(
        options.out / PAGE_NAME,
        run,
        reports=options.reports or beside.reports,
        model_version=beside.model_version,
        is_synthetic=all(is_synthetic_folder(path.parent) for path in labels),
    )
    write_options(options, options.out)
    _show(run)
    return _summarise(run, options.out / PAGE_NAME)


def _show(run: "EvaluationRun") -> None:
    from lumbar_tf.evaluation.console_tables import (
        cell_table,
        difference_table,
        scorecard_table,
        subgroup_table,
    )

    card = run.card
    print_tables(scorecard_table(card, title=run.title), cell_table((*card.families, *card.findings)))
    if run.comparison:
        print_tables(difference_table(run.comparison))
    if run.subgroups:
        print_tables(subgroup_table(run.subgroups))


def _summarise(run: "EvaluationRun", page: Path) -> Summary:
    from lumbar_tf.evaluation.console_tables import evaluation_notes
    from lumbar_tf.evaluation.evaluation_run import METRICS_NAME

    card = run.card
    score = card.scores["score"]
    return Summary(
        "Evaluated",
        {
            "model": run.model,
            "studies": card.num_studies,
            "score": score.value,
            "95% interval": [f"{score.low:.4f}", f"{score.high:.4f}"],
            "prior by level": card.floors["prior by level"].score,
        },
        {"page": page, "metrics": page.parent / METRICS_NAME},
        evaluation_notes(run),
    )


if __name__ == "__main__":
    run_command(EvaluateOptions, main)
