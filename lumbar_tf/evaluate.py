"""`python -m lumbar_tf.evaluate`: the competition's score of a table of predictions, beside its floors."""

from pathlib import Path

from pydantic import Field

from lumbar_tf.cli import CommaList, CommandOptions, existing_file, run_command, write_options


class EvaluateOptions(CommandOptions):
    """Scores predictions against labels, with bootstrap intervals over studies.

    --predictions   a CSV row_id,normal_mild,moderate,severe of one model
    --labels        the label table train.csv, or several with commas between them (default train.csv)
    --out           the folder for metrics.json, reliability.png and confusion.png
    --resamples     of the bootstrap (default 1000)
    --seed          of the bootstrap (default 0)
    """

    predictions: Path
    labels: CommaList = ("train.csv",)
    out: Path
    resamples: int = Field(default=1000, ge=1)
    seed: int = 0


def main(options: EvaluateOptions) -> None:
    """Reads, evaluates, writes, prints."""
    from lumbar_tf.evaluation.output import (
        METRICS_NAME,
        cell_table,
        evaluate_files,
        make_console,
        scorecard_notes,
        scorecard_table,
    )

    evaluated = evaluate_files(
        existing_file(options.predictions),
        [existing_file(Path(name)) for name in options.labels],
        options.out,
        num_resamples=options.resamples,
        seed=options.seed,
    )
    card = evaluated.card
    write_options(options, options.out)
    console = make_console()
    console.print(scorecard_table(card, title=evaluated.title))
    console.print(cell_table((*card.families, *card.findings)))
    for note in scorecard_notes(card, num_left_out=evaluated.num_left_out):
        console.print(note)
    console.print(f"wrote {options.out / METRICS_NAME}", soft_wrap=True)


if __name__ == "__main__":
    run_command(EvaluateOptions, main)
