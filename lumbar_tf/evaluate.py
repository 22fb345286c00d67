"""`python -m lumbar_tf.evaluate`: what predictions are worth, in figures, pictures and one page."""

from pathlib import Path
from typing import Literal

from pydantic import Field

import lumbar_tf
from lumbar_tf.cli.command import (
    CommandOptions,
    PathList,
    UsageError,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary, print_tables


class EvaluateOptions(CommandOptions):
    """Scores predictions against labels, with bootstrap intervals over studies.

    Writes metrics.json, evaluation.html and pictures.
    """

    predictions: PathList = Field(
        description="CSV table row_id,normal_mild,moderate,severe of one model. Further tables, "
        "comma-separated, are compared with it.",
        min_length=1,
    )
    labels: PathList = Field(
        ("train.csv",),
        description="Label table, or several, comma-separated.",
    )
    out: Path = Field(
        description="Folder for the results.",
    )
    before: str | None = Field(
        None,
        description="Pattern of the members' tables, whose plain mean stands for the state before "
        "calibration in the reliability diagrams. By default members.csv beside the first "
        "table.",
    )
    points: str | None = Field(
        None,
        description="Folder of the runs whose tables were stacked into the first table, or a pattern of "
        "these tables such as 'runs/*/*/oof.csv': adds how much of the loss of the stack and of each member "
        "is due to the localizers' points, in the slice and in the choice of the slice.",
    )
    sets: Path | None = Field(
        None,
        description="Table of the prediction sets of the first table's findings: adds their coverage by "
        "grade and their size. By default prediction_sets.csv beside the first table.",
    )
    reports: Path | None = Field(
        None,
        description="Folder of the reports of predict, which the worst cases link to. By default reports "
        "beside the first table.",
    )
    records: Path | None = Field(
        None,
        description="Records, or their manifest.json: adds scores by vendor, field strength, planes and "
        "matrix.",
    )
    groups: Path | None = Field(
        None,
        description="CSV file of study_id and columns such as site, age and sex: adds scores by the values "
        "of each column.",
    )
    head: Literal["probability", "competition"] = Field(
        "probability",
        description="Kind of the first table: probability, or competition, whose weights 1, 2, 4 are "
        "removed for everything but log losses.",
    )
    resamples: int = Field(
        1000,
        ge=1,
        description="Number of bootstrap samples.",
    )
    seed: int = Field(
        0,
        description="Seed of the bootstrap.",
    )


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
        points=options.points,
        sets=options.sets,
        reports=options.reports,
        records=options.records,
        groups=options.groups,
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
