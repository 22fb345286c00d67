"""Fit of the stacker to out-of-fold tables, its nested out-of-fold predictions, and the files of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lumbar_tf.cli.progress import Advance, ProgressMaker, silent_progress
from lumbar_tf.ensemble.family_fitting import FamilyFitter, Forms
from lumbar_tf.ensemble.features import context_centre, is_available, mean_features, member_features
from lumbar_tf.ensemble.member_variance import measure_member_variance
from lumbar_tf.ensemble.prediction_sets import COVERAGE, FEW_ROWS, check_coverage
from lumbar_tf.ensemble.search import Folds
from lumbar_tf.ensemble.stacker import (
    MAX_SOURCES,
    FamilyStacker,
    Head,
    Stacked,
    StackerCoefficients,
    apply_stacker,
)
from lumbar_tf.ensemble.stacker_json import stacker_to_json
from lumbar_tf.files import write_text_atomically
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Family, Severity
from lumbar_tf.tables.folds import FOLDS_NAME, make_folds, write_folds
from lumbar_tf.tables.out_of_fold import (
    Members,
    OutOfFoldTable,
    align_members,
    covered_studies,
    merge_folds,
    merge_sources,
    write_out_of_fold_table,
)
from lumbar_tf.tables.set_tables import SETS_NAME, write_set_table

Labels = NDArray[np.integer]

STACKER_NAME = "stacker.json"
OOF_NAMES: dict[Head, str] = {Head.COMPETITION: "oof.csv", Head.PROBABILITY: "oof_probability.csv"}
#: Values of the `model` column of the two out-of-fold tables.
MODEL_NAMES: dict[Head, str] = {head: f"stacked_{head.value}" for head in Head}

_NUM_MADE_FOLDS = 5
_NOTHING_EXCLUDED: Folds = frozenset()


class StackerFitter:
    """Fits the final stacker and the nested ones, which share fits."""

    def __init__(
        self,
        members: Members,
        labels: Labels,
        folds: Labels,
        *,
        forms: Forms | None = None,
        coverage: float = COVERAGE,
        advance: Advance = lambda count: None,
    ) -> None:
        """Stores the data to fit.

        Args:
            members: out-of-fold predictions.
            labels: int [num_studies, 25], -1 where missing. A family without labels keeps the plain mean; a
                family without members predicts its level prior, which is uniform without labels.
            folds: fold of each study, int [num_studies]; all studies of a patient are in one fold.
            forms: candidates that every pattern uses, without shrinkage; None chooses them by
                cross-validation.
            coverage: probability that a prediction set contains the reader's grade.
            advance: called after each fit of a family, `num_fits` times in total.

        Raises:
            ValueError: shapes disagree, `coverage` is not in [0.5, 1), or a family has more than
                `MAX_SOURCES` sources.
        """
        check_coverage(coverage)
        num_studies = members.probabilities.shape[1]
        if labels.shape != (num_studies, NUM_FINDINGS) or folds.shape != (num_studies,):
            raise ValueError(
                f"`labels` must be [{num_studies}, {NUM_FINDINGS}] and `folds` [{num_studies}]. "
                f"Received: {labels.shape} and {folds.shape}."
            )
        self._members, self._folds, self._advance = members, folds, advance
        self._families = [
            FamilyFitter(members, labels, folds, family, forms=forms, coverage=coverage) for family in Family
        ]
        # Over all studies, held-out ones too: labels are not used.
        features, available = member_features(members.probabilities), is_available(members.probabilities)
        self._centre = context_centre(mean_features(features, available))

    def _stacker(self, families: list[FamilyStacker]) -> StackerCoefficients:
        return StackerCoefficients(self._members.names, self._members.sources, self._centre, tuple(families))

    def fit(self) -> StackerCoefficients:
        """Fits both heads of all families and patterns to all folds, and measures the members' variation."""
        families = []
        for fitter in self._families:
            families.append(fitter.fit(_NOTHING_EXCLUDED, set(range(fitter.num_patterns))))
            self._advance(1)
        return measure_member_variance(self._stacker(families), self._members.probabilities)

    def nested(self) -> Stacked:
        """Predicts each fold with a stacker whose candidates and coefficients come from the other folds.

        Returns:
            Predictions for all studies, independent of their own labels.

        Raises:
            ValueError: there is only one fold.
        """
        (stacked,) = self.nested_at([self._members.probabilities])
        return stacked

    def nested_at(self, predictions: Sequence[NDArray[np.float64]]) -> list[Stacked]:
        """Applies the stackers of `nested` to other predictions of the members for the same studies.

        Args:
            predictions: each float64 [num_members, num_studies, 25, 3], missing where the fitted ones are.

        Returns:
            The stacked predictions of each.

        Raises:
            ValueError: there is only one fold.
        """
        folds = np.unique(self._folds).tolist()
        if len(folds) < 2:
            raise ValueError(f"Nested predictions must have at least two folds. Received: folds {folds}.")
        _, *shape = self._members.probabilities.shape
        results = [
            Stacked(
                np.zeros(shape), np.zeros(shape), np.zeros(shape[:2], np.int64), np.zeros(shape, np.bool_)
            )
            for _ in predictions
        ]
        for fold in folds:
            held_out = self._folds == fold
            families = []
            for fitter in self._families:
                families.append(fitter.fit_without(held_out))
                self._advance(1)
            stacker = self._stacker(families)
            for result, values in zip(results, predictions, strict=True):
                stacked = apply_stacker(stacker, values[:, held_out])
                result.probability[held_out] = stacked.probability
                result.competition[held_out] = stacked.competition
                result.pattern[held_out] = stacked.pattern
                result.sets[held_out] = stacked.sets
        return results


