"""Intervals by resampling studies: the findings of one study are not independent of each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: A figure, or several at once, of the studies with some indices, repeats included.
Statistic = Callable[[NDArray[np.intp]], Floats]

#: The same for several resamples at once: takes how often each holds each study, float64
#: [num_resamples, num_studies], and returns float64 [num_resamples, num_figures].
CountStatistic = Callable[[Floats], Floats]

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
#: Resamples that are worked on at once: memory does not grow with their number, and of 1,975 studies arrays
#: of twice as many no longer fit the caches.
_BLOCK = 25


@dataclass(frozen=True)
class Interval:
    """A figure and its percentile interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def bootstrap(
    statistic: Statistic,
    num_studies: int,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[Interval]:
    """Returns the percentile interval of each figure that `statistic` gives.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Resamples in which a
    figure is NaN (a class that was not drawn) do not count for it.

    Args:
        statistic: takes study indices, int [num_studies], and returns float64 [num_figures].
        num_studies: number of studies to resample.
        seed: the same seed draws the same resamples, so figures from two calls are paired.
        num_resamples: how many.
        confidence: between 0 and 1.

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
    """Yields how often each resample holds each study, some resamples at a time.

    They are the resamples that `bootstrap` draws with the same seed, so that figures of both are paired.

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
    """Returns what `bootstrap` would, for figures that can be had for many resamples at once.

    A figure that is a ratio of sums over studies is one matrix product for a block of resamples, which is
    what makes thousands of figures of thousands of studies a matter of seconds.

    >>> data = np.array([1.0, 2.0, 3.0])
    >>> bootstrap_counts(lambda counts: counts @ data[:, None] / 3, 3)[0].value
    2.0
    """
    from threadpoolctl import threadpool_limits

    blocks = resample_counts(num_studies, seed=seed, num_resamples=num_resamples)
    # The products are small: threads that wait for each other cost more than they save, and on a machine
    # with other work they cost ten times as much.
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
    """Returns intervals of first - second, both taken on the same resamples.

    Args:
        first: as `bootstrap`'s statistic.
        second: gives the same figures of another model on the same studies.
        num_studies: number of studies to resample.
        seed: of the resamples.
        num_resamples: how many.
    """

    def difference(indices: NDArray[np.intp]) -> Floats:
        return first(indices) - second(indices)

    return bootstrap(difference, num_studies, seed=seed, num_resamples=num_resamples)
