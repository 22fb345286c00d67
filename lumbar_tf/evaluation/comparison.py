"""Several tables side by side: scores of the same labels, differences on the same resamples of studies."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.bootstrap import Interval, bootstrap, paired_difference
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, study_terms
from lumbar_tf.labels import MISSING_LABEL

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