def num_fits(folds: Labels) -> int:
    """Returns the number of fits of a family in `StackerFitter.nested` and `fit` together."""
    return (len(np.unique(folds)) + 1) * len(Family)


@dataclass(frozen=True)
class StackingRun:
    """Result of `stack_tables`.

    Attributes:
        study_ids: the studies that at least one member covers, [num_studies].
        labels: int [num_studies, 25].
        folds: int [num_studies].
        members: the members' predictions for these studies.
        stacker: the stacker fitted to all folds.
        nested: predictions for each fold by a stacker fitted to the other folds; use these to estimate the
            score.
        num_uncovered: number of labelled studies that no member covers; they are not used.
    """

    study_ids: tuple[str, ...]
    labels: NDArray[np.int8]
    folds: NDArray[np.int64]
    members: Members
    stacker: StackerCoefficients
    nested: Stacked
    num_uncovered: int


def _assign_folds(
    tables: Sequence[OutOfFoldTable],
    study_ids: Sequence[str],
    labels: NDArray[np.int8],
    given: Mapping[str, int] | None,
    seed: int,
) -> NDArray[np.int64]:
    """Returns the fold of each study, from the files or, if no file has folds, newly assigned."""
    known = merge_folds(tables, given)
    if not known:
        num_folds = min(_NUM_MADE_FOLDS, len(study_ids))
        # Patients are unknown here: a folds file is needed where a patient has several studies.
        known = make_folds(study_ids, study_ids, labels, num_folds=num_folds, seed=seed)
    without = [study_id for study_id in study_ids if study_id not in known]
    if without:
        raise ValueError(
            "Every study must have a fold, in a folds file or in a table's `fold` column. "
            f"Received none for {len(without)} studies, e.g. {without[0]!r}."
        )
    return np.array([known[study_id] for study_id in study_ids], np.int64)


def stack_tables(
    tables: Sequence[OutOfFoldTable],
    study_ids: Sequence[str],
    labels: NDArray[np.integer],
    *,
    folds: Mapping[str, int] | None = None,
    coverage: float = COVERAGE,
    seed: int = 0,
    progress: ProgressMaker = silent_progress,
) -> StackingRun:
    """Fits a stacker to out-of-fold tables, and predicts every fold with a stacker fitted to the others.

    Args:
        tables: one table for each member.
        study_ids: studies of the label table, [num_labelled]; those that no member covers are left out.
        labels: int [num_labelled, 25], -1 where missing.
        folds: study id -> fold. None takes the tables' own folds, or assigns new ones if they have none.
        coverage: probability that a prediction set contains the reader's grade, in [0.5, 1).
        seed: seed of newly assigned folds.
        progress: progress display of the fits.

    Raises:
        ValueError: no table, no label, a study without fold, contradicting folds, only one fold, or a
            `coverage` out of range.
    """
    if not tables:
        raise ValueError("There must be at least one out-of-fold table. Received: none.")
    covered = covered_studies(tables, study_ids)
    index_of = {study_id: index for index, study_id in enumerate(study_ids)}
    chosen = np.asarray(labels, np.int8)[[index_of[study_id] for study_id in covered]]
    if not (chosen != MISSING_LABEL).any():
        raise ValueError(
            "The label tables must have a label of a study with predictions. Received: "
            f"{len(covered)} studies with predictions, whose labels are all missing."
        )
    members = merge_sources(align_members(tables, covered), MAX_SOURCES)
    fold_ids = _assign_folds(tables, covered, chosen, folds, seed)
    # The matrices are narrow: threads of the linear algebra would wait for each other longer than they
    # compute.
    with threadpool_limits(limits=1), progress(num_fits(fold_ids)) as advance:
        fitter = StackerFitter(members, chosen, fold_ids, coverage=coverage, advance=advance)
        nested, stacker = fitter.nested(), fitter.fit()
    return StackingRun(
        study_ids=tuple(covered),
        labels=chosen,
        folds=fold_ids,
        members=members,
        stacker=stacker,
        nested=nested,
        num_uncovered=len(study_ids) - len(covered),
    )


def set_notes(stacker: StackerCoefficients) -> list[str]:
    """Returns a sentence for each family with few labels of a grade behind its prediction sets.

    The counts are those of findings with all sources of the family.
    """
    notes = []
    for part in stacker.families:
        if part.set_thresholds is None or not part.num_labels:
            continue
        thresholds, num_rows = part.set_thresholds.thresholds[-1], part.set_thresholds.num_rows[-1]
        parts = [
            f"{num_rows[grade]} {grade.title}{' (in every set)' if not thresholds[grade] else ''}"
            for grade in Severity
            if num_rows[grade] < FEW_ROWS
        ]
        if parts:
            notes.append(
                f"Prediction sets of {part.family.value} findings rest on few labels (below {FEW_ROWS}): "
                f"{', '.join(parts)}."
            )
    return notes


def write_stacking_run(run: StackingRun, out: Path) -> None:
    """Writes oof.csv (competition), oof_probability.csv, prediction_sets.csv, folds.csv, then stacker.json.

    The sets are nested like the probabilities: those of a fold have thresholds from the other folds.
    """
    out.mkdir(parents=True, exist_ok=True)
    for head, name in OOF_NAMES.items():
        write_out_of_fold_table(
            out / name,
            run.study_ids,
            run.nested.head(head),
            folds=run.folds,
            model=MODEL_NAMES[head],
        )
    coverage = run.stacker.set_coverage
    if coverage is not None:
        write_set_table(out / SETS_NAME, run.study_ids, run.nested.sets, coverage=coverage)
    write_folds(out / FOLDS_NAME, dict(zip(run.study_ids, run.folds.tolist(), strict=True)))
    write_text_atomically(out / STACKER_NAME, stacker_to_json(run.stacker))
