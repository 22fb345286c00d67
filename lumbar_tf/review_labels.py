"""`python -m lumbar_tf.review_labels`: lists the labels that out-of-fold predictions most disagree with."""

from pathlib import Path

from pydantic import PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import (
    CommaList,
    CommandOptions,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary


class ReviewLabelsOptions(CommandOptions):
    """Lists the labels that out-of-fold predictions most disagree with, for review.

    Flags:
        --oof      A pattern such as 'runs/*/*/oof.csv': tables row_id,normal_mild,moderate,severe,fold,model.
                   A table without the column fold, or with other folds than the records', is refused: its
                   model may have trained on what it judges.
        --labels   The label table train.csv, or several with commas between them (train.csv).
        --records  Where build_records put the records: pictures and folds come from there, and only their
                   studies are judged (tfrecords).
        --runs     Where training put the localizers' out-of-fold points (runs). Without any, pictures are cut
                   around the annotated points.
        --folds    Folds file (folds.csv beside the records).
        --most     How many labels to list (200: a page of up to 8 MB).
        --out      The folder for worklist.csv and worklist.html.

    A label is ranked by 1 - p(label), p being the mean over the models that answer the finding. The page
    loads nothing from anywhere and names nothing of a patient but study ids.
    """

    oof: str
    labels: CommaList = ("train.csv",)
    records: Path = Path("tfrecords")
    runs: Path = Path("runs")
    folds: Path | None = None
    most: PositiveInt = 200
    out: Path


def run_review_labels(options: ReviewLabelsOptions) -> Summary:
    """Lists the labels and summarises the list."""
    review = lumbar_tf.review_labels(
        options.oof,
        options.labels,
        out=options.out,
        records=options.records,
        runs=options.runs,
        folds=options.folds,
        most=options.most,
        verbose=True,
    )
    write_options(options, options.out)
    return Summary(
        "Labels to review",
        {"listed": len(review.doubts), "judged": review.num_scored, "models": review.models},
        {"page": review.page, "table": review.table},
    )


if __name__ == "__main__":
    run_command(ReviewLabelsOptions, run_review_labels)
