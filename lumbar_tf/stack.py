"""`python -m lumbar_tf.stack`: blends out-of-fold tables into calibrated and competition answers."""

from pathlib import Path

import lumbar_tf
from lumbar_tf.cli.command import (
    CommaList,
    CommandOptions,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary, print_tables


class StackOptions(CommandOptions):
    """Fits the stacker to out-of-fold tables, and scores it on folds that it has not seen.

    --oof      a pattern such as 'runs/*/*/oof.csv': CSV tables row_id,normal_mild,moderate,severe, with
               fold and model where they are ours; a foreign table's model is called after its file
    --labels   the label table train.csv, or several with commas between them (default train.csv)
    --folds    a CSV study_id,fold_id; without it the tables' own folds, or new ones
    --out      the folder for stacker.json, oof.csv (competition head), oof_probability.csv, folds.csv
               and scores.json
    """

    oof: str
    labels: CommaList = ("train.csv",)
    folds: Path | None = None
    out: Path


def run_stack(options: StackOptions) -> Summary:
    """Stacks the tables and summarises the scores."""
    stacked = lumbar_tf.stack(options.oof, options.labels, out=options.out, folds=options.folds, verbose=True)
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
