import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.any_severe import Sharpening, canal_losses, fit_sharpening
from lumbar_tf.ensemble.candidates import Fit
from lumbar_tf.evaluation.metrics import competition_score


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


def _rows(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    known = labels >= 0
    studies = np.nonzero(known)[0]
    return logits[known], labels[known], studies, studies % 5


def test_what_was_spoilt_is_mended() -> None:
    logits, labels = _canal(1500)
    spoilt = _rows((logits - np.array([0.0, 0.0, 1.0])) / 0.6, labels)
    found, held_out = fit_sharpening(*spoilt)
    assert found.scale == pytest.approx(0.6, abs=0.12)
    assert found.severe > 0.3
    fit = Fit(np.eye(3)[None], np.zeros((5, 3)), np.zeros((5, 3, 3)))
    mended = found.apply(fit)
    after = spoilt[0] @ mended.weights[0].T + mended.bias[0]
    before = canal_losses(*spoilt[:3]).sum()
    assert canal_losses(after, *spoilt[1:3]).sum() < before - 0.05
    assert canal_losses(held_out, *spoilt[1:3]).sum() < before - 0.05


def test_no_label_of_a_fold_has_a_part_in_how_it_is_sharpened() -> None:
    logits, labels, studies, folds = _rows(*_canal(100))
    changed = np.where(folds == 2, 0, labels)
    (_, one), (_, other) = (fit_sharpening(logits, each, studies, folds) for each in (labels, changed))
    assert_allclose(one[folds == 2], other[folds == 2])
    assert np.abs(one - other)[folds != 2].max() > 1e-3


def test_words_name_the_numbers_and_nothing_where_nothing_is_done() -> None:
    assert Sharpening().words == ""
    assert Sharpening(0.9, 0.0, 0.25).words == ", for any severe: scale 0.900, moderate +0.000, severe +0.250"
