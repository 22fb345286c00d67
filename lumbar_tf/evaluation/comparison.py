"""Scores of several tables on the same labels, and of subgroups of studies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, score_differences, score_intervals
from lumbar_tf.evaluation.cells import Cell, cell_json, make_cells
from lumbar_tf.evaluation.evaluated_table import FAMILIES, EvaluatedTable
from lumbar_tf.evaluation.metrics import condition_level_prior, study_terms
from lumbar_tf.files import json_safe
from lumbar_tf.labels import MISSING_LABEL, Severity
from lumbar_tf.tables.groups import Grouping

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: With fewer studies a percentile interval is too narrow: textbooks call a sample large from about 30, and
#: the score's any-severe term depends on the few severe studies most.
SMALL_GROUP = 30
_ABSENT = "not in the manifest"


@dataclass(frozen=True)
class ComparedTable:
    """Scores of one table in a comparison.

    Attributes:
        name: name of the model.
        num_studies: number of studies with a label that both this table and the first one have a prediction
            for.
        num_labels: number of these labels.
        scores: value and interval of the score and its terms over these labels, by name.
        difference: this table minus the first one, over these labels and on the same resamples of studies, by
            name; below 0 is better. None for the first table.
    """

    name: str
    num_studies: int
    num_labels: int
    scores: Mapping[str, Interval]
    difference: Mapping[str, Interval] | None


@dataclass(frozen=True)
class Subgroup:
    """Scores of one group of studies.

    Attributes:
        attribute: the attribute that distinguishes the groups.
        group: name of the group.
        num_studies: number of studies with a label and a prediction.
        num_severe: number of severe labels: losses depend on the mix of grades, however good the predictions.
        is_small: whether it has fewer than `SMALL_GROUP` studies, so that its interval is unreliable.
        scores: value and interval of the score and its terms, by name.
        families: metrics of the three families.
    """

    attribute: str
    group: str
    num_studies: int
    num_severe: int
    is_small: bool
    scores: Mapping[str, Interval]
    families: tuple[Cell, ...]


def compare_tables(
    labels: Labels, tables: Mapping[str, Floats], *, num_resamples: int = 1000, seed: int = 0
) -> tuple[ComparedTable, ...]:
    """Compares each table with the first one, over the labels that both have a prediction for.

    Args:
        labels: int [num_studies, 25].
        tables: name -> float64 [num_studies, 25, 3], NaN where there is no prediction.
        num_resamples: number of bootstrap resamples of studies.
        seed: seed of the bootstrap.

    Raises:
        ValueError: a table has no labelled prediction in common with the first one.
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
            "A table must have a prediction for at least one label that the first table has one for. "
            f"Received: none by {name!r}."
        )
    common = common[has_label]
    terms = study_terms(common, table[has_label])
    difference = None
    if first is not None:
        difference = score_differences(terms, study_terms(common, first[has_label]), **options)
    return ComparedTable(
        name=name,
        num_studies=len(common),
        num_labels=int((common != MISSING_LABEL).sum()),
        scores=score_intervals(terms, **options),
        difference=difference,
    )


def labelled_groups(
    study_ids: Sequence[str], labels: Labels, groupings: Sequence[Grouping]
) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
    """Yields attribute, name and indices of the studies of every group that has a labelled study.

    Args:
        study_ids: [num_studies].
        labels: int [num_studies, 25]; studies without any label are left out.
        groupings: partitions of the studies; studies that a grouping does not contain form one more group.
    """
    has_label = (labels != MISSING_LABEL).any(axis=1)
    for grouping in groupings:
        groups = np.array([grouping.group_of.get(study_id, _ABSENT) for study_id in study_ids])
        for group in (*grouping.order, _ABSENT):
            chosen = np.flatnonzero((groups == group) & has_label)
            if chosen.size:
                yield grouping.attribute, group, chosen


def score_subgroups(
    study_ids: Sequence[str],
    evaluated: EvaluatedTable,
    groupings: Sequence[Grouping],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Scores every group of every grouping; groups without studies are left out.

    Args:
        study_ids: [num_studies].
        evaluated: labels and predictions of the studies; studies without any label are left out.
        groupings: partitions of the studies; studies that a grouping does not contain form one more group.
        num_resamples: number of bootstrap resamples of the studies of a group.
        seed: seed of the bootstrap.
    """
    terms = study_terms(evaluated.labels, evaluated.table)
    options = {"num_resamples": num_resamples, "seed": seed}
    subgroups = []
    for attribute, group, chosen in labelled_groups(study_ids, evaluated.labels, groupings):
        part = evaluated.chosen(chosen)
        prior = np.broadcast_to(condition_level_prior(part.labels), part.table.shape)
        subgroups.append(
            Subgroup(
                attribute=attribute,
                group=group,
                num_studies=chosen.size,
                num_severe=int((part.labels == Severity.SEVERE).sum()),
                is_small=chosen.size < SMALL_GROUP,
                scores=score_intervals(terms.chosen(chosen), **options),
                families=make_cells(part, prior, FAMILIES, **options),
            )
        )
    return tuple(subgroups)


def subgroup_json(subgroup: Subgroup) -> object:
    """Returns a subgroup as `metrics.json` has it."""
    content = {name: value for name, value in vars(subgroup).items() if name != "families"}
    content["scores"] = {name: asdict(interval) for name, interval in subgroup.scores.items()}
    return json_safe(content | {"families": [cell_json(cell) for cell in subgroup.families]})
