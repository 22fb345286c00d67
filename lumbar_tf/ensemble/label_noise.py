"""Labels that out-of-fold predictions disagree with: to be looked at, or left out of training.

The disagreement with a label is 1 - p(given label), p being the mean over the members that answer the
finding. It only means something if no member trained on the study that it speaks of, so every table's fold
is held against the folds of the training that is to come.

What this cannot promise. A training label of fold j is judged by members that held out j alone: they
trained on every other fold, on the one that the coming training holds out too. So which labels are left out
depends, a little, on the labels that the score is taken on; a score after leaving labels out is no longer
strictly out of fold, and is compared best with one on a cohort that neither training saw. Dropping labels,
predicting anew and dropping by the new tables compounds it. And a member that was trained with the
metric's weights (1, 2, 4) overstates the rare grades: a calibrated table (`stack` writes
`oof_probability.csv`) doubts the common grade less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, NUM_SEVERITIES, Finding, Severity, row_id
from lumbar_tf.tables.out_of_fold import Members, OutOfFoldTable, align_members

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class DoubtfulLabel:
    """A label and what the members make of it.

    Attributes:
        rank: 1 for the label that is disagreed with most.
        study_id: the study.
        finding: which of its 25.
        label: what the annotator gave.
        other: the most probable other grade, by the members' mean.
        given_mean: mean probability of the given label over the members that answer.
        other_mean: mean probability of the other one.
        by_member: (given, other) of each member that answers, by its name.
    """

    rank: int
    study_id: str
    finding: Finding
    label: Severity
    other: Severity
    given_mean: float
    other_mean: float
    by_member: dict[str, tuple[float, float]]

    @property
    def disagreement(self) -> float:
        """1 - p(given label), 0 to 1."""
        return 1.0 - self.given_mean

    @property
    def row_id(self) -> str:
        """The submission's name of the finding."""
        return row_id(self.study_id, self.finding)


