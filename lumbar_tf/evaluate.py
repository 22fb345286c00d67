"""`python -m lumbar_tf.evaluate`: the competition's score of a table of predictions, beside its floors."""

from pathlib import Path

from pydantic import Field

from lumbar_tf.cli import CommaList, CommandOptions, UsageError, run_command


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
    from lumbar_tf.data.tables import read_label_tables
    from lumbar_tf.ensemble.oof import align, covered_studies, read_tables
    from lumbar_tf.evaluation.output import (
        METRICS_NAME,
        cell_table,
        make_console,
        scorecard_notes,
        scorecard_table,
        write_evaluation,
    )
    from lumbar_tf.evaluation.scorecard import evaluate_table

    all_ids, all_labels = read_label_tables([_existing(Path(name)) for name in options.labels])
    tables = read_tables([_existing(options.predictions)])
    if len(tables) != 1:
        names = [table.model for table in tables]
        raise ValueError(f"--predictions must hold one model's rows. Received: {names}.")
    study_ids = covered_studies(tables, all_ids)
    probabilities = align(tables, study_ids).probabilities[0]
    index_of = {study_id: index for index, study_id in enumerate(all_ids)}
    labels = all_labels[[index_of[study_id] for study_id in study_ids]]
    card = evaluate_table(labels, probabilities, num_resamples=options.resamples, seed=options.seed)
    title = f"{tables[0].model}, {card.num_studies} studies"
    write_evaluation(card, labels, probabilities, options.out, title=title)
    console = make_console()
    console.print(scorecard_table(card, title=title))
    console.print(cell_table((*card.families, *card.findings)))
    for note in scorecard_notes(card, num_left_out=len(all_ids) - len(study_ids)):
        console.print(note)
    console.print(f"wrote {options.out / METRICS_NAME}", soft_wrap=True)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"A table must be a file. Received: {path}.")
    return path


if __name__ == "__main__":
    run_command(EvaluateOptions, main)
