"""What a grader's out-of-fold answers are worth so far: of the folds that are done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.cells import Cell, make_cells
from lumbar_tf.evaluation.evaluated_table import (
    FAMILIES,
    EvaluatedTable,
    WorstCase,
    answered_labels,
    worst_cases,
)
from lumbar_tf.evaluation.metrics import condition_level_prior
from lumbar_tf.labels import Family
from lumbar_tf.tables.out_of_fold import align_members, read_out_of_fold_tables, restrict_studies

#: Few, because a page is drawn again after each fold: `evaluate` takes more.
NUM_RESAMPLES = 200
_NUM_WORST = 15

#: Labels by study, int8 [25].
StudyLabels = Mapping[str, NDArray[np.int8]]


@dataclass(frozen=True, eq=False)
class FamilyScore:
    """One family of findings.

    Attributes:
        family: which.
        cell: its figures, of the answers as the network gives them.
        confusion: labels by most probable grade, int [3, 3].
    """

    family: Family
    cell: Cell
    confusion: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """A grader's answers about studies that it did not see.

    Attributes:
        num_studies: answered and labelled.
        families: those with an answered label.
        worst: the findings that cost most.
    """

    num_studies: int
    families: tuple[FamilyScore, ...]
    worst: tuple[WorstCase, ...]


def score_out_of_fold(tables: Sequence[Path], labels: StudyLabels) -> OutOfFold | None:
    """Scores the tables of the folds that are done, together.

    Args:
        tables: of one member, a fold each.
        labels: of the records.

    Returns:
        The scores; None where no labelled finding is answered.
    """
    found = restrict_studies(read_out_of_fold_tables(tables), labels)
    study_ids = sorted({study for table in found for study in table.rows})
    if not study_ids:
        return None
    answers = align_members(found, study_ids).probabilities[0]
    known, _ = answered_labels(np.stack([labels[each] for each in study_ids]).astype(np.int64), answers)
    evaluated = EvaluatedTable(known, answers, answers)
    groups = {name: rows for name, rows in FAMILIES.items() if evaluated.rows(rows)[0].size}
    if not groups:
        return None
    prior = np.broadcast_to(condition_level_prior(known), answers.shape)
    cells = make_cells(evaluated, prior, groups, num_resamples=NUM_RESAMPLES, seed=0)
    families = tuple(
        FamilyScore(Family(name), cell, evaluated.confusion(rows))
        for (name, rows), cell in zip(groups.items(), cells, strict=True)
    )
    return OutOfFold(len(study_ids), families, worst_cases(study_ids, known, answers, num_worst=_NUM_WORST))
