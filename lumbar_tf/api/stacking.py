"""Stacking of out-of-fold tables into calibrated probabilities."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from lumbar_tf.api.arguments import PathLike, Paths, existing, matching, paths_of, progress_of
from lumbar_tf.ensemble.prediction_sets import COVERAGE, check_coverage
from lumbar_tf.ensemble.stacker import Head, Stacked, StackerCoefficients, apply_stacker
from lumbar_tf.ensemble.stacker_json import stacker_from_json, stacker_to_json
from lumbar_tf.ensemble.stacking_run import StackingRun, set_notes, stack_tables, write_stacking_run
from lumbar_tf.files import write_text_atomically
from lumbar_tf.labels import FINDINGS, Severity, row_id
from lumbar_tf.tables.folds import read_fold_table
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import OutOfFoldTable, arrange_members, read_out_of_fold_tables

if TYPE_CHECKING:
    from lumbar_tf.evaluation.scorecard import ScoreRow

#: Tables as files, as a pattern, or as frames by the member's name.
Tables = Paths | Mapping[str, pd.DataFrame]
#: Labels as files, or as a frame in the layout of `train.csv`.
LabelTables = Paths | pd.DataFrame


class Stacker(BaseEstimator):
    """Combines the predictions of several networks into calibrated probabilities.

    Follows scikit-learn's conventions; the rows are studies and findings. For each family of findings a
    penalised regression of the members' log-probabilities is fitted, with a pattern for missing planes; see
    docs/stacking.md.

    Args:
        head: "probability", calibrated probabilities, or "competition", predictions for the weighted metric.
        coverage: probability that a prediction set contains the reader's grade, for each grade.
        seed: seed of the folds where the tables have none.

    Attributes:
        coefficients_: the fitted coefficients.
        members_: names of the members, in the order of the coefficients.
        out_of_fold_: predictions for each fold by a stacker fitted to the other folds: the ones to score.

    Example:
        >>> stacker = Stacker().fit("runs/*/*/oof.csv", "train.csv")  # doctest: +SKIP
        >>> stacker.predict_proba("predictions/members.csv")  # doctest: +SKIP
    """

    def __init__(self, *, head: str = "probability", coverage: float = COVERAGE, seed: int = 0) -> None:
        self.head = head
        self.coverage = coverage
        self.seed = seed

    def fit(
        self, tables: Tables, labels: LabelTables, folds: PathLike | Mapping[str, int] | None = None
    ) -> Self:
        """Fits the coefficients, and predicts each fold with coefficients of the other folds.

        Args:
            tables: out-of-fold tables: CSV files, a pattern such as "runs/*/*/oof.csv", or a mapping of names
                such as "sagittal_t2/densenet121" to frames with the columns `row_id`, `normal_mild`,
                `moderate`, `severe` and, optionally, `fold`.
            labels: label tables in the layout of `train.csv`, or a frame of one.
            folds: fold of each study, a mapping or a CSV file `study_id,fold_id`; by default the tables' own
                folds, or new ones.

        Returns:
            The stacker.

        Raises:
            ValueError: no table, a study without a fold, or a table that is malformed.
        """
        Head(self.head)
        study_ids, known = _read_labels(labels)
        fold_of = read_fold_table(Path(folds)) if isinstance(folds, str | Path) else folds
        run = stack_tables(
            _read(tables),
            study_ids,
            known,
            folds=fold_of,  # type: ignore[arg-type]
            coverage=self.coverage,
            seed=self.seed,
        )
        self.coefficients_: StackerCoefficients = run.stacker
        self.members_: tuple[str, ...] = run.members.names
        self.out_of_fold_: pd.DataFrame = _frame(run.study_ids, run.nested.head(Head(self.head)))
        return self

    def predict_proba(self, tables: Tables) -> pd.DataFrame:
        """Predicts the studies of the members' tables.

        Args:
            tables: predictions of the members, as in `fit`; those of a member or study may be missing.

        Returns:
            A frame with the columns `normal_mild`, `moderate` and `severe` that sum to 1; the index is the
            row id `<study>_<condition>_<level>`, 25 rows for each study.

        Raises:
            ValueError: the stacker is not fitted, or a table is of none of its members.
        """
        study_ids, stacked = self._stack(tables)
        return _frame(study_ids, stacked.head(Head(self.head)))

    def predict_sets(self, tables: Tables) -> pd.DataFrame:
        """Returns the prediction sets of the studies of the members' tables.

        Args:
            tables: as for `predict_proba`.

        Returns:
            A frame like that of `predict_proba`, True for the grades in the set; all False where the stacker
            has no sets, because an earlier release fitted it.

        Raises:
            ValueError: as `predict_proba`.
        """
        study_ids, stacked = self._stack(tables)
        return _frame(study_ids, stacked.sets)

    def _stack(self, tables: Tables) -> tuple[list[str], Stacked]:
        if not hasattr(self, "coefficients_"):
            raise ValueError("The stacker must be fitted or loaded before it can predict.")
        study_ids, probabilities = arrange_members(_read(tables), self.members_)
        return study_ids, apply_stacker(self.coefficients_, probabilities)

    def save(self, path: PathLike) -> None:
        """Writes the coefficients as `stacker.json`."""
        write_text_atomically(Path(path), stacker_to_json(self.coefficients_))

    @classmethod
    def load(cls, path: PathLike, *, head: str = "probability") -> Self:
        """Reads `stacker.json`, as `save` or the command `stack` wrote it."""
        stacker = cls(head=head)
        stacker.coefficients_ = stacker_from_json(existing(Path(path)).read_text(encoding="utf-8"))
        stacker.members_ = stacker.coefficients_.members
        return stacker


def _frame(study_ids: Sequence[str], values: np.ndarray) -> pd.DataFrame:
    names = [row_id(study_id, finding) for study_id in study_ids for finding in FINDINGS]
    columns = [severity.column for severity in Severity]
    return pd.DataFrame(values.reshape(-1, len(columns)), pd.Index(names, name="row_id"), columns)


def _read(tables: Tables) -> Sequence[OutOfFoldTable]:
    """Reads tables; frames go through a file, so that they are checked as files are."""
    if not isinstance(tables, Mapping):
        return read_out_of_fold_tables(matching(tables, "tables"))
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (name, frame) in enumerate(tables.items()):
            table = frame.reset_index() if frame.index.name == "row_id" else frame
            paths.append(Path(folder) / f"{number}.csv")
            table.assign(model=name).to_csv(paths[-1], index=False)
        return read_out_of_fold_tables(paths)


def _read_labels(labels: LabelTables) -> tuple[Sequence[str], np.ndarray]:
    if not isinstance(labels, pd.DataFrame):
        return read_label_tables([existing(path) for path in paths_of(labels)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        labels.to_csv(path, index=False)
        return read_label_tables([path])


@dataclass(frozen=True, eq=False)
class StackingResult:
    """A fitted stacker with the scores of its out-of-fold predictions.

    Attributes:
        run: arrays and coefficients (not part of the public API).
        rows: scores of baselines, members and stack (not part of the public API).
    """

    run: StackingRun
    rows: "Sequence[ScoreRow]"

    @property
    def study_ids(self) -> tuple[str, ...]:
        """The studies that were stacked."""
        return self.run.study_ids

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the networks whose tables were stacked."""
        return self.run.members.names

    @property
    def scores(self) -> dict[str, float]:
        """The out-of-fold score of each head of the stack, such as "stacked, probability head"."""
        return {row.name: row.score.score for row in self.rows if row.name.startswith("stacked")}

    @property
    def notes(self) -> list[str]:
        """Limits of the comparison and of the prediction sets, a sentence each."""
        from lumbar_tf.evaluation.console_tables import comparison_notes

        notes = comparison_notes(self.rows, num_uncovered=self.run.num_uncovered)
        return [*notes, *set_notes(self.run.stacker)]

    def to_frame(self) -> pd.DataFrame:
        """Returns the scores: a row for each baseline, member and stack, a column for each term."""
        from lumbar_tf.api.evaluation import score_frame

        return score_frame(self.rows)

    def console_table(self, title: str) -> Any:
        """Returns the scores as a `rich.table.Table`."""
        from lumbar_tf.evaluation.console_tables import comparison_table

        return comparison_table(self.rows, title=title)


