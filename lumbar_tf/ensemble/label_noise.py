"""Labels that disagree with out-of-fold predictions: for review, or to be left out of training.

The disagreement with a label is 1 - p(given label), with p the mean over the members that have a prediction
for the finding. It is meaningful only if no member was trained on the study, so the folds of every table are
compared with the folds of the coming training.

Limits. A training label of fold j is compared with members that held out fold j alone. They were trained on
every other fold, including the one that the coming training holds out, so the choice of the labels to drop
depends slightly on the labels that the score is computed from. A score after dropping labels is therefore no
longer strictly out of fold; compare it on a cohort that neither training used. Dropping labels, predicting
again and dropping by the new tables compounds the effect. Members trained with the metric's weights (1, 2, 4)
overestimate the rare grades: with a calibrated table (`stack` writes `oof_probability.csv`) fewer labels of
the common grade are suspect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, NUM_SEVERITIES, Finding, Severity, row_id
from lumbar_tf.tables.out_of_fold import Members, OutOfFoldTable, align_members, restrict_studies

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class SuspectLabel:
    """A label and the members' predictions for it.

    Attributes:
        rank: 1 for the label with the largest disagreement.
        study_id: the study.
        finding: condition and level.
        label: the annotator's grade.
        other: the most probable other grade, by the mean of the members.
        given_mean: mean probability of the given label over the members with a prediction.
        other_mean: mean probability of the other grade.
        by_member: (given, other) of each member with a prediction, by its name.
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
        """Row id of the finding in the competition's tables."""
        return row_id(self.study_id, self.finding)


