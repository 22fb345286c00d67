"""`python -m lumbar_tf.review_labels`: lists the labels that out-of-fold predictions most disagree with."""

from pathlib import Path

from pydantic import PositiveInt

from lumbar_tf.cli.command import (
    CommaList,
    CommandOptions,
    UsageError,
    existing_file,
    run_command,
    write_options,
)
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import progress_bar
from lumbar_tf.files import find_paths


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


def main(options: ReviewLabelsOptions) -> Summary:
    """Reads tables, ranks, cuts pictures, writes."""
    paths = find_paths(options.oof)
    if not paths:
        raise UsageError(f"--oof must match a file. Received: {options.oof!r}.")
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.ensemble.label_noise import check_out_of_fold, count_compared_labels, rank_suspect_labels
    from lumbar_tf.records.manifest import is_synthetic_folder, read_manifest
    from lumbar_tf.reports.finding_crops import cut_views
    from lumbar_tf.reports.review_labels_page import PAGE_NAME, finding_key, write_review_page
    from lumbar_tf.reports.review_labels_table import CSV_NAME, write_review_table
    from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
    from lumbar_tf.tables.labels import read_label_tables
    from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
    from lumbar_tf.training.predicted_points import held_out_points

    label_tables = [existing_file(Path(name)) for name in options.labels]
    labelled, grades = read_label_tables(label_tables)
    manifest = read_manifest(options.records)
    folds = read_folds(options.folds or options.records / FOLDS_NAME, manifest.patient_groups)
    tables = read_out_of_fold_tables(paths)
    check_out_of_fold(tables, folds)
    known = [place for place, study_id in enumerate(labelled) if study_id in folds]
    study_ids, labels = [labelled[place] for place in known], grades[known]
    suspects = rank_suspect_labels(tables, study_ids, labels, most=options.most)
    points = held_out_points(options.runs, folds)
    views = cut_views(
        options.records,
        manifest,
        [finding_key(each) for each in suspects],
        points,
        progress=lambda total: progress_bar("Cutting pictures", total, unit="plane of a study"),
    )
    num_compared = count_compared_labels(tables, study_ids, labels)
    write_review_table(options.out / CSV_NAME, suspects, [table.model for table in tables])
    write_review_page(
        options.out / PAGE_NAME,
        suspects,
        views,
        num_labels=num_compared,
        is_synthetic=all(is_synthetic_folder(path.parent) for path in label_tables),
    )
    write_options(options, options.out)
    return Summary(
        "Labels to review",
        {"listed": len(suspects), "judged": num_compared, "models": [table.model for table in tables]},
        {"page": options.out / PAGE_NAME, "table": options.out / CSV_NAME},
    )


if __name__ == "__main__":
    run_command(ReviewLabelsOptions, main)
