"""Scores of sub-groups of studies: by vendor, field strength, matrix, or whatever tells them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, bootstrap
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, study_terms
from lumbar_tf.labels import MISSING_LABEL, Severity

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

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
