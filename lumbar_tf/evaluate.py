"""`python -m lumbar_tf.evaluate`: what predictions are worth, in figures, pictures and one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lumbar_tf.cli import CommaList, CommandOptions, existing_file, run_command, write_options
from lumbar_tf.console import Summary, show
from lumbar_tf.progress import progress_bar

if TYPE_CHECKING:
    from lumbar_tf.evaluation.output import Evaluated


class EvaluateOptions(CommandOptions):
    """Scores predictions against labels, with bootstrap intervals over studies.

    --predictions   a CSV row_id,normal_mild,moderate,severe of one model; others, after commas, are compared
                    with it
    --labels        the label table train.csv, or several with commas between them (default train.csv)
    --out           the folder for metrics.json, evaluation.html and the pictures
    --records       records, or their manifest.json: scores by vendor, field strength, planes and matrix too
    --head          what the first table holds: probability, or competition, whose weights 1, 2, 4 are taken
                    out before anything but a log loss is measured (default probability)
    --resamples     of the bootstrap (default 1000)
    --seed          of the bootstrap (default 0)
    """

    predictions: CommaList = Field(min_length=1)
    labels: CommaList = ("train.csv",)
    out: Path
    records: Path | None = None
    head: Literal["probability", "competition"] = "probability"
    resamples: int = Field(default=1000, ge=1)
    seed: int = 0


def main(options: EvaluateOptions) -> Summary:
    """Reads, evaluates, writes."""
    from lumbar_tf.ensemble.stacking import Head
    from lumbar_tf.evaluation.output import evaluate_files
    from lumbar_tf.records.manifest import read_manifest
    from lumbar_tf.reporting.evaluation_page import PAGE_NAME, write_evaluation_page
    from lumbar_tf.reporting.study_groups import study_groupings

    evaluated = evaluate_files(
        [existing_file(Path(name)) for name in options.predictions],
        [existing_file(Path(name)) for name in options.labels],
        options.out,
        head=Head(options.head),
        groupings=study_groupings(read_manifest(options.records)) if options.records else (),
        num_resamples=options.resamples,
        seed=options.seed,
        progress=lambda total: progress_bar("Evaluating", total, unit="part"),
    )
    write_evaluation_page(options.out / PAGE_NAME, evaluated)
    write_options(options, options.out)
    _show(evaluated)
    return _summarise(evaluated, options.out / PAGE_NAME)


def _show(evaluated: "Evaluated") -> None:
    from lumbar_tf.evaluation.console_tables import (
        cell_table,
        difference_table,
        scorecard_table,
        subgroup_table,
    )

    card = evaluated.card
    show(scorecard_table(card, title=evaluated.title), cell_table((*card.families, *card.findings)))
    if evaluated.comparison:
        show(difference_table(evaluated.comparison))
    if evaluated.subgroups:
        show(subgroup_table(evaluated.subgroups))


def _summarise(evaluated: "Evaluated", page: Path) -> Summary:
    from lumbar_tf.evaluation.console_tables import evaluation_notes
    from lumbar_tf.evaluation.output import METRICS_NAME

    card = evaluated.card
    score = card.scores["score"]
    return Summary(
        "Evaluated",
        {
            "model": evaluated.model,
            "studies": card.num_studies,
            "score": score.value,
            "95% interval": [f"{score.low:.4f}", f"{score.high:.4f}"],
            "prior by level": card.floors["prior by level"].score,
        },
        {"page": page, "metrics": page.parent / METRICS_NAME},
        evaluation_notes(evaluated),
    )


if __name__ == "__main__":
    run_command(EvaluateOptions, main)
