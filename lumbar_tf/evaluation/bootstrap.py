"""Bootstrap intervals over studies.

Studies are resampled as a whole, because the findings of one study are not independent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.evaluation.metrics import SCORE_FIGURES, StudyTerms

Floats = NDArray[np.float64]
#: Takes the indices of studies, repeats included, intp [num_studies]; returns statistics, float64
#: [num_statistics].
Statistic = Callable[[NDArray[np.intp]], Floats]
#: The same for several resamples at once: takes the number of times that each contains each study, float64
#: [num_resamples, num_studies], and returns float64 [num_resamples, num_statistics].
CountStatistic = Callable[[Floats], Floats]

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
#: Number of resamples in a block: bounds the memory, and with 1,975 studies larger blocks no longer fit the
#: caches.
_BLOCK = 25


@dataclass(frozen=True)
class Interval:
    """A value and its percentile interval; NaN where undefined."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Statistic,
    num_studies: int,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[Interval]:
    """Returns the value and percentile interval of each statistic.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Resamples in which a
    statistic is NaN (a class was not drawn) are left out of its interval.

    Args:
        statistic: takes study indices, int [num_studies], and returns float64 [num_statistics].
        num_studies: number of studies to resample.
        seed: the same seed draws the same resamples, so that two calls are paired.
        num_resamples: number of resamples.
        confidence: coverage of the interval, between 0 and 1.

    >>> data = np.array([1.0, 2.0, 3.0])
    >>> bootstrap(lambda indices: data[indices].mean(keepdims=True), 3)[0].value
    2.0

    Raises:
        ValueError: there is no study, or `confidence` is not between 0 and 1.
    """
    if num_studies < 1 or not 0 < confidence < 1:
        raise ValueError(
            "`num_studies` must be at least 1 and `confidence` between 0 and 1. "
            f"Received: {num_studies} and {confidence}."
        )
    generator = np.random.default_rng(seed)
    values = np.atleast_1d(statistic(np.arange(num_studies)))
    resampled = np.stack(
        [
            np.atleast_1d(statistic(generator.integers(0, num_studies, num_studies)))
            for _ in range(num_resamples)
        ]
    )
    tails = (1 - confidence) / 2
    return [_interval(value, draws, tails) for value, draws in zip(values, resampled.T, strict=True)]


def _interval(value: float, draws: Floats, tails: float) -> Interval:
    defined = draws[~np.isnan(draws)]
    if np.isnan(value) or not defined.size:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(defined, [tails, 1 - tails])
    return Interval(float(value), float(low), float(high))


def resample_counts(
    num_studies: int, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Iterator[Floats]:
    """Yields the number of times that each resample contains each study, in blocks of resamples.

    These are the resamples that `bootstrap` draws with the same seed, so that both are paired.

    Yields:
        float64 [at most 25, num_studies], rows sum to `num_studies`.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, num_resamples, _BLOCK):
        size = min(_BLOCK, num_resamples - start)
        drawn = generator.integers(0, num_studies, (size, num_studies))
        places = drawn + np.arange(size)[:, None] * num_studies
        counts = np.bincount(places.ravel(), minlength=size * num_studies)
        yield counts.reshape(size, num_studies).astype(np.float64)


def bootstrap_counts(
    statistic: CountStatistic,
    num_studies: int,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[Interval]:
    """Returns the same as `bootstrap`, for statistics that are computed for many resamples at once.

    A ratio of sums over studies is one matrix product for a block of resamples, so that thousands of
    statistics of thousands of studies take seconds.

    >>> data = np.array([1.0, 2.0, 3.0])
    >>> bootstrap_counts(lambda counts: counts @ data[:, None] / 3, 3)[0].value
    2.0
    """
    from threadpoolctl import threadpool_limits

    blocks = resample_counts(num_studies, seed=seed, num_resamples=num_resamples)
    # The products are small: waiting for each other costs threads more time than they save, ten times as much
    # on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        values = statistic(np.ones((1, num_studies)))[0]
        draws = np.concatenate([statistic(counts) for counts in blocks])
    tails = (1 - confidence) / 2
    return [_interval(value, column, tails) for value, column in zip(values, draws.T, strict=True)]


def paired_difference(
    first: Statistic,
    second: Statistic,
    num_studies: int,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> list[Interval]:
    """Returns values and intervals of first - second, both computed on the same resamples.

    Args:
        first: statistics of one model, as for `bootstrap`.
        second: the same statistics of another model on the same studies.
        num_studies: number of studies to resample.
        seed: seed of the resamples.
        num_resamples: number of resamples.
    """

    def difference(indices: NDArray[np.intp]) -> Floats:
        return first(indices) - second(indices)

    return bootstrap(difference, num_studies, seed=seed, num_resamples=num_resamples)


def score_intervals(
    terms: StudyTerms, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Interval]:
    """Returns value and interval of the competition's score and its terms, by name.

    Args:
        terms: contributions of the studies.
        seed: seed of the resamples.
        num_resamples: number of resamples.
    """
    intervals = bootstrap(terms.values, len(terms.losses), seed=seed, num_resamples=num_resamples)
    return dict(zip(SCORE_FIGURES, intervals, strict=True))


def score_differences(
    first: StudyTerms, second: StudyTerms, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Interval]:
    """Returns value and interval of first - second of the score and its terms, by name.

    Args:
        first: contributions of the studies to the score of one table.
        second: contributions of the same studies to the score of another table.
        seed: seed of the resamples, which both share.
        num_resamples: number of resamples.
    """
    intervals = paired_difference(
        first.values, second.values, len(first.losses), seed=seed, num_resamples=num_resamples
    )
    return dict(zip(SCORE_FIGURES, intervals, strict=True))
