"""`python -m lumbar_tf.review_labels`: lists the labels that out-of-fold predictions most disagree with."""

from pathlib import Path

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import (
    CommandOptions,
    PathList,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary


class ReviewLabelsOptions(CommandOptions):
    """Lists the labels that out-of-fold predictions disagree with most, for review.

    Writes worklist.csv and worklist.html. A label is ranked by 1 - p(label), p being the mean over the models
    that predict the finding. The page loads nothing from elsewhere and contains no patient data but
    study ids.
    """

    oof: str = Field(
        description="Pattern such as 'runs/*/*/oof.csv' of tables "
        "row_id,normal_mild,moderate,severe,fold,model. A table without the column fold, or "
        "with other folds than the records', is refused: its model may have been trained on "
        "the labels under review.",
    )
    labels: PathList = Field(
        ("train.csv",),
        description="Label table, or several, comma-separated.",
    )
    records: Path = Field(
        Path("tfrecords"),
        description="Folder of the records, for pictures and folds; only their studies are listed.",
    )
    runs: Path = Field(
        Path("runs"),
        description="Folder of the runs, with the localizers' out-of-fold points. Without them pictures "
        "are cut around the annotated points.",
    )
    folds: Path | None = Field(
        None,
        description="Folds file. By default folds.csv of the records.",
    )
    most: PositiveInt = Field(
        200,
        description="Number of labels to list at most; 200 make a page of up to 8 MB.",
    )
    out: Path = Field(
        description="Folder for the results.",
    )


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
