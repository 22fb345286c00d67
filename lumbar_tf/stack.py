"""`python -m lumbar_tf.stack`: blends out-of-fold tables into calibrated and competition answers."""

from pathlib import Path

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
from lumbar_tf.files import find_paths


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


def main(options: StackOptions) -> Summary:
    """Reads tables, stacks, writes."""
    from lumbar_tf.ensemble.stacking_run import STACKER_NAME, stack_tables, write_stacking_run
    from lumbar_tf.evaluation.console_tables import comparison_notes, comparison_table
    from lumbar_tf.evaluation.evaluation_run import SCORES_NAME, write_scores
    from lumbar_tf.evaluation.scorecard import compare_members
    from lumbar_tf.tables.folds import read_fold_table
    from lumbar_tf.tables.labels import read_label_tables
    from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables

    paths = _matching(options.oof)
    study_ids, labels = read_label_tables([existing_file(Path(name)) for name in options.labels])
    folds = read_fold_table(existing_file(options.folds)) if options.folds else None
    blend = stack_tables(
        read_out_of_fold_tables(paths),
        study_ids,
        labels,
        folds=folds,
        progress=lambda total: progress_bar("Fitting", total, unit="fit"),
    )
    rows = compare_members(blend)
    write_stacking_run(blend, options.out)
    write_scores(rows, options.out)
    write_options(options, options.out)
    print_tables(comparison_table(rows, title=f"{len(blend.study_ids)} studies, out of fold"))
    return Summary(
        "Stacked",
        {
            "studies": len(blend.study_ids),
            "members": blend.members.names,
            **{f"score, {row.name}": row.score.score for row in rows if row.name.startswith("stacked")},
        },
        {"stacker": options.out / STACKER_NAME, "scores": options.out / SCORES_NAME},
        comparison_notes(rows, num_uncovered=blend.num_uncovered),
    )


def _matching(pattern: str) -> list[Path]:
    paths = find_paths(pattern)
    if not paths:
        raise UsageError(f"--oof must match a file. Received: {pattern!r}.")
    return paths


if __name__ == "__main__":
    run_command(StackOptions, main)