def mean_probabilities(members: Members) -> Floats:
    """Averages the members that answer.

    Returns:
        float64 [num_studies, 25, 3], NaN where none answers.
    """
    is_known = np.isfinite(members.probabilities)
    count = is_known.sum(axis=0)
    total = np.where(is_known, members.probabilities, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def disagreement(probabilities: Floats, labels: NDArray[np.integer]) -> Floats:
    """Returns 1 - p(given label).

    Args:
        probabilities: float [..., 3], NaN where nobody answers.
        labels: int [...], `MISSING_LABEL` where nobody graded.

    Returns:
        float64 [...], NaN where there is no label or no answer.

    >>> disagreement(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), np.array([2, -1])).round(2).tolist()
    [0.9, nan]
    """
    labels = np.asarray(labels)
    is_graded = labels != MISSING_LABEL
    place = np.where(is_graded, labels, 0)[..., np.newaxis].astype(np.intp)
    given = np.take_along_axis(np.asarray(probabilities, np.float64), place, axis=-1)[..., 0]
    return np.where(is_graded, 1.0 - given, np.nan)


def check_out_of_fold(tables: Sequence[OutOfFoldTable], folds: Mapping[str, int]) -> None:
    """Refuses a table that may come from members which trained on the studies that it speaks of.

    Args:
        tables: one a member.
        folds: fold by study, of the training that is to come.

    Raises:
        ValueError: a table says no fold of a study, or another one than `folds` does.
    """
    for table in tables:
        for study_id in table.rows:
            known, received = folds.get(study_id), table.folds.get(study_id)
            if known is not None and received != known:
                raise ValueError(
                    "A label may only be judged by a member that held its study out: the table's column "
                    "`fold` must be there and say what the folds file says. "
                    f"Received: study {study_id!r} of model {table.model!r} with the fold {received}, "
                    f"the folds file has {known}."
                )


def noisy_labels(
    tables: Sequence[OutOfFoldTable],
    labels: Mapping[str, NDArray[np.integer]],
    threshold: float,
    folds: Mapping[str, int],
) -> dict[str, Flags]:
    """Tells which labels the out-of-fold predictions disagree with.

    Args:
        tables: one a member; studies without a fold in `folds` are passed over.
        labels: int [25] by study, `MISSING_LABEL` where nobody graded.
        threshold: in (0, 1]; a disagreement of as much or more is noisy.
        folds: fold by study, of the training that is to come.

    Returns:
        bool [25] by study, for the studies that have a noisy label; all other labels are trusted, those
        that no member answers too.

    Raises:
        ValueError: no table, a threshold out of range, or a table that is not out of fold.
    """
    if not tables:
        raise ValueError("Labels can only be judged with an out-of-fold table. Received: none.")
    if not 0 < threshold <= 1:
        raise ValueError(f"The threshold of disagreement must be in (0, 1]. Received: {threshold}.")
    check_out_of_fold(tables, folds)
    study_ids = [study_id for study_id in folds if study_id in labels]
    found = _disagreements(tables, study_ids, labels)
    # Tables are text of nine digits: what was meant to be 0.8 may come back a hair below it.
    noisy = np.nan_to_num(found, nan=-1.0) >= threshold - 1e-9
    return {study_id: flags for study_id, flags in zip(study_ids, noisy, strict=True) if flags.any()}


def _disagreements(
    tables: Sequence[OutOfFoldTable], study_ids: Sequence[str], labels: Mapping[str, NDArray[np.integer]]
) -> Floats:
    """Returns float64 [num_studies, 25], NaN where there is no label or no answer."""
    if not study_ids:
        return np.zeros((0, NUM_FINDINGS))
    members = align_members(_restricted(tables, set(study_ids)), study_ids)
    given = np.stack([np.asarray(labels[study_id]) for study_id in study_ids])
    return disagreement(mean_probabilities(members), given)


def _restricted(tables: Sequence[OutOfFoldTable], study_ids: set[str]) -> list[OutOfFoldTable]:
    return [
        OutOfFoldTable(
            table.model,
            {study_id: rows for study_id, rows in table.rows.items() if study_id in study_ids},
            table.folds,
        )
        for table in tables
    ]


def count_scored(
    tables: Sequence[OutOfFoldTable], study_ids: Sequence[str], labels: NDArray[np.integer]
) -> int:
    """Returns how many labels have an answer to be held against."""
    by_study = dict(zip(study_ids, np.asarray(labels), strict=True))
    return int(np.isfinite(_disagreements(tables, list(study_ids), by_study)).sum())


def rank_doubtful_labels(
    tables: Sequence[OutOfFoldTable], study_ids: Sequence[str], labels: NDArray[np.integer], *, most: int
) -> tuple[DoubtfulLabel, ...]:
    """Returns the labels that the members' mean disagrees with most.

    Args:
        tables: one a member; studies that are not in `study_ids` are passed over.
        study_ids: [num_studies].
        labels: int [num_studies, 25], `MISSING_LABEL` where nobody graded.
        most: how many at most.

    Returns:
        The doubts, the greatest disagreement first; equal ones in the order of studies and findings.
    """
    members = align_members(_restricted(tables, set(study_ids)), study_ids)
    mean = mean_probabilities(members)
    doubt = disagreement(mean, labels).reshape(-1)
    order = np.argsort(np.nan_to_num(-doubt, nan=np.inf), kind="stable")[:most]
    chosen = [int(place) for place in order if np.isfinite(doubt[place])]
    return tuple(
        _doubt(rank, study_ids, members, mean, np.asarray(labels), divmod(place, NUM_FINDINGS))
        for rank, place in enumerate(chosen, start=1)
    )


def _doubt(
    rank: int,
    study_ids: Sequence[str],
    members: Members,
    mean: Floats,
    labels: NDArray[np.integer],
    place: tuple[int, int],
) -> DoubtfulLabel:
    label = int(labels[place])
    other = max(
        (grade for grade in range(NUM_SEVERITIES) if grade != label), key=lambda each: mean[place][each]
    )
    said = members.probabilities[(slice(None), *place)]
    return DoubtfulLabel(
        rank=rank,
        study_id=study_ids[place[0]],
        finding=FINDINGS[place[1]],
        label=Severity(label),
        other=Severity(other),
        given_mean=float(mean[place][label]),
        other_mean=float(mean[place][other]),
        by_member={
            name: (float(row[label]), float(row[other]))
            for name, row in zip(members.names, said, strict=True)
            if np.isfinite(row).all()
        },
    )
