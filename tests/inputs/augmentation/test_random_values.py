from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from lumbar_tf.inputs.augmentation.random_values import (
    RandomStream,
    approximate_normal,
    bernoulli,
    pixel_noise,
    symmetric_beta,
)

Seed = Callable[[int], tf.Tensor]
STREAMS = (RandomStream.MIXUP_RADIUS, RandomStream.MIXUP_ANGLE)


def test_random_streams_are_distinct() -> None:
    # An IntEnum takes a repeated number as an alias and says nothing.
    assert max(Counter(int(stream) for stream in RandomStream.__members__.values()).values()) == 1


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_symmetric_beta_agrees_with_scipy(seed: Seed, alpha: float) -> None:
    # The test's statistic assumes continuous values; at 0.1 many are 0 or 1 to float32, so bins are counted.
    values = symmetric_beta(seed(3), STREAMS, alpha, (20_000,)).numpy()
    assert np.isfinite(values).all()
    edges = np.linspace(0, 1, 11)
    expected = np.diff(stats.beta(alpha, alpha).cdf(edges)) * len(values)
    found = np.histogram(values, edges)[0]
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-3


def test_bernoulli_with_probability_zero_and_one(seed: Seed) -> None:
    assert not bernoulli(seed(0), RandomStream.CUTOUT_APPLIED, 0.0, (1000,)).numpy().any()
    assert bernoulli(seed(0), RandomStream.CUTOUT_APPLIED, 1.0, (1000,)).numpy().all()


def test_approximate_normal_is_a_sum_of_four_uniform_integers(seed: Seed) -> None:
    values = approximate_normal(seed(5), RandomStream.NOISE, (40, 5, 50, 50)).numpy().ravel()
    count = len(values)
    assert values.dtype == np.float32
    # Five standard errors each.
    assert abs(values.mean()) < 5 / np.sqrt(count)
    assert abs(values.std() - 1) < 5 * np.sqrt((2 - 0.303) / 4 / count)
    assert abs(stats.skew(values)) < 5 * np.sqrt(6 / count)
    assert abs(stats.kurtosis(values) + 0.303) < 5 * np.sqrt(24 / count)
    die = np.full(16, 1 / 16)
    expected = np.convolve(np.convolve(die, die), np.convolve(die, die)) * count
    sums, found = np.unique(np.rint(values * np.sqrt(85) + 30).astype(int), return_counts=True)
    np.testing.assert_allclose(values * np.sqrt(85), np.rint(values * np.sqrt(85)), atol=1e-4)
    common = expected > 10
    assert sums.min() >= 0
    assert sums.max() <= 60
    counts = np.zeros(61)
    counts[sums] = found
    scale = counts[common].sum() / expected[common].sum()
    assert stats.chisquare(counts[common], expected[common] * scale).pvalue > 1e-3
    # Beyond two and three deviations: 0.0426 and 0.0008 by the convolution (a normal has 0.0455 and 0.0027).
    for limit in (2, 3):
        outside = expected[np.abs(np.arange(61) - 30) > limit * np.sqrt(85)].sum() / count
        assert abs((np.abs(values) > limit).mean() - outside) < 5 * np.sqrt(outside / count)


def test_approximate_normal_values_are_independent_and_reproducible(seed: Seed) -> None:
    values = approximate_normal(seed(5), RandomStream.NOISE, (3, 333, 333)).numpy()
    for axis, step in ((2, 1), (2, 2), (1, 1), (0, 1)):
        moved = np.roll(values, step, axis)
        assert abs(np.mean(values * moved)) < 5 / np.sqrt(values.size)
        assert abs(np.mean(np.square(values) * np.square(moved)) - 1) < 5 * 1.7 / np.sqrt(values.size)
    np.testing.assert_array_equal(values, approximate_normal(seed(5), RandomStream.NOISE, (3, 333, 333)))
    assert abs(
        np.mean(values * approximate_normal(seed(6), RandomStream.NOISE, (3, 333, 333)))
    ) < 5 / np.sqrt(values.size)


@pytest.mark.parametrize("shape", [(1,), (2, 3, 5), (0, 4)])
def test_approximate_normal_has_any_shape_also_under_xla(seed: Seed, shape: tuple[int, ...]) -> None:
    assert approximate_normal(seed(1), RandomStream.NOISE, shape).shape == shape
    compiled = tf.function(
        lambda number: approximate_normal(number, RandomStream.NOISE, shape), jit_compile=True
    )
    assert compiled(seed(1)).shape == shape


def test_pixel_noise_is_a_section_of_normal_values_that_depends_on_the_seed(seed: Seed) -> None:
    shape = (3, 333, 333)
    values = pixel_noise(seed(5), RandomStream.NOISE, shape).numpy()
    np.testing.assert_array_equal(values, pixel_noise(seed(5), RandomStream.NOISE, shape))
    other = pixel_noise(seed(6), RandomStream.NOISE, shape).numpy()
    limit = 5 / np.sqrt(values.size)
    for name, found in (("seeds", values * other), ("neighbours", values * np.roll(values, 1, 2))):
        assert abs(found.mean()) < limit, name
    assert abs(values.mean()) < limit
    assert abs(values.std() - 1) < limit


def test_pixel_noise_of_any_size_is_the_same_inside_a_dataset(seed: Seed) -> None:
    for shape in ((0, 4), (7,), (2, 1024, 1024)):
        outside = pixel_noise(seed(1), RandomStream.NOISE, shape)
        dataset = tf.data.Dataset.from_tensors(seed(1)).map(
            lambda number, shape=shape: pixel_noise(number, RandomStream.NOISE, shape)
        )
        (inside,) = dataset
        np.testing.assert_array_equal(inside, outside)
        assert dataset.element_spec.shape == shape
        assert shape == (0, 4) or len(np.unique(outside)) > 4