def mean_probabilities(members: Members) -> Floats:
    """Returns the mean over the members that have a prediction.

    Returns:
        float64 [num_studies, 25, 3], NaN where no member has a prediction.
    """
    is_known = np.isfinite(members.probabilities)
    count = is_known.sum(axis=0)
    total = np.where(is_known, members.probabilities, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def disagreement(probabilities: Floats, labels: NDArray[np.integer]) -> Floats:
    """Returns 1 - p(given label).

    Args:
        probabilities: float [..., 3], NaN where there is no prediction.
        labels: int [...], `MISSING_LABEL` where there is no label.

    Returns:
        float64 [...], NaN where there is no label or no prediction.

    >>> disagreement(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), np.array([2, -1])).round(2).tolist()
    [0.9, nan]
    """
    labels = np.asarray(labels)
    is_graded = labels != MISSING_LABEL
    place = np.where(is_graded, labels, 0)[..., np.newaxis].astype(np.intp)
    given = np.take_along_axis(np.asarray(probabilities, np.float64), place, axis=-1)[..., 0]
    return np.where(is_graded, 1.0 - given, np.nan)


def check_out_of_fold(tables: Sequence[OutOfFoldTable], folds: Mapping[str, int]) -> None:
    """Raises if a table may contain predictions of members that were trained on the predicted studies.

    Args:
        tables: one table for each member.
        folds: fold of each study in the coming training.

    Raises:
        ValueError: a table has no fold for a study, or another fold than `folds`.
    """
    for table in tables:
        for study_id in table.rows:
            known, received = folds.get(study_id), table.folds.get(study_id)
            if known is not None and received != known:
                raise ValueError(
                    "A label must be compared with members that held its study out: a table must have the "
                    "column `fold`, with the folds of the folds file. "
                    f"Received: fold {received} for study {study_id!r} of model {table.model!r}, "
                    f"and {known} in the folds file."
                )


def noisy_labels(
    tables: Sequence[OutOfFoldTable],
    labels: Mapping[str, NDArray[np.integer]],
    threshold: float,
    folds: Mapping[str, int],
) -> dict[str, Flags]:
    """Returns the labels that the out-of-fold predictions disagree with.

    Args:
        tables: one table for each member; studies without a fold in `folds` are ignored.
        labels: int [25] by study, `MISSING_LABEL` where there is no label.
        threshold: in (0, 1]; a label with at least this disagreement is noisy.
        folds: fold of each study in the coming training.

    Returns:
        bool [25] by study, for the studies that have a noisy label. A label without a prediction is not
        noisy.

    Raises:
        ValueError: no table, a threshold out of range, or a table that is not out of fold.
    """
    if not tables:
        raise ValueError(
            "There must be at least one out-of-fold table to compare labels with. Received: none."
        )
    if not 0 < threshold <= 1:
        raise ValueError(f"The threshold of disagreement must be in (0, 1]. Received: {threshold}.")
    check_out_of_fold(tables, folds)
    study_ids = [study_id for study_id in folds if study_id in labels]
    found = _disagreements(tables, study_ids, labels)
    # Tables are text with nine digits: a disagreement of exactly 0.8 may be read back slightly smaller.
    noisy = np.nan_to_num(found, nan=-1.0) >= threshold - 1e-9
    return {study_id: flags for study_id, flags in zip(study_ids, noisy, strict=True) if flags.any()}


def _disagreements(
    tables: Sequence[OutOfFoldTable], study_ids: Sequence[str], labels: Mapping[str, NDArray[np.integer]]
) -> Floats:
    """Returns float64 [num_studies, 25], NaN where there is no label or no prediction."""
    if not study_ids:
        return np.zeros((0, NUM_FINDINGS))
    members = align_members(restrict_studies(tables, study_ids), study_ids)
    given = np.stack([np.asarray(labels[study_id]) for study_id in study_ids])
    return disagreement(mean_probabilities(members), given)


def count_compared_labels(
    tables: Sequence[OutOfFoldTable], study_ids: Sequence[str], labels: NDArray[np.integer]
) -> int:
    """Returns the number of labels that have a prediction."""
    by_study = dict(zip(study_ids, np.asarray(labels), strict=True))
    return int(np.isfinite(_disagreements(tables, list(study_ids), by_study)).sum())


def rank_suspect_labels(
    tables: Sequence[OutOfFoldTable], study_ids: Sequence[str], labels: NDArray[np.integer], *, most: int
) -> tuple[SuspectLabel, ...]:
    """Returns the labels with the largest disagreement with the mean of the members.

    Args:
        tables: one table for each member; studies that are not in `study_ids` are ignored.
        study_ids: [num_studies].
        labels: int [num_studies, 25], `MISSING_LABEL` where there is no label.
        most: maximum number of labels.

    Returns:
        The labels in falling order of disagreement; ties in the order of studies and findings.
    """
    labels = np.asarray(labels)
    members = align_members(restrict_studies(tables, study_ids), study_ids)
    mean = mean_probabilities(members)
    values = disagreement(mean, labels).reshape(-1)
    order = np.argsort(np.nan_to_num(-values, nan=np.inf), kind="stable")[:most]
    chosen = [divmod(int(place), NUM_FINDINGS) for place in order if np.isfinite(values[place])]
    return tuple(
        _suspect_label(rank, study_ids, members, mean, labels, place)
        for rank, place in enumerate(chosen, start=1)
    )


def _suspect_label(
    rank: int,
    study_ids: Sequence[str],
    members: Members,
    mean: Floats,
    labels: NDArray[np.integer],
    place: tuple[int, int],
) -> SuspectLabel:
    label = int(labels[place])
    others = (grade for grade in range(NUM_SEVERITIES) if grade != label)
    other = max(others, key=lambda grade: mean[place][grade])
    rows = members.probabilities[(slice(None), *place)]
    return SuspectLabel(
        rank=rank,
        study_id=study_ids[place[0]],
        finding=FINDINGS[place[1]],
        label=Severity(label),
        other=Severity(other),
        given_mean=float(mean[place][label]),
        other_mean=float(mean[place][other]),
        by_member={
            name: (float(row[label]), float(row[other]))
            for name, row in zip(members.names, rows, strict=True)
            if np.isfinite(row).all()
        },
    )
