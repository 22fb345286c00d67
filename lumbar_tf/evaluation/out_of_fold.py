"""What an exported ensemble is worth on its training studies, each answered by networks that never saw it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.bundle.model_card import Measured
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.ensemble.stacking_run import OOF_NAMES
from lumbar_tf.evaluation.scorecard import evaluate_table, scorecard_json
from lumbar_tf.tables.out_of_fold import align, covered_studies, read_tables


def measure_out_of_fold(
    stack: Path, study_ids: Sequence[str], labels: NDArray[np.integer], *, num_resamples: int = 1000
) -> Measured:
    """Scores what `lumbar_tf.stack` left in a folder: nested predictions of both heads.

    Args:
        stack: the folder of `oof.csv` and `oof_probability.csv`.
        study_ids: studies of the label table.
        labels: int [num_labelled, 25], -1 where missing.
        num_resamples: of the bootstrap.
    """
    cards = {
        head: _evaluate(stack / name, study_ids, labels, num_resamples) for head, name in OOF_NAMES.items()
    }
    return Measured(
        "Out of fold: training studies, by networks and stackers that were fitted without them",
        competition=cards[Head.COMPETITION],
        probability=cards[Head.PROBABILITY],
    )


def _evaluate(
    path: Path, study_ids: Sequence[str], labels: NDArray[np.integer], num_resamples: int
) -> Mapping[str, Any]:
    tables = read_tables([path])
    covered = covered_studies(tables, study_ids)
    place_of = {study_id: place for place, study_id in enumerate(study_ids)}
    chosen = np.asarray(labels)[[place_of[study_id] for study_id in covered]]
    card = evaluate_table(chosen, align(tables, covered).probabilities[0], num_resamples=num_resamples)
    content: Mapping[str, Any] = scorecard_json(card)
    return content
