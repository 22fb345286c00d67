"""`python -m lumbar_tf.stack`: blends out-of-fold tables into calibrated and competition answers."""

from pathlib import Path

from pydantic import Field

import lumbar_tf
from lumbar_tf.cli.command import (
    CommandOptions,
    PathList,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary, print_tables


class StackOptions(CommandOptions):
    """Fits the stacker to out-of-fold tables and scores it on folds that it was not fitted to.

    Writes stacker.json, oof.csv (predictions for the competition's metric), oof_probability.csv (calibrated
    probabilities), prediction_sets.csv (sets of grades), folds.csv and scores.json.
    """

    oof: str = Field(
        description="Pattern such as 'runs/*/*/oof.csv' of CSV tables row_id,normal_mild,moderate,severe, "
        "with fold and model in this package's own. The model of a table without that column "
        "has the file's name.",
    )
    labels: PathList = Field(
        ("train.csv",),
        description="Label table, or several, comma-separated.",
    )
    folds: Path | None = Field(
        None,
        description="CSV file study_id,fold_id. By default the tables' own folds, or new ones.",
    )
    coverage: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        description="Probability that a prediction set contains the reader's grade, for each grade.",
    )
    out: Path = Field(
        description="Folder for the results.",
    )


def run_stack(options: StackOptions) -> Summary:
    """Stacks the tables and summarises the scores."""
    stacked = lumbar_tf.stack(
        options.oof,
        options.labels,
        out=options.out,
        folds=options.folds,
        coverage=options.coverage,
        verbose=True,
    )
    write_options(options, options.out)
    count = len(stacked.study_ids)
    print_tables(stacked.console_table(f"{count} studies, out of fold"))
    return Summary(
        "Stacked",
        {
            "studies": count,
            "members": stacked.members,
            **{f"score, {name}": score for name, score in stacked.scores.items()},
        },
        {"stacker": options.out / "stacker.json", "scores": options.out / "scores.json"},
        stacked.notes,
    )


if __name__ == "__main__":
    run_command(StackOptions, run_stack)
