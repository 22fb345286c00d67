"""Latent severities of the 25 findings, and their grading by a reader.

Every finding has a latent severity z. The z of a study are jointly Gaussian with unit variance; a reader
observes z plus Gaussian noise and compares it with two thresholds. Thresholds and correlations are chosen so
that the labels have the frequencies and rank correlations of the RSNA 2024 tables. Because z is known,
P(grade | z) is known too. No model that sees only the images can be expected to score better, so the best
possible score can be computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import (
    MISSING_LABEL,
    NUM_FINDINGS,
    NUM_LEVELS,
    NUM_SEVERITIES,
    Condition,
)

Array = NDArray[np.float64]

#: Normal/Mild, Moderate, Severe, missing among the 1,975 studies of the RSNA 2024 `train.csv`,
#: for each condition from L1/L2 to L5/S1.
LABEL_COUNTS: Mapping[Condition, tuple[tuple[int, int, int, int], ...]] = {
    Condition.SPINAL_CANAL_STENOSIS: (
        (1886, 67, 21, 1),
        (1770, 151, 53, 1),
        (1622, 230, 122, 1),
        (1482, 237, 255, 1),
        (1904, 51, 19, 1),
    ),
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: (
        (1908, 63, 2, 2),
        (1791, 171, 11, 2),
        (1522, 411, 40, 2),
        (1204, 629, 140, 2),
        (1247, 520, 206, 2),
    ),
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: (
        (1891, 63, 13, 8),
        (1793, 168, 6, 8),
        (1512, 414, 41, 8),
        (1208, 629, 130, 8),
        (1281, 496, 190, 8),
    ),
    Condition.LEFT_SUBARTICULAR_STENOSIS: (
        (1690, 93, 28, 164),
        (1555, 255, 83, 82),
        (1324, 454, 194, 3),
        (887, 624, 461, 3),
        (1408, 409, 147, 11),
    ),
    Condition.RIGHT_SUBARTICULAR_STENOSIS: (
        (1680, 110, 24, 161),
        (1577, 243, 73, 82),
        (1322, 454, 197, 2),
        (891, 622, 460, 2),
        (1399, 396, 173, 7),
    ),
}

#: Reader noise in units of z's standard deviation. Chosen so that the best possible competition
#: score is 45% of that of the weighted condition-by-level prior (a test measures it).
READER_NOISE_SD = 0.45

# Correlations of the LATENT severity. They exceed the rank correlations of the grades, because two
# cuts through a Gaussian lose information; these values give the graded Spearman figures of the
# profile: foramina .36, subarticular .56, canal with subarticular .58, neighbouring canals .40.
# Order: canal, left foramen, right foramen, left subarticular, right subarticular.
_CONDITION_CORRELATION = np.array(
    [
        [1.00, 0.30, 0.30, 0.79, 0.79],
        [0.30, 1.00, 0.50, 0.33, 0.28],
        [0.30, 0.50, 1.00, 0.28, 0.33],
        [0.79, 0.33, 0.28, 1.00, 0.69],
        [0.79, 0.28, 0.33, 0.69, 1.00],
    ]
)
_NEIGHBOUR_LEVEL_CORRELATION = 0.60


@dataclass(frozen=True)
class GradedSeverity:
    """Latent severity and grades of a number of studies.

    Attributes:
        latent: z, float64 [study, 25], in the order of `FINDINGS`.
        labels: grades, int64 [study, 25], `MISSING_LABEL` for ungraded findings.
    """

    latent: Array
    labels: NDArray[np.int64]


def _correlation() -> Array:
    """Returns the latent correlation of the 25 findings, [25, 25].

    A Kronecker product of two correlation matrices is a correlation matrix.
    """
    level = np.arange(NUM_LEVELS)
    levels = _NEIGHBOUR_LEVEL_CORRELATION ** np.abs(level[:, None] - level[None, :])
    return np.kron(_CONDITION_CORRELATION, levels)


def label_frequencies() -> Array:
    """Returns P(grade | graded) of each finding in the RSNA data, float64 [25, 3].

    >>> label_frequencies().sum(axis=1).round(9).tolist() == [1.0] * 25
    True
    """
    counts = np.array([LABEL_COUNTS[condition] for condition in Condition], float)
    graded = counts.reshape(NUM_FINDINGS, NUM_SEVERITIES + 1)[:, :NUM_SEVERITIES]
    return graded / graded.sum(axis=1, keepdims=True)


def missing_rates() -> Array:
    """Returns the fraction of studies without a grade for each finding in the RSNA data, float64 [25]."""
    counts = np.array([LABEL_COUNTS[condition] for condition in Condition], float)
    counts = counts.reshape(NUM_FINDINGS, NUM_SEVERITIES + 1)
    return counts[:, -1] / counts.sum(axis=1)


def thresholds() -> Array:
    """Returns the thresholds of z plus reader noise for Moderate and Severe, float64 [25, 2]."""
    # z + noise has variance 1 + sd^2; a frequency is a quantile of that.
    scale = np.sqrt(1 + READER_NOISE_SD**2)
    frequencies = label_frequencies()
    below = np.stack([frequencies[:, 0], frequencies[:, :2].sum(axis=1)], axis=1)
    return scale * np.vectorize(NormalDist().inv_cdf)(below)


def relative_severity(latent: Array) -> Array:
    """Scales z so that a reader without noise grades Moderate from 0 and Severe from 1.

    Args:
        latent: z, float64 [..., 25].

    Returns:
        float64 [..., 25], unbounded.
    """
    cuts = thresholds()
    return (latent - cuts[:, 0]) / (cuts[:, 1] - cuts[:, 0])


def grade_probabilities(latent: Array) -> Array:
    """Returns P(grade | z), the best possible calibrated prediction.

    Args:
        latent: z, float64 [..., 25].

    Returns:
        float64 [..., 25, 3], with rows that sum to 1.

    >>> grade_probabilities(np.zeros(25)).sum(axis=-1).round(9).tolist() == [1.0] * 25
    True
    """
    cuts = (thresholds() - latent[..., None]) / READER_NOISE_SD
    below = np.vectorize(NormalDist().cdf)(cuts)
    edges = np.concatenate([np.zeros_like(below[..., :1]), below, np.ones_like(below[..., :1])], axis=-1)
    return np.diff(edges, axis=-1)


def draw_severity(num_studies: int, *, shift: float, rng: np.random.Generator) -> GradedSeverity:
    """Draws severities and their grades.

    Args:
        num_studies: number of studies.
        shift: value added to every z; 0 gives the frequencies of the RSNA data, 0.5 a more severe cohort.
        rng: random generator.

    Returns:
        Latent severities and grades, some of them missing as in the RSNA data.
    """
    root = np.linalg.cholesky(_correlation())
    latent = rng.standard_normal((num_studies, NUM_FINDINGS)) @ root.T + shift
    # One reader grades a whole study, so the errors are correlated like the findings themselves.
    noise = READER_NOISE_SD * rng.standard_normal((num_studies, NUM_FINDINGS)) @ root.T
    seen = latent + noise
    labels = (seen[..., None] > thresholds()).sum(axis=-1).astype(np.int64)
    missing = rng.random(labels.shape) < missing_rates()
    return GradedSeverity(latent=latent, labels=np.where(missing, MISSING_LABEL, labels))
