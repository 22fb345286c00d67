"""The folds file `study_id,fold_id`, without the records that `data/folds.py` checks it against.

Foreign out-of-fold tables come without records, and stacking them must not need TensorFlow.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import MISSING_LABEL, Severity

_COLUMNS = ("study_id", "fold_id")


def read_fold_table(path: Path) -> dict[str, int]:
    """Reads `study_id,fold_id`; further columns are allowed.

    Raises:
        ValueError: a column is absent, a study is given twice, or a fold is no whole number.
    """
    folds: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(_COLUMNS) <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} must have the columns {_COLUMNS}. Received: {reader.fieldnames}.")
        for row in reader:
            study_id, text = row["study_id"], (row["fold_id"] or "").strip()
            if study_id in folds or not text.isdecimal():
                raise ValueError(
                    f"{path}, line {reader.line_num}: a study must be given once, with a fold 0, 1, ... "
                    f"Received: {study_id!r}, {text!r}."
                )
            folds[study_id] = int(text)
    return folds


def write_fold_table(path: Path, folds: Mapping[str, int]) -> None:
    """Writes `study_id,fold_id`, sorted by study, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(sorted(folds.items()))
    partial.replace(path)


def deal_folds(
    study_ids: Sequence[str], labels: NDArray[np.integer], *, num_folds: int, seed: int
) -> dict[str, int]:
    """Deals studies to folds like cards, the most severe first, so that each fold has its share.

    Nothing tells here which studies are of one patient: give a folds file where some are.

    Args:
        study_ids: [num_studies].
        labels: int [num_studies, 25].
        num_folds: how many.
        seed: shuffles studies that are equally severe.

    >>> sorted(deal_folds(["a", "b"], np.zeros((2, 25), int), num_folds=2, seed=0).values())
    [0, 1]
    """
    weights = np.array([severity.weight for severity in Severity])
    burden = np.where(labels == MISSING_LABEL, 0.0, weights[np.clip(labels, 0, None)]).sum(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(study_ids))
    order = shuffled[np.argsort(-burden[shuffled], kind="stable")]
    return {study_ids[index]: place % num_folds for place, index in enumerate(order)}
