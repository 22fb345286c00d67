"""Scores of several tables, and of subgroups of studies, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, bootstrap, paired_difference
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, study_terms
from lumbar_tf.labels import MISSING_LABEL, Severity

Floats = NDArray[np.float64]

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class ComparedTable:
    """One of the tables.

    Attributes:
        name: the model's.
        num_studies: studies with a label that this table and the first answer.
        num_labels: those labels.
        scores: figure -> value and interval, over those labels.
        difference: figure -> this table less the first, over those labels and on the same resamples of
            studies; below 0 is better. None for the first itself.
    """

    name: str
    num_studies: int
    num_labels: int
    scores: Mapping[str, Interval]
    difference: Mapping[str, Interval] | None


def compare_tables(
    labels: Labels, tables: Mapping[str, Floats], *, num_resamples: int = 1000, seed: int = 0
) -> tuple[ComparedTable, ...]:
    """Compares each table with the first, over the labels that both answer.

    Args:
        labels: int [num_studies, 25].
        tables: name -> float64 [num_studies, 25, 3], NaN where there is no answer.
        num_resamples: of the bootstrap over studies.
        seed: of the bootstrap.

    Raises:
        ValueError: a table answers no label that the first one does.
    """
    first, *others = tables
    options = {"num_resamples": num_resamples, "seed": seed}
    return tuple(
        _compare(labels, name, tables[name], None if name == first else tables[first], options)
        for name in (first, *others)
    )


def _compare(
    labels: Labels, name: str, table: Floats, first: Floats | None, options: dict[str, int]
) -> ComparedTable:
    answered = np.isfinite(table).all(axis=-1)
    if first is not None:
        answered &= np.isfinite(first).all(axis=-1)
    common = np.where(answered, labels, MISSING_LABEL)
    has_label = (common != MISSING_LABEL).any(axis=1)
    if not has_label.any():
        raise ValueError(
            f"A table must answer some label that the first one does. Received: none by {name!r}."
        )
    common = common[has_label]
    own = study_terms(common, table[has_label]).values
    difference = None
    if first is not None:
        of_first = study_terms(common, first[has_label]).values
        intervals = paired_difference(own, of_first, len(common), **options)
        difference = dict(zip(SCORE_FIGURES, intervals, strict=True))
    return ComparedTable(
        name=name,
        num_studies=len(common),
        num_labels=int((common != MISSING_LABEL).sum()),
        scores=dict(zip(SCORE_FIGURES, bootstrap(own, len(common), **options), strict=True)),
        difference=difference,
    )


#: Under so many studies a percentile interval is too narrow to lean on: textbooks call a sample large from
#: about 30, and the score's any-severe term weighs the few severe studies most.
SMALL_GROUP = 30

_ABSENT = "not in the manifest"


@dataclass(frozen=True)
class Grouping:
    """A way to tell studies apart.

    Attributes:
        attribute: what by.
        group_of: study id -> the name of its group.
        order: the groups' names in the order in which they are listed.
    """

    attribute: str
    group_of: Mapping[str, str]
    order: tuple[str, ...]


@dataclass(frozen=True)
class Subgroup:
    """A group of studies.

    Attributes:
        attribute: what the studies are told apart by.
        group: its name.
        num_studies: studies with a label and an answer.
        num_severe: their labels that are severe: other grades have other losses, however good the answers.
        is_small: whether it has fewer than `SMALL_GROUP` studies: its interval is not to be leaned on.
        scores: figure -> value and interval.
    """

    attribute: str
    group: str
    num_studies: int
    num_severe: int
    is_small: bool
    scores: Mapping[str, Interval]


def score_subgroups(
    study_ids: Sequence[str],
    labels: Labels,
    probabilities: Floats,
    groupings: Sequence[Grouping],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Scores every group of every grouping; a group without a study is left out.

    Args:
        study_ids: [num_studies].
        labels: int [num_studies, 25]; studies without any label are left out.
        probabilities: float64 [num_studies, 25, 3].
        groupings: ways to tell studies apart; a study that one does not know is in a group of its own kind.
        num_resamples: of the bootstrap over the studies of a group.
        seed: of the bootstrap.
    """
    has_label = (labels != MISSING_LABEL).any(axis=1)
    terms = study_terms(labels, probabilities)
    found = []
    for grouping in groupings:
        groups = np.array([grouping.group_of.get(study_id, _ABSENT) for study_id in study_ids])
        for group in (*grouping.order, _ABSENT):
            chosen = np.flatnonzero((groups == group) & has_label)
            if not chosen.size:
                continue
            scores = bootstrap(
                terms.chosen(chosen).values, chosen.size, num_resamples=num_resamples, seed=seed
            )
            found.append(
                Subgroup(
                    attribute=grouping.attribute,
                    group=group,
                    num_studies=chosen.size,
                    num_severe=int((labels[chosen] == Severity.SEVERE).sum()),
                    is_small=chosen.size < SMALL_GROUP,
                    scores=dict(zip(SCORE_FIGURES, scores, strict=True)),
                )
            )
    return tuple(found)
