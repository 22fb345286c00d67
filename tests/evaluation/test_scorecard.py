import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.evaluated_table import unweighted
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, competition_score, condition_level_prior
from lumbar_tf.evaluation.scorecard import evaluate_table, score_row, scorecard_json
from lumbar_tf.labels import FINDINGS


def _table(seed: int = 0, num_studies: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that know something."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size=(num_studies, 25), p=[0.7, 0.2, 0.1])
    logits = np.eye(3)[labels] * 1.5 + generator.normal(size=(num_studies, 25, 3)) + np.log([0.7, 0.4, 0.4])
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=-1, keepdims=True)


def test_scores_lie_in_their_intervals_and_good_predictions_beat_the_prior() -> None:
    labels, probabilities = _table()
    card = evaluate_table(labels, probabilities, num_resamples=200)
    score = competition_score(labels, probabilities)
    for name in SCORE_FIGURES:
        assert card.scores[name].value == pytest.approx(getattr(score, name))
        assert card.scores[name].low < card.scores[name].value < card.scores[name].high
        assert card.difference[name].value == pytest.approx(card.scores[name].value - card.prior[name].value)
    assert card.difference["foraminal"].high < 0


def test_the_seed_decides_every_interval_and_no_value() -> None:
    labels, probabilities = _table()
    first, again, other = (
        json.dumps(scorecard_json(evaluate_table(labels, probabilities, seed=seed, num_resamples=30)))
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert (
        json.loads(first)["findings"][4]["auc_severe"]["value"]
        == (json.loads(other)["findings"][4]["auc_severe"]["value"])
    )


def test_the_prior_does_not_beat_itself() -> None:
    labels, _ = _table()
    prior = np.broadcast_to(condition_level_prior(labels), (60, 25, 3))
    card = evaluate_table(labels, prior, num_resamples=20)
    assert all(
        interval.value == interval.low == interval.high == 0.0 for interval in card.difference.values()
    )


def test_cells_hold_all_labels_once() -> None:
    labels, probabilities = _table()
    labels[3, 7] = -1
    card = evaluate_table(labels, probabilities, num_resamples=20)
    assert [cell.name for cell in card.findings] == [finding.name for finding in FINDINGS]
    for cells in (card.families, card.conditions, card.findings):
        assert sum(sum(cell.counts) for cell in cells) == 60 * 25 - 1
    assert card.families[1].metrics["log_loss"].value == pytest.approx(
        competition_score(labels, probabilities).foraminal
    )


def test_json_has_the_terms_at_the_top_and_no_nan() -> None:
    labels, probabilities = _table()
    labels[:, 5:] = -1
    content = json.loads(json.dumps(scorecard_json(evaluate_table(labels, probabilities, num_resamples=20))))
    assert set(content["score"]) == {"value", "low", "high"}
    assert content["foraminal"]["value"] is None
    assert content["missing_terms"] == ["foraminal", "subarticular"]
    assert content["floors"]["uniform"]["canal"] == pytest.approx(math.log(3))
    json.dumps(content, allow_nan=False)


def test_the_weights_of_the_competition_head_are_removed_except_for_log_losses() -> None:
    labels, probabilities = _table()
    weighted = probabilities * np.array([1, 2, 4])
    weighted /= weighted.sum(axis=-1, keepdims=True)
    plain = evaluate_table(labels, probabilities, num_resamples=5)
    card = evaluate_table(labels, weighted, head=Head.COMPETITION, num_resamples=5)
    assert card.scores["score"].value == pytest.approx(competition_score(labels, weighted).score)
    for one, other in zip(card.findings, plain.findings, strict=True):
        for name in ("brier", "kappa", "auc_severe", "auc_not_normal", "calibration_error"):
            assert one.metrics[name].value == pytest.approx(other.metrics[name].value)
        assert one.metrics["log_loss"].value != pytest.approx(other.metrics["log_loss"].value)
    assert_allclose(unweighted(weighted), probabilities)


def test_unanswered_labels_are_counted_and_left_out() -> None:
    labels, probabilities = _table()
    probabilities[:10] = np.nan
    row = score_row("partial", labels, probabilities)
    assert row.num_unanswered == 250
    assert row.score == competition_score(labels[10:], probabilities[10:])
    assert evaluate_table(labels, probabilities, num_resamples=20).num_unanswered == 250


def test_no_common_finding_is_refused() -> None:
    labels, probabilities = _table()
    with pytest.raises(ValueError, match="none in 60 studies"):
        evaluate_table(np.full_like(labels, -1), probabilities)
