"""Coverage and size of prediction sets, with intervals over studies.

Coverage is the share of the labelled findings whose set contains the label, for each grade of the label. All
values are ratios of sums over studies, so that bootstrap resamples are matrix products as in `cells.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.prediction_sets import FEW_ROWS
from lumbar_tf.evaluation.bootstrap import Interval, bootstrap_counts
from lumbar_tf.evaluation.comparison import labelled_groups
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, FAMILIES, SINGLE_FINDINGS
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, NUM_SEVERITIES, Level, Severity
from lumbar_tf.tables.groups import Grouping
from lumbar_tf.tables.set_tables import SetTable

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]
Bools = NDArray[np.bool_]

#: Indices of the findings of each level, all conditions pooled.
LEVELS: dict[str, list[int]] = {
    level.value: [row for row, finding in enumerate(FINDINGS) if finding.level is level] for level in Level
}


@dataclass(frozen=True)
class SetCell:
    """Prediction sets of some findings pooled.

    Attributes:
        name: name of a family, a condition, a level, or a finding.
        counts: number of labels of each grade.
        coverage: share of the labels of each grade that are in their set; NaN without labels of the grade.
        mean_size: mean number of grades in a set.
        singletons: share of the sets that hold one grade.
        singleton_accuracy: share of these sets whose grade is the label.
    """

    name: str
    counts: tuple[int, ...]
    coverage: tuple[Interval, ...]
    mean_size: Interval
    singletons: Interval
    singleton_accuracy: Interval

    @property
    def few(self) -> tuple[Severity, ...]:
        """Grades with fewer than `FEW_ROWS` labels, whose coverage is unreliable."""
        return tuple(grade for grade, count in zip(Severity, self.counts, strict=True) if count < FEW_ROWS)


@dataclass(frozen=True)
class SetSubgroup:
    """Prediction sets of one group of studies.

    Attributes:
        attribute: the attribute that distinguishes the groups, such as the vendor.
        group: name of the group.
        num_studies: number of studies with a label and a prediction.
        families: one cell for each family.
    """

    attribute: str
    group: str
    num_studies: int
    families: tuple[SetCell, ...]


@dataclass(frozen=True)
class SetEvaluation:
    """Evaluation of the prediction sets of a table.

    Attributes:
        nominal_coverage: probability that a set should contain the reader's grade; NaN where unknown.
        num_without: number of labelled findings without a set; they are left out.
        families: cells of the families.
        conditions: cells of the conditions.
        levels: cells of the levels.
        findings: cells of the 25 findings.
        subgroups: cells of groups of studies; empty without groupings.
    """

    nominal_coverage: float
    num_without: int
    families: tuple[SetCell, ...]
    conditions: tuple[SetCell, ...]
    levels: tuple[SetCell, ...]
    findings: tuple[SetCell, ...]
    subgroups: tuple[SetSubgroup, ...] = ()


def evaluate_sets(
    table: SetTable,
    study_ids: Sequence[str],
    labels: Labels,
    groupings: Sequence[Grouping] = (),
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> SetEvaluation:
    """Evaluates prediction sets.

    Args:
        table: the sets.
        study_ids: studies to evaluate, [num_studies].
        labels: int [num_studies, 25], -1 where missing.
        groupings: partitions of the studies.
        num_resamples: number of bootstrap resamples of studies.
        seed: seed of the bootstrap.
    """
    sets = table.align(study_ids)
    is_labelled, has_set = labels != MISSING_LABEL, sets.any(axis=-1)
    options = {"num_resamples": num_resamples, "seed": seed}
    known = np.where(has_set, labels, MISSING_LABEL)
    groups = {"families": FAMILIES, "conditions": CONDITIONS, "levels": LEVELS, "findings": SINGLE_FINDINGS}
    cells = {kind: make_set_cells(sets, known, rows, **options) for kind, rows in groups.items()}
    subgroups = tuple(
        SetSubgroup(
            attribute, group, len(chosen), make_set_cells(sets[chosen], known[chosen], FAMILIES, **options)
        )
        for attribute, group, chosen in labelled_groups(study_ids, known, groupings)
    )
    return SetEvaluation(
        nominal_coverage=table.coverage,
        num_without=int((is_labelled & ~has_set).sum()),
        subgroups=subgroups,
        **cells,
    )


def make_set_cells(
    sets: Bools, labels: Labels, groups: Mapping[str, list[int]], *, num_resamples: int, seed: int
) -> tuple[SetCell, ...]:
    """Returns a cell for each group of findings.

    Args:
        sets: which grades are in the sets, bool [num_studies, 25, 3].
        labels: int [num_studies, 25], -1 where there is no label or no set.
        groups: name -> indices of the findings that are pooled.
        num_resamples: number of bootstrap resamples of studies.
        seed: seed of the bootstrap.
    """
    sums = _study_sums(sets, labels)
    flat = sums.reshape(len(sums), -1)
    is_pooled = np.array(
        [[row in rows for row in range(NUM_FINDINGS)] for rows in groups.values()], np.float64
    )

    def statistics(counts: Floats) -> Floats:
        pooled = is_pooled @ (counts @ flat).reshape(len(counts), NUM_FINDINGS, -1)
        parts, wholes = np.split(pooled, 2, axis=-1)
        ratios = np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)
        return ratios.reshape(len(counts), -1)

    found = bootstrap_counts(statistics, len(flat), num_resamples=num_resamples, seed=seed)
    width = sums.shape[-1] // 2
    cells = []
    for place, (name, rows) in enumerate(groups.items()):
        values = found[place * width : (place + 1) * width]
        counts = tuple(int((labels[:, rows] == grade).sum()) for grade in Severity)
        cells.append(SetCell(name, counts, tuple(values[:NUM_SEVERITIES]), *values[NUM_SEVERITIES:]))
    return tuple(cells)


def _study_sums(sets: Bools, labels: Labels) -> Floats:
    """Returns the numerators of all ratios, then their denominators, float64 [num_studies, 25, 12].

    The ratios: coverage of each grade, mean size, share of singletons, accuracy of singletons.
    """
    is_grade = labels[..., None] == np.arange(NUM_SEVERITIES)
    is_known, size = is_grade.any(axis=-1), sets.sum(axis=-1)
    is_single = is_known & (size == 1)
    parts = [
        *np.moveaxis(is_grade & sets, -1, 0),
        is_known * size,
        is_single,
        is_single & (is_grade & sets).any(-1),
    ]
    wholes = [*np.moveaxis(is_grade, -1, 0), is_known, is_known, is_single]
    return np.stack([*parts, *wholes], axis=-1).astype(np.float64)


def sets_json(evaluated: SetEvaluation) -> dict[str, object]:
    """Returns the content of `prediction_sets` in `metrics.json`, with the families as keys at the top."""
    return {
        "nominal_coverage": evaluated.nominal_coverage,
        "num_without": evaluated.num_without,
        **_cells_json(evaluated.families),
        "conditions": _cells_json(evaluated.conditions),
        "levels": _cells_json(evaluated.levels),
        "findings": _cells_json(evaluated.findings),
        "subgroups": [
            {
                "attribute": subgroup.attribute,
                "group": subgroup.group,
                "num_studies": subgroup.num_studies,
                **_cells_json(subgroup.families),
            }
            for subgroup in evaluated.subgroups
        ],
    }


def _cells_json(cells: Sequence[SetCell]) -> dict[str, object]:
    return {cell.name: _cell_json(cell) for cell in cells}


def _cell_json(cell: SetCell) -> dict[str, object]:
    """Returns values as numbers, and the bounds of each as [low, high] under `<name>_interval`."""
    by_grade = dict(zip((grade.column for grade in Severity), cell.coverage, strict=True))
    content: dict[str, object] = {
        "counts": dict(zip(by_grade, cell.counts, strict=True)),
        "few": [grade.column for grade in cell.few],
        "coverage": {grade: interval.value for grade, interval in by_grade.items()},
        "coverage_interval": {grade: [interval.low, interval.high] for grade, interval in by_grade.items()},
    }
    for name in ("mean_size", "singletons", "singleton_accuracy"):
        interval: Interval = getattr(cell, name)
        content[name] = interval.value
        content[f"{name}_interval"] = [interval.low, interval.high]
    return content
