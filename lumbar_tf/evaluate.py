"""`python -m lumbar_tf.evaluate`: what predictions are worth, in figures, pictures and one page."""

from pathlib import Path
from typing import Literal

from pydantic import Field

import lumbar_tf
from lumbar_tf.cli.command import (
    CommaList,
    CommandOptions,
    UsageError,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary, print_tables


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


def run_evaluate(options: EvaluateOptions) -> Summary:
    """Evaluates the predictions and summarises the scores."""
    if options.reports is not None and not options.reports.is_dir():
        raise UsageError(f"--reports must be a folder. Received: {options.reports}.")
    evaluated = lumbar_tf.evaluate(
        options.predictions,
        options.labels,
        out=options.out,
        head=options.head,
        before=options.before,
        reports=options.reports,
        records=options.records,
        resamples=options.resamples,
        seed=options.seed,
        verbose=True,
    )
    write_options(options, options.out)
    print_tables(*evaluated.console_tables())
    score = evaluated.score
    return Summary(
        "Evaluated",
        {
            "model": evaluated.model,
            "studies": evaluated.num_studies,
            "score": score.value,
            "95% interval": [f"{score.low:.4f}", f"{score.high:.4f}"],
            "prior by level": evaluated.prior_score,
        },
        {"page": options.out / "evaluation.html", "metrics": options.out / "metrics.json"},
        evaluated.notes,
    )


if __name__ == "__main__":
    run_command(EvaluateOptions, run_evaluate)
