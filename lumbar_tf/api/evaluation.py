"""Evaluation of predictions against labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike as OsPathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.api.arguments import (
    PathLike,
    Paths,
    existing,
    matching,
    optional_path,
    paths_of,
    progress_of,
)
from lumbar_tf.evaluation.bootstrap import Interval
from lumbar_tf.evaluation.metrics import SCORE_FIGURES
from lumbar_tf.evaluation.scorecard import Scorecard, ScoreRow
from lumbar_tf.records.manifest import is_synthetic_folder

if TYPE_CHECKING:
    import pandas as pd

    from lumbar_tf.evaluation.evaluation_run import EvaluationRun


def score_frame(rows: Sequence[ScoreRow]) -> "pd.DataFrame":
    """Returns scores as a table: `name`, the score and its terms, and `num_unanswered`."""
    import pandas as pd

    return pd.DataFrame(
        {
            "name": row.name,
            **{figure: getattr(row.score, figure) for figure in SCORE_FIGURES},
            "num_unanswered": row.num_unanswered,
        }
        for row in rows
    )


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Scores of a table of predictions, with bootstrap intervals over studies.

    Attributes:
        run: figures, comparisons and pictures (not part of the public API).
        page: the HTML page; None where nothing was written.
    """

    run: "EvaluationRun"
    page: Path | None = None

    @property
    def card(self) -> Scorecard:
        """The scorecard: scores and intervals by term, family, condition and finding."""
        return self.run.card

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.run.model

    @property
    def num_studies(self) -> int:
        """Number of studies with a prediction."""
        return self.run.card.num_studies

    @property
    def score(self) -> Interval:
        """The competition's score with its 95% interval; smaller is better."""
        return self.run.card.scores["score"]

    @property
    def prior_score(self) -> float:
        """The score of the weighted frequency of each grade by condition and level, which needs no image."""
        return self.run.card.floors["prior by level"].score

    @property
    def notes(self) -> list[str]:
        """Limits of the evaluation, a sentence each."""
        from lumbar_tf.evaluation.console_tables import evaluation_notes

        return evaluation_notes(self.run)

    def to_frame(self) -> "pd.DataFrame":
        """Returns a `pandas.DataFrame` with one row for each figure.

        Columns: `group` ("all", "family", "condition" or "finding"), `name`, `figure`, `value`, and the
        bounds `low` and `high` of its 95% interval. NaN is a figure that is not defined, such as an AUC
        without positives.
        """
        import pandas as pd

        card = self.run.card
        rows = [("all", "all", figure, interval) for figure, interval in card.scores.items()]
        for group, cells in (
            ("family", card.families),
            ("condition", card.conditions),
            ("finding", card.findings),
        ):
            for cell in cells:
                rows += [(group, cell.name, figure, interval) for figure, interval in cell.metrics.items()]
        return pd.DataFrame(
            [
                (group, name, figure, interval.value, interval.low, interval.high)
                for group, name, figure, interval in rows
            ],
            columns=["group", "name", "figure", "value", "low", "high"],
        )

    def points_frame(self) -> "pd.DataFrame":
        """Returns what points cost: a row for the stack and for each member; empty without `points`.

        Columns: `name`, `num_findings`, the losses `at_annotated`, `in_annotated_slice`, `at_predicted` and
        of the `prior`, the `auc` at annotated points, and the likely `cause`; see docs/evaluation.md.
        """
        import pandas as pd

        from lumbar_tf.evaluation.evaluation_run import points_json

        return pd.DataFrame(points_json(self.run.points))

    def console_tables(self, title: str | None = None) -> list[Any]:
        """Returns the figures as `rich.table.Table` objects."""
        from lumbar_tf.evaluation.console_tables import (
            cell_table,
            difference_table,
            points_table,
            scorecard_table,
            set_table,
            subgroup_metrics_table,
            subgroup_table,
        )

        run, card = self.run, self.run.card
        tables = [
            scorecard_table(card, title=title or run.title),
            cell_table((*card.families, *card.findings)),
        ]
        if run.comparison:
            tables.append(difference_table(run.comparison))
        if run.points:
            tables.append(points_table(run.points))
        if run.sets:
            tables.append(set_table(run.sets))
        if run.subgroups:
            tables += [subgroup_table(run.subgroups), subgroup_metrics_table(run.subgroups)]
        return tables


