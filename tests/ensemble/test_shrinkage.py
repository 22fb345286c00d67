import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.candidates import Fit, Rows
from lumbar_tf.ensemble.shrinkage import (
    Sharpening,
    Shrinkage,
    canal_losses,
    choose_share,
    find_shrinkage,
    fit_sharpening,
)
from lumbar_tf.evaluation.metrics import competition_score
from lumbar_tf.labels import Family


def _rows(num_studies: int, *, noise: float, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Rows whose labels follow the mean of two members exactly, and logits that are `noise` off it."""
    generator = np.random.default_rng(seed)
    studies = np.repeat(np.arange(num_studies), 5)
    mean = 1.5 * generator.normal(size=(len(studies), 3)) + np.log([0.8, 0.13, 0.07])
    labels = (mean + generator.gumbel(size=mean.shape)).argmax(axis=1)
    weighted = mean + np.log([1.0, 2.0, 4.0])
    weighted -= weighted.mean(axis=1, keepdims=True)
    rows = Rows(
        features=np.stack([weighted, weighted], axis=1),
        context=np.zeros((len(studies), 5, 3)),
        levels=np.tile(np.arange(5), num_studies),
        labels=labels,
        studies=studies,
        folds=studies % 5,
    )
    return rows, weighted + noise * generator.normal(size=weighted.shape)


@pytest.mark.parametrize("family", [Family.FORAMINAL, Family.CANAL])
def test_a_noisy_fit_gets_a_small_share(family: Family) -> None:
    shares = [find_shrinkage(family, *_rows(200, noise=0.5, seed=seed)).share for seed in range(5)]
    assert np.mean(shares) < 0.2


@pytest.mark.parametrize("family", list(Family))
def test_a_better_fit_gets_a_large_share(family: Family) -> None:
    rows, logits = _rows(300, noise=0.0)
    wrong = Rows(
        rows.features * 2.5, rows.context, rows.levels, rows.labels, rows.studies, rows.folds
    )  # twice too sure of themselves
    assert find_shrinkage(family, wrong, logits).share > 0.85


def test_a_more_significant_improvement_gets_a_larger_share() -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(400, 1))

    def share_of(gain: float) -> float:
        """Losses (share - 1)^2 * gain, and a study's luck in proportion to the share."""
        return choose_share(
            np.zeros((400, 3)),
            np.ones((400, 3)),
            lambda logits: gain * (logits[:, 0] - 1) ** 2 + logits[:, 0] * (noise - noise.mean())[:, 0],
        )

    shares = [share_of(gain) for gain in (0.0, 0.01, 0.03, 0.1, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0 and 0.0 < shares[2] < 0.9 and shares[-1] >= 0.95


def test_a_share_is_combined_with_the_plain_mean() -> None:
    generator = np.random.default_rng(2)
    fit = Fit(generator.normal(size=(2, 3, 3)), generator.normal(size=(5, 3)), np.zeros((5, 3, 3)))
    rows, _ = _rows(4, noise=0.0)
    shrunk = Shrinkage(0.3, Sharpening(1.2, 0.1, 0.2)).apply(fit).logits(rows)
    expected = 0.3 * (1.2 * fit.logits(rows) + [0.0, 0.1, 0.2]) + 0.7 * rows.features.mean(axis=1)
    assert_allclose(shrunk, expected)


def test_descriptions_state_the_shrinkage() -> None:
    assert Shrinkage().description == ""
    assert Shrinkage(0.75).description == "; 25% plain mean"
    assert Shrinkage(0.0, Sharpening(1.1)).description == "; no gain is sure: plain mean"
    assert Shrinkage(0.5, Sharpening(1.1)).description.startswith(", for any severe: scale 1.100")


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _canal(num_studies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [num_studies, 5, 3] and labels, -1 where missing; weights 1, 2, 4 are in the logits."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num_studies, 5, 3)) * 1.5 + np.log([0.8, 0.13, 0.07])
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=-1)
    labels[generator.random(labels.shape) < 0.05] = -1
    labels[:, 0] = np.maximum(labels[:, 0], 0)
    return logits + np.log([1.0, 2.0, 4.0]), labels


def test_the_sum_over_studies_is_the_scores_two_terms() -> None:
    logits, labels = _canal(200)
    table, all_labels = np.full((200, 25, 3), 1 / 3), np.full((200, 25), -1)
    table[:, :5], all_labels[:, :5] = _softmax(logits), labels
    score = competition_score(all_labels, table)
    known = labels >= 0
    places = np.nonzero(known)[0]
    found = canal_losses(logits[known], labels[known], places)
    assert found.shape == (200,)
    assert_allclose(found.sum(), score.canal + score.any_severe_spinal)


def _sharpening_rows(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    known = labels >= 0
    studies = np.nonzero(known)[0]
    return logits[known], labels[known], studies, studies % 5


def test_sharpening_recovers_distorted_logits() -> None:
    logits, labels = _canal(1500)
    spoilt = _sharpening_rows((logits - np.array([0.0, 0.0, 1.0])) / 0.6, labels)
    found, held_out = fit_sharpening(*spoilt)
    assert found.scale == pytest.approx(0.6, abs=0.12)
    assert found.severe > 0.3
    fit = Fit(np.eye(3)[None], np.zeros((5, 3)), np.zeros((5, 3, 3)))
    mended = found.apply(fit)
    after = spoilt[0] @ mended.weights[0].T + mended.bias[0]
    before = canal_losses(*spoilt[:3]).sum()
    assert canal_losses(after, *spoilt[1:3]).sum() < before - 0.05
    assert canal_losses(held_out, *spoilt[1:3]).sum() < before - 0.05


def test_a_fold_is_sharpened_independently_of_its_labels() -> None:
    logits, labels, studies, folds = _sharpening_rows(*_canal(100))
    changed = np.where(folds == 2, 0, labels)
    (_, one), (_, other) = (fit_sharpening(logits, values, studies, folds) for values in (labels, changed))
    assert_allclose(one[folds == 2], other[folds == 2])
    assert np.abs(one - other)[folds != 2].max() > 1e-3


def test_descriptions_have_the_numbers_and_are_empty_for_the_identity() -> None:
    assert Sharpening().description == ""
    assert (
        Sharpening(0.9, 0.0, 0.25).description
        == ", for any severe: scale 0.900, moderate +0.000, severe +0.250"
    )
