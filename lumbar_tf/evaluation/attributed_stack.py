"""Losses of a stack and of its members that are due to points.

Training writes the predictions of each grader at annotated points, and at predicted points in the annotated
slice, beside its out-of-fold table. The stackers that are fitted to the out-of-fold tables without a fold are
applied to the members' predictions for the fold at each of the three places.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lumbar_tf.ensemble.loss_attribution import LossAttribution, attribute_loss
from lumbar_tf.ensemble.stacker import MAX_SOURCES, Head
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.tables.out_of_fold import (
    OutOfFoldTable,
    align_members,
    covered_studies,
    merge_sources,
    placement_tables,
    read_out_of_fold_tables,
)

Floats = NDArray[np.float64]

#: Largest difference of probabilities between a stack and the same stack fitted again; tables are rounded.
_TOLERANCE = 1e-4


def attribute_stack(
    paths: Sequence[Path],
    stack: OutOfFoldTable,
    study_ids: Sequence[str],
    labels: NDArray[np.integer],
    *,
    head: Head,
) -> dict[str, LossAttribution]:
    """Returns what points cost a stack, and each of its members.

    A member takes part with the findings whose point is annotated and predicted. The stack is evaluated on
    the findings that every member with a prediction compares; for all other findings, which are its context,
    the members' predictions at predicted points stand in at the other places.

    Args:
        paths: out-of-fold tables that the stack was fitted to.
        stack: out-of-fold predictions of the stack, with folds.
        study_ids: studies of the label table, [num_labelled].
        labels: int [num_labelled, 25], -1 where missing.
        head: head of the stack.

    Returns:
        The attributions by name: the stack's first, then those of the members, which are not calibrated.

    Raises:
        ValueError: a table at annotated points is missing, no finding can be compared, or the tables with
            these labels do not give the stack.
    """
    places = _read_places(paths)
    covered = covered_studies(places[2], study_ids)
    index_of = {study_id: index for index, study_id in enumerate(study_ids)}
    known = np.asarray(labels)[[index_of[study_id] for study_id in covered]]
    placed = np.stack([align_members(tables, covered).probabilities for tables in places])
    is_placed = np.all(np.isfinite(placed), axis=(0, -1))
    filled = np.where(is_placed[..., np.newaxis], placed, placed[2])
    members = merge_sources(align_members(places[2], covered), MAX_SOURCES)
    fitter = StackerFitter(members, known, _folds(stack, covered))
    # One thread, as in `stack_tables`.
    with threadpool_limits(limits=1):
        stacked = np.stack([result.head(head) for result in fitter.nested_at(list(filled))])
    _check_stack(stack, covered, stacked[2])
    is_missing = np.isnan(placed[2]).any(axis=-1)
    is_compared = (is_placed | is_missing).all(axis=0) & is_placed.any(axis=0)
    of_stack = attribute_loss(known, np.where(is_compared[..., np.newaxis], stacked, np.nan))
    if of_stack is None:
        raise ValueError(
            "What points cost needs a labelled finding whose point is annotated and predicted for every "
            f"member. Received: none in {len(covered)} studies of {len(members.names)} members."
        )
    found = {stack.model: of_stack}
    for name, values in zip(members.names, placed.swapaxes(0, 1), strict=True):
        attribution = attribute_loss(known, values)
        if attribution is not None:
            found[name] = attribution
    return found


def _read_places(paths: Sequence[Path]) -> list[tuple[OutOfFoldTable, ...]]:
    """Reads the members' tables at each of the three places."""
    places = zip(*map(placement_tables, paths), strict=True)
    tables = [read_out_of_fold_tables(_existing(place)) for place in places]
    names = [[table.model for table in place] for place in tables]
    if names[0] != names[2] or names[1] != names[2]:
        raise ValueError(
            f"The tables at annotated points must have the models {names[2]}. Received: {names[:2]}."
        )
    return tables


def _existing(paths: Sequence[Path]) -> Sequence[Path]:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            "Every out-of-fold table must have the tables at annotated points beside it, which training "
            f"writes. Received: no {missing[0]}. For a run that is older than these tables, remove oof.csv "
            "in the folds of this network and run `train` again: it predicts again and trains nothing."
        )
    return paths


def _folds(stack: OutOfFoldTable, study_ids: Sequence[str]) -> NDArray[np.int64]:
    without = [study_id for study_id in study_ids if study_id not in stack.folds]
    if without:
        raise ValueError(
            "What points cost needs the folds of a stack, in the column `fold` of its table. "
            f"Received: none of {len(without)} studies, e.g. {without[0]!r}."
        )
    return np.array([stack.folds[study_id] for study_id in study_ids], np.int64)


def _check_stack(stack: OutOfFoldTable, study_ids: Sequence[str], expected: Floats) -> None:
    """Raises ValueError if the stack that was fitted again differs from the evaluated table."""
    rule = f"{stack.model} must be the stack of the tables whose points are examined, by these labels."
    if set(stack.rows) != set(study_ids):
        raise ValueError(
            f"{rule} Received: {len(stack.rows)} studies, not the {len(study_ids)} of the tables."
        )
    difference = np.abs(align_members([stack], study_ids).probabilities[0] - expected).max()
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"{rule} Received: probabilities that differ from it by up to {difference:.3g}. If the table is "
            "of the other head, change --head."
        )
