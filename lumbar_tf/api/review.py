"""Checks of what surrounds an ensemble: drift of its inputs and outputs, and doubtful labels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_tf.api.arguments import PathLike, Paths, existing, matching, paths_of, progress_of
from lumbar_tf.records.manifest import is_synthetic_folder

if TYPE_CHECKING:
    import pandas as pd

    from lumbar_tf.ensemble.label_noise import SuspectLabel
    from lumbar_tf.monitoring.drift import Comparison
    from lumbar_tf.monitoring.log import LogWindow
    from lumbar_tf.monitoring.reference import Reference


@dataclass(frozen=True, eq=False)
class DriftResult:
    """Comparison of logged predictions with a reference.

    Attributes:
        comparison: every quantity (not part of the public API).
        reference: the reference (not part of the public API).
        window: the log's rows (not part of the public API).
    """

    comparison: "Comparison"
    reference: "Reference"
    window: "LogWindow"

    @property
    def moved(self) -> tuple[str, ...]:
        """Names of the quantities whose distribution has changed."""
        return tuple(shift.name for shift in self.comparison.moved)

    @property
    def lines(self) -> list[str]:
        """The comparison as text."""
        from lumbar_tf.monitoring.drift import comparison_lines

        return comparison_lines(self.comparison, self.reference, num_bad_lines=self.window.num_bad_lines)

    @property
    def num_studies(self) -> int:
        """Number of studies in the window."""
        return self.comparison.num_studies

    @property
    def num_quantities(self) -> int:
        """Number of quantities that were compared."""
        return len(self.comparison.shifts)

    @property
    def model_version(self) -> str:
        """Version of the bundle that the reference belongs to."""
        return self.reference.model

    def to_json(self) -> str:
        """Returns the comparison as JSON; `moved` lists names, `quantities` everything that was compared."""
        from lumbar_tf.monitoring.drift import comparison_json

        return comparison_json(self.comparison, self.reference, num_bad_lines=self.window.num_bad_lines)

    def moved_json(self) -> list[dict[str, object]]:
        """Returns the quantities that have changed, as `to_json` writes them."""
        content = json.loads(self.to_json())
        return [shift for shift in content["quantities"] if shift["name"] in set(content["moved"])]

    def to_frame(self) -> "pd.DataFrame":
        """Returns a row for each quantity: its stability index (PSI), p-value, medians and missing shares."""
        from dataclasses import asdict

        import pandas as pd

        return pd.DataFrame([asdict(shift) for shift in self.comparison.shifts])


def monitor(
    log: PathLike,
    reference: PathLike = "models/lumbar",
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> DriftResult:
    """Compares logged predictions with the distributions at the time of export.

    Args:
        log: folder that `Ensemble.predict_studies(log=...)` wrote to.
        reference: a `reference.json`, a bundle, or the folder of versions.
        since: first hour that counts, with time zone.
        until: first hour that no longer counts.

    Raises:
        ValueError: there is no log or reference, or the window has too few studies.
    """
    from lumbar_tf.monitoring.drift import compare_window
    from lumbar_tf.monitoring.log import read_log
    from lumbar_tf.monitoring.reference import find_reference, read_reference

    window = read_log(Path(log), since=since, until=until)
    expected = read_reference(find_reference(Path(reference)))
    return DriftResult(compare_window(expected, window.rows), expected, window)


def write_site_reference(
    log: PathLike, path: PathLike, *, since: datetime | None = None, until: datetime | None = None
) -> int:
    """Writes the distributions of a window of the log as a reference; returns its number of studies.

    For a site whose studies differ from the training cohort from the start.
    """
    from lumbar_tf.monitoring.log import read_log
    from lumbar_tf.monitoring.reference import reference_of_log, write_reference

    window = read_log(Path(log), since=since, until=until)
    write_reference(Path(path), reference_of_log(window.rows))
    return len(window.rows)


@dataclass(frozen=True, eq=False)
class LabelReview:
    """Labels that out-of-fold predictions disagree with most.

    Attributes:
        doubts: the labels, most doubtful first (not part of the public API).
        num_scored: number of labels that were compared.
        models: names of the models.
        page: the HTML page.
        table: the CSV file.
    """

    doubts: "Sequence[SuspectLabel]"
    num_scored: int
    models: tuple[str, ...]
    page: Path
    table: Path

    def to_frame(self) -> "pd.DataFrame":
        """Returns the CSV file as a table."""
        import pandas as pd

        return pd.read_csv(self.table, dtype={"study_id": str})


def review_labels(
    oof: Paths,
    labels: Paths = "train.csv",
    *,
    out: PathLike,
    records: PathLike = "tfrecords",
    runs: PathLike = "runs",
    folds: PathLike | None = None,
    most: int = 200,
    verbose: bool = False,
) -> LabelReview:
    """Lists the labels that out-of-fold predictions disagree with most, with pictures, for review.

    Args:
        oof: a pattern such as "runs/*/*/oof.csv", or files; a table must name the fold of each study.
        labels: label tables in the layout of `train.csv`.
        out: folder for `worklist.csv` and `worklist.html`.
        records: records, for pictures and folds; only their studies are listed.
        runs: folder of the localizers' out-of-fold points; without any, the annotated points are shown.
        folds: folds file; by default `folds.csv` of the records.
        most: number of labels to list at most.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: a table is missing, has no folds, or other folds than the records.
    """
    from lumbar_tf.ensemble.label_noise import check_out_of_fold, count_compared_labels, rank_suspect_labels
    from lumbar_tf.records.manifest import read_manifest
    from lumbar_tf.reports.finding_crops import cut_finding_crops
    from lumbar_tf.reports.review_labels import (
        CSV_NAME,
        PAGE_NAME,
        finding_key,
        write_review_page,
        write_review_table,
    )
    from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
    from lumbar_tf.tables.labels import read_label_tables
    from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
    from lumbar_tf.training.predicted_points import held_out_points

    paths = matching(oof, "oof")
    label_tables = [existing(path) for path in paths_of(labels)]
    source, folder = Path(records), Path(out)
    labelled, grades = read_label_tables(label_tables)
    manifest = read_manifest(source)
    fold_of = read_folds(Path(folds) if folds is not None else source / FOLDS_NAME, manifest.patient_groups)
    tables = read_out_of_fold_tables(paths)
    check_out_of_fold(tables, fold_of)
    present = [place for place, study_id in enumerate(labelled) if study_id in fold_of]
    study_ids, known = [labelled[place] for place in present], grades[present]
    doubts = rank_suspect_labels(tables, study_ids, known, most=most)
    views = cut_finding_crops(
        source,
        manifest,
        [finding_key(doubt) for doubt in doubts],
        held_out_points(Path(runs), fold_of),
        progress=progress_of("Cutting pictures", verbose=verbose, unit="plane of a study"),
    )
    num_scored = count_compared_labels(tables, study_ids, known)
    models = tuple(table.model for table in tables)
    write_review_table(folder / CSV_NAME, doubts, list(models))
    write_review_page(
        folder / PAGE_NAME,
        doubts,
        views,
        num_labels=num_scored,
        is_synthetic=all(is_synthetic_folder(path.parent) for path in label_tables),
    )
    return LabelReview(doubts, num_scored, models, folder / PAGE_NAME, folder / CSV_NAME)
