"""What a stacker reads of its members: centred log-probabilities, and which sources are there. NumPy only."""

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.calibration import centred_logs

Floats = NDArray[np.float64]


def answered(probabilities: Floats) -> NDArray[np.bool_]:
    """Returns where all three of a row are finite, bool [...], of probabilities [..., 3]."""
    return np.asarray(np.isfinite(probabilities).all(axis=-1))


def member_features(probabilities: Floats) -> Floats:
    """Returns centred logarithms, 0 where any of the three is missing.

    Args:
        probabilities: float64 [..., 3], NaN where missing.
    """
    finite = np.isfinite(probabilities).all(axis=-1, keepdims=True)
    return np.where(finite, centred_logs(np.where(finite, probabilities, 1.0)), 0.0)


def fill_missing(features: Floats, is_there: NDArray[np.bool_]) -> Floats:
    """Returns x of the module's formula: a missing member says what the others say on average.

    Args:
        features: of `member_features`, a family's members only, float64 [num_members, ..., 3].
        is_there: bool [num_members, ...].
    """
    counts = is_there.sum(axis=0)[..., None]
    return np.where(is_there[..., None], features, features.sum(axis=0) / np.maximum(counts, 1))


def patterns_of(probabilities: Floats, member_sources: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns the pattern of available sources of each row.

    Args:
        probabilities: a family's members, float64 [num_members, ..., 3], NaN where missing.
        member_sources: source index of each member.

    Returns:
        int64 [...]: the sum of 2^k over the sources k with a finite row.

    >>> patterns_of(np.array([[0.2, 0.3, 0.5], [np.nan] * 3, [0.2, 0.3, 0.5]]), (0, 0, 1)).item()
    3
    """
    pattern = np.zeros(probabilities.shape[1:-1], np.int64)
    for member, source in zip(probabilities, member_sources, strict=True):
        pattern |= np.isfinite(member).all(axis=-1).astype(np.int64) << source
    return pattern
