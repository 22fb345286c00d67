import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.candidates import CANDIDATES, Candidate, Rows, choose, choose_heads, fit_candidate
from lumbar_tf.ensemble.stacking import Head


def _rows(num_rows: int = 400, num_members: int = 2, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, num_rows)
    features = np.eye(3)[labels][:, None] + generator.normal(size=(num_rows, num_members, 3))
    studies = np.arange(num_rows) // 5
    return Rows(
        features=features - features.mean(axis=-1, keepdims=True),
        levels=np.arange(num_rows) % 5,
        labels=labels,
        studies=studies,
        folds=studies % 5,
        patterns=np.ones(num_rows, np.int64),
    )


def test_a_later_candidate_must_gain_more_than_noise() -> None:
    first, second = Candidate(25.0), Candidate(5.0)
    generator = np.random.default_rng(0)
    losses, studies = generator.normal(size=400), np.repeat(np.arange(100), 4)
    noisy = {first: losses, second: losses + 0.3 * generator.normal(size=400) + 0.01}
    better = {first: losses, second: losses - 0.05}
    assert choose(noisy, np.ones(400), studies) is first
    assert choose(better, np.ones(400), studies) is second


@pytest.mark.parametrize("candidate", CANDIDATES[Head.COMPETITION])
def test_without_rows_every_candidate_is_the_plain_mean(candidate: Candidate) -> None:
    matrices, bias = fit_candidate(_rows(0, num_members=4), candidate)
    assert_allclose(matrices, np.broadcast_to(np.eye(3) / 4, (4, 3, 3)), atol=1e-12)
    assert_allclose(bias, np.zeros((5, 3)), atol=1e-12)


def test_an_infinite_ridge_on_deviations_is_the_scaled_mean() -> None:
    rows = _rows()
    matrices, bias = fit_candidate(rows, Candidate(25.0))
    shrunk, shrunk_bias = fit_candidate(rows, Candidate(25.0, 1e9))
    assert_allclose(matrices[0], matrices[1])
    assert_allclose(shrunk, matrices, atol=1e-5)
    assert_allclose(shrunk_bias, bias, atol=1e-5)


def test_rows_of_one_fold_leave_the_default() -> None:
    rows = _rows()
    alone = rows.where(rows.folds == 0)
    assert choose_heads(alone) == {head: CANDIDATES[head][0] for head in Head}