def stack(
    oof: Paths,
    labels: Paths = "train.csv",
    *,
    out: PathLike | None = None,
    folds: PathLike | None = None,
    coverage: float = COVERAGE,
    verbose: bool = False,
) -> StackingResult:
    """Fits the stacker to out-of-fold tables, and scores it on folds that it was not fitted to.

    Args:
        oof: a pattern such as "runs/*/*/oof.csv", or CSV files `row_id,normal_mild,moderate,severe` with
            `fold` and `model`. The model of a table without that column has the file's name.
        labels: label tables in the layout of `train.csv`.
        out: folder for `stacker.json`, the out-of-fold tables, `prediction_sets.csv`, `folds.csv` and
            `scores.json`; None writes nothing.
        folds: a CSV file `study_id,fold_id`; by default the tables' own folds, or new ones.
        coverage: probability that a prediction set contains the reader's grade, for each grade; at least 0.5
            and below 1.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: no table, a study without a fold, tables that contradict each other, or a `coverage` out
            of range.
    """
    from lumbar_tf.evaluation.evaluation_run import write_scores
    from lumbar_tf.evaluation.scorecard import compare_members

    check_coverage(coverage)
    tables = matching(oof, "oof")
    study_ids, known = read_label_tables([existing(path) for path in paths_of(labels)])
    fold_of = None if folds is None else read_fold_table(existing(Path(folds)))
    run = stack_tables(
        read_out_of_fold_tables(tables),
        study_ids,
        known,
        folds=fold_of,
        coverage=coverage,
        progress=progress_of("Fitting", verbose=verbose, unit="fit"),
    )
    rows = compare_members(run)
    if out is not None:
        write_stacking_run(run, Path(out))
        write_scores(rows, Path(out))
    return StackingResult(run, rows)
