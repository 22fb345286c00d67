from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from lumbar_tf.data.augment.draws import Draw, chance, symmetric_beta

Seed = Callable[[int], tf.Tensor]
STREAMS = (Draw.MIXUP_RADIUS, Draw.MIXUP_ANGLE)


def test_no_two_draws_share_a_stream() -> None:
    # An IntEnum takes a repeated number as an alias and says nothing.
    assert max(Counter(int(each) for each in Draw.__members__.values()).values()) == 1


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_shares_are_beta_distributed_as_scipy_has_it(seed: Seed, alpha: float) -> None:
    # The test's statistic assumes continuous values; at 0.1 many are 0 or 1 to float32, so bins are counted.
    values = symmetric_beta(seed(3), STREAMS, alpha, (20_000,)).numpy()
    assert np.isfinite(values).all()
    edges = np.linspace(0, 1, 11)
    expected = np.diff(stats.beta(alpha, alpha).cdf(edges)) * len(values)
    found = np.histogram(values, edges)[0]
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-3


def test_a_chance_of_none_and_of_all(seed: Seed) -> None:
    assert not chance(seed(0), Draw.CUTOUT_CHANCE, 0.0, (1000,)).numpy().any()
    assert chance(seed(0), Draw.CUTOUT_CHANCE, 1.0, (1000,)).numpy().all()
