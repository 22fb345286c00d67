"""Made grades of made studies, and tables that predict them: what `stack` and `evaluate` read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, Severity

#: Shares of the three severities: common enough that a few dozen studies have some of each.
_SHARES = (0.6, 0.25, 0.15)


def make_study_ids(num_studies: int) -> list[str]:
    """Returns ids that count up from 1000."""
    return [str(1000 + index) for index in range(num_studies)]


def draw_labels(num_studies: int, *, num_graded: int = NUM_FINDINGS) -> NDArray[np.int64]:
    """Draws severities [num_studies, 25] of the first findings; the others have no label."""
    labels = np.full((num_studies, NUM_FINDINGS), MISSING_LABEL, np.int64)
    labels[:, :num_graded] = np.random.default_rng(0).choice(3, size=(num_studies, num_graded), p=_SHARES)
    return labels


def draw_answers(labels: NDArray[np.int64], *, sharpness: float, seed: int) -> NDArray[np.float64]:
    """Draws probabilities [num_studies, 25, 3] that know the labels the better, the sharper.

    Args:
        labels: as `draw_labels` returns them.
        sharpness: the true class's logit, in standard deviations of the noise on all three.
        seed: of the noise.

    Returns:
        Rows that sum to 1, NaN where there is no label.
    """
    noise = np.random.default_rng(seed).normal(size=(*labels.shape, 3))
    exponentials = np.exp(sharpness * np.eye(3)[labels] + noise)
    answers = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return np.where((labels == MISSING_LABEL)[..., None], np.nan, answers)


def write_labels(path: Path, study_ids: Sequence[str], labels: NDArray[np.int64]) -> Path:
    """Writes a `train.csv` as the competition's, an empty field for a missing label; returns its path."""
    lines = [",".join(["study_id", *(finding.name for finding in FINDINGS)])]
    for study, row in zip(study_ids, labels, strict=True):
        titles = ("" if value == MISSING_LABEL else Severity(value).title for value in row)
        lines.append(",".join([study, *titles]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