def evaluate(
    predictions: Paths,
    labels: Paths = "train.csv",
    *,
    out: PathLike | None = None,
    head: str = "probability",
    before: str | None = None,
    points: Paths | None = None,
    sets: PathLike | None = None,
    reports: PathLike | None = None,
    records: PathLike | None = None,
    groups: PathLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    verbose: bool = False,
) -> EvaluationResult:
    """Scores predictions against labels, with bootstrap intervals over studies.

    Args:
        predictions: a CSV file `row_id,normal_mild,moderate,severe` of one model; further files are compared
            with it.
        labels: label tables in the layout of `train.csv`.
        out: folder for `metrics.json`, `evaluation.html` and pictures; None writes nothing.
        head: predictions of the first file: "probability", or "competition", whose weights 1, 2, 4 are
            removed for every figure but the log losses.
        before: pattern of the members' tables, whose mean stands for "before calibration"; by default
            `members.csv` beside the first file.
        points: folder of the runs, or a pattern of the members' tables, that the first file was stacked from:
            adds what the localizers' points cost the stack and each member. Training writes the tables that
            this needs.
        sets: table of the prediction sets of the first file's findings, for their coverage by grade and their
            size; by default `prediction_sets.csv` beside the first file.
        reports: folder of the reports that the worst cases link to; by default `reports` beside the first
            file.
        records: records, for scores by vendor, field strength, planes and matrix.
        groups: CSV file of `study_id` and columns such as site, age and sex, for scores by their values.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: a file is missing or malformed, or a study has no label.
    """
    from lumbar_tf.ensemble.stacker import Head
    from lumbar_tf.evaluation.evaluation_run import evaluate_files
    from lumbar_tf.evaluation.reliability import find_tables
    from lumbar_tf.records.manifest import read_manifest
    from lumbar_tf.reports.evaluation_page import PAGE_NAME, write_evaluation_page
    from lumbar_tf.reports.prediction_folder import PredictedFolder
    from lumbar_tf.reports.series_attributes import study_groupings

    tables, label_tables = ([existing(path) for path in paths_of(paths)] for paths in (predictions, labels))
    beside = PredictedFolder(tables[0].parent)
    folder = optional_path(out)
    run = evaluate_files(
        tables,
        label_tables,
        folder,
        head=Head(head),
        members=beside.members if before is None else find_tables(before),
        points=() if points is None else _member_tables(points),
        sets=beside.prediction_sets if sets is None else existing(Path(sets)),
        groupings=study_groupings(read_manifest(Path(records))) if records is not None else (),
        groups=None if groups is None else existing(Path(groups)),
        num_resamples=resamples,
        seed=seed,
        progress=progress_of("Evaluating", verbose=verbose, unit="part"),
    )
    if folder is None:
        return EvaluationResult(run)
    write_evaluation_page(
        folder / PAGE_NAME,
        run,
        reports=optional_path(reports) or beside.reports,
        model_version=beside.model_version,
        training_note=beside.training_note,
        is_synthetic=all(is_synthetic_folder(path.parent) for path in label_tables),
    )
    return EvaluationResult(run, folder / PAGE_NAME)


def _member_tables(points: Paths) -> list[Path]:
    """Returns the out-of-fold tables of the graders in a folder of runs, or those that are given."""
    is_folder = isinstance(points, str | OsPathLike) and Path(points).is_dir()
    return matching(f"{points}/*/*/oof.csv" if is_folder else points, "points")


@dataclass(frozen=True, eq=False)
class ScoreComparison:
    """Scores of several models on the same studies.

    Attributes:
        rows: a row for each baseline and model (not part of the public API).
    """

    rows: Sequence[ScoreRow]

    def to_frame(self) -> "pd.DataFrame":
        """Returns the scores: a row for each baseline and model, a column for each term."""
        return score_frame(self.rows)

    def console_table(self, title: str) -> Any:
        """Returns the scores as a `rich.table.Table`."""
        from lumbar_tf.evaluation.console_tables import comparison_table

        return comparison_table(self.rows, title=title)


def compare(predictions: Paths, labels: Paths = "train.csv") -> ScoreComparison:
    """Scores every model of several tables on the studies that all of them contain.

    Args:
        predictions: tables of one or several models.
        labels: label tables in the layout of `train.csv`.
    """
    from lumbar_tf.evaluation.evaluation_run import compare_files

    return ScoreComparison(compare_files(paths_of(predictions), paths_of(labels)))
