import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.member_variance import fit_log_variance
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.tables.out_of_fold import Members
from tests.ensemble.synthetic_members import make_members


@pytest.mark.parametrize(("freedom", "worth"), [(1, 12.0), (2, 8.0), (6, 30.0)])
def test_log_variance_and_degrees_of_freedom_are_recovered(freedom: int, worth: float) -> None:
    """Variances drawn as the model says: an inverse chi-square about exp(trend), a chi-square about that."""
    generator = np.random.default_rng(freedom)
    odds = generator.normal(-2.0, 2.0, 40_000)
    coefficients = np.array([-1.0, 0.2, 0.05])
    true = np.exp(coefficients[0] + coefficients[1] * odds + coefficients[2] * odds**2)
    true = true * worth / generator.chisquare(worth, odds.size)
    found, bounds, measured = fit_log_variance(
        odds, true * generator.chisquare(freedom, odds.size) / freedom, freedom
    )
    at = np.linspace(-5.0, 1.0, 7)
    expected = coefficients @ np.stack([np.ones(7), at, at**2])
    assert_allclose(found @ np.stack([np.ones(7), at, at**2]), expected, atol=0.15)
    assert worth / 1.6 < measured < worth * 1.6
    assert_allclose(bounds, np.quantile(odds, (0.01, 0.99)))


def test_equal_variances_have_many_degrees_of_freedom_and_zeros_none() -> None:
    generator = np.random.default_rng(0)
    odds = generator.normal(size=20_000)
    assert fit_log_variance(odds, generator.chisquare(2, odds.size) / 2, 2)[2] > 50
    assert fit_log_variance(odds, np.zeros_like(odds), 2)[2] == 0.0


@pytest.mark.slow
def test_a_systematic_difference_is_bias_and_not_variance() -> None:
    members, labels, folds = make_members(80, 3, 5)
    habitual = members.probabilities.copy()
    logits = 1.8 * np.log(habitual[1]) + np.array([0.0, 0.4, 0.9])
    habitual[1] = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    stacker = StackerFitter(Members(members.names, members.sources, habitual), labels, folds).fit()
    for part in stacker.families:
        assert part.member_variance is not None
        # Against the mean of three, a member 1.8 times as sharp is 1.8 / mean(1, 1.8, 1) - 1 = 0.42 sharper.
        sharper = part.member_variance.bias[-1, 1, :, 1:]
        own = np.diag(sharper) - sharper.sum(axis=1) / 3
        assert (own > 0.1).all()
        tilt = part.member_variance.bias[-1, 1, :, 0]
        assert tilt[0] < tilt[1] < tilt[2]


@pytest.mark.slow
def test_a_pattern_with_few_rows_is_not_measured() -> None:
    members, labels, folds = make_members(15, 2, 0)
    stacker = StackerFitter(members, labels, folds).fit()
    for part in stacker.families:
        assert part.member_variance is not None
        # 15 studies have 75 canal findings, and 150 of each of the two families with sides.
        is_measured = (part.member_variance.freedom[-1] > 0).all()
        assert is_measured == (part.family.value != "canal")
        # A pattern of one member has no spread to measure.
        assert (part.member_variance.freedom[:-1] == 0).all() and (part.member_variance.bias[:-1] == 0).all()
