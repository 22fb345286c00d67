import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.evaluation.bootstrap import bootstrap, bootstrap_counts, paired_difference, resample_counts


def test_interval_of_a_mean_is_that_of_the_normal_theory() -> None:
    data = np.random.default_rng(0).normal(3.0, 2.0, 400)
    (interval,) = bootstrap(lambda indices: data[indices].mean(keepdims=True), 400, num_resamples=4000)
    half_width = 1.96 * data.std() / 20
    assert interval.value == pytest.approx(data.mean())
    assert_allclose(
        [interval.low, interval.high], [data.mean() - half_width, data.mean() + half_width], atol=0.02
    )


def test_intervals_cover_the_truth_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(150):
        data = generator.normal(size=50)
        (interval,) = bootstrap(
            lambda indices, data=data: data[indices].mean(keepdims=True), 50, seed=seed, num_resamples=300
        )
        hits += interval.low <= 0.0 <= interval.high
    assert 0.86 < hits / 150 < 0.99


def test_the_seed_decides_everything() -> None:
    data = np.random.default_rng(0).normal(size=30)

    def mean(indices: np.ndarray) -> np.ndarray:
        return data[indices].mean(keepdims=True)

    assert bootstrap(mean, 30, seed=5) == bootstrap(mean, 30, seed=5)
    assert bootstrap(mean, 30, seed=5) != bootstrap(mean, 30, seed=6)


@pytest.mark.parametrize("num_resamples", [1, 25, 60])
def test_counts_are_those_of_the_same_seeds_resamples(num_resamples: int) -> None:
    drawn: list[np.ndarray] = []

    def remember(indices: np.ndarray) -> np.ndarray:
        drawn.append(np.bincount(indices, minlength=37))
        return np.zeros(1)

    bootstrap(remember, 37, seed=4, num_resamples=num_resamples)
    counts = np.concatenate(list(resample_counts(37, seed=4, num_resamples=num_resamples)))
    # The first call is for the value itself.
    assert (counts == np.array(drawn[1:])).all()


def test_counts_give_the_intervals_that_indices_give() -> None:
    generator = np.random.default_rng(0)
    parts, whole = generator.normal(size=(50, 3)), generator.random((50, 1)) * (np.arange(50) > 47)[:, None]

    def of_counts(counts: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts @ whole > 0, counts @ parts / (counts @ whole), np.nan)

    def of_indices(indices: np.ndarray) -> np.ndarray:
        return of_counts(np.bincount(indices, minlength=50)[None].astype(float))[0]

    for one, other in zip(
        bootstrap_counts(of_counts, 50, seed=9, num_resamples=80),
        bootstrap(of_indices, 50, seed=9, num_resamples=80),
        strict=True,
    ):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_paired_differences_cancel_common_variation() -> None:
    generator = np.random.default_rng(2)
    shared = generator.normal(0, 5, 100)
    first, second = shared + 1.0, shared + generator.normal(0, 0.1, 100)
    (paired,) = paired_difference(
        lambda indices: first[indices].mean(keepdims=True),
        lambda indices: second[indices].mean(keepdims=True),
        100,
    )
    assert 0.9 < paired.low < paired.high < 1.1
    (same,) = paired_difference(
        lambda indices: first[indices].mean(keepdims=True),
        lambda indices: first[indices].mean(keepdims=True),
        100,
    )
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_a_figure_does_not_count_in_resamples_where_it_is_undefined() -> None:
    data = np.array([1.0, np.nan, 1.0, 1.0])
    never, at_times = bootstrap(lambda indices: np.array([np.nan, data[indices[0]]]), 4, num_resamples=50)
    assert math.isnan(never.value) and math.isnan(never.low)
    assert (at_times.value, at_times.low, at_times.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("num_studies", "confidence"), [(0, 0.95), (3, 1.0)])
def test_impossible_requests_are_refused(num_studies: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="Received"):
        bootstrap(lambda indices: np.zeros(1), num_studies, confidence=confidence)
