import numpy as np
from numpy.testing import assert_allclose
from sklearn.metrics import log_loss

from lumbar_tf.ensemble.candidates import CANDIDATES, Candidate, Rows, default_candidates, fit_candidate
from lumbar_tf.ensemble.search import PatternSearch, choose, row_losses
from lumbar_tf.ensemble.stacker import Head


def _rows(num_rows: int = 400, num_folds: int = 5, *, is_noise: bool = False) -> Rows:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, num_rows)
    evidence = np.zeros((num_rows, 1, 3)) if is_noise else np.eye(3)[labels][:, None]
    features = evidence + generator.normal(size=(num_rows, 2, 3))
    studies = np.arange(num_rows) // 5
    return Rows(
        features=features - features.mean(axis=-1, keepdims=True),
        context=np.zeros((num_rows, 5, 3)),
        levels=np.arange(num_rows) % 5,
        labels=labels,
        studies=studies,
        folds=studies % num_folds,
    )


def test_a_later_candidate_must_improve_by_more_than_noise() -> None:
    first, second = Candidate(25.0), Candidate(5.0)
    generator = np.random.default_rng(0)
    losses, studies = generator.normal(size=400), np.repeat(np.arange(100), 4)
    noisy = {first: losses, second: losses + 0.3 * generator.normal(size=400) + 0.01}
    better = {first: losses, second: losses - 0.05}
    assert choose(noisy, np.ones(400), studies) is first
    assert choose(better, np.ones(400), studies) is second


def test_rows_of_one_fold_leave_the_default() -> None:
    search = PatternSearch(_rows())
    assert search.choose_heads(frozenset({1, 2, 3, 4})) == default_candidates()


def test_losses_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    logits, labels = 3 * generator.normal(size=(50, 3)), generator.integers(0, 3, 50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_allclose(row_losses(logits, labels).mean(), log_loss(labels, p, labels=[0, 1, 2]))


def test_held_out_logits_are_independent_of_their_row() -> None:
    rows = _rows(150)
    changed = Rows(
        rows.features,
        rows.context,
        rows.levels,
        np.where(rows.folds == 2, 0, rows.labels),
        rows.studies,
        rows.folds,
    )
    candidate = CANDIDATES[Head.COMPETITION][-1]
    before, after = (
        PatternSearch(part).held_out_logits(frozenset({0}), [candidate])[candidate]
        for part in (rows, changed)
    )
    held_out = rows.folds[rows.folds != 0] == 2
    assert_allclose(before[held_out], after[held_out], atol=1e-12)
    assert np.abs(before - after).max() > 1e-3


def test_many_folds_are_merged_into_groups() -> None:
    rows = _rows(200, num_folds=20)
    search, candidate = PatternSearch(rows), Candidate(25.0)
    logits = search.held_out_logits(frozenset({3}), [candidate])[candidate]
    outside = rows.where(rows.folds != 3)
    mine = np.isin(outside.folds, [0, 6, 11, 16])  # every fifth of those that remain
    expected = fit_candidate(outside.where(~mine), candidate).logits(outside.where(mine))
    assert_allclose(logits[mine], expected, atol=1e-6)
