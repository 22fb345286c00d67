import numpy as np
import pytest
from scipy.stats import spearmanr

from lumbar_tf.evaluation.metrics import (
    SEVERITY_WEIGHTS,
    condition_level_prior,
    family_rows,
    weighted_log_loss,
)
from lumbar_tf.labels import MISSING_LABEL, Condition, Family, Level, Severity, finding_index
from lumbar_tf.synthetic import severity

CANAL = Condition.SPINAL_CANAL_STENOSIS
LEFT_FORAMEN = Condition.LEFT_NEURAL_FORAMINAL_NARROWING
RIGHT_FORAMEN = Condition.RIGHT_NEURAL_FORAMINAL_NARROWING
LEFT_RECESS = Condition.LEFT_SUBARTICULAR_STENOSIS
RIGHT_RECESS = Condition.RIGHT_SUBARTICULAR_STENOSIS


@pytest.fixture(scope="module")
def many() -> severity.GradedSeverity:
    return severity.draw_severity(20_000, shift=0.0, rng=np.random.default_rng(1))


@pytest.mark.parametrize(
    ("condition", "level", "moderate", "severe"),
    # Counts among the graded studies of the competition's table, copied independently.
    [
        (CANAL, Level.L4_L5, 237 / 1974, 255 / 1974),
        (CANAL, Level.L1_L2, 67 / 1974, 21 / 1974),
        (LEFT_FORAMEN, Level.L5_S1, 520 / 1973, 206 / 1973),
        (RIGHT_FORAMEN, Level.L2_L3, 168 / 1967, 6 / 1967),
        (LEFT_RECESS, Level.L4_L5, 624 / 1972, 461 / 1972),
        (RIGHT_RECESS, Level.L5_S1, 396 / 1968, 173 / 1968),
    ],
)
def test_label_frequencies_are_those_of_the_competition(
    many: severity.GradedSeverity, condition: Condition, level: Level, moderate: float, severe: float
) -> None:
    labels = many.labels[:, finding_index(condition, level)]
    graded = labels[labels != MISSING_LABEL]
    assert (graded == Severity.MODERATE).mean() == pytest.approx(moderate, abs=0.012)
    assert (graded == Severity.SEVERE).mean() == pytest.approx(severe, abs=0.012)


def test_missing_labels_are_the_upper_subarticular_ones(many: severity.GradedSeverity) -> None:
    missing = (many.labels == MISSING_LABEL).mean(axis=0)
    assert missing[finding_index(LEFT_RECESS, Level.L1_L2)] == pytest.approx(164 / 1975, abs=0.01)
    assert missing[finding_index(CANAL, Level.L1_L2)] < 0.003


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((LEFT_FORAMEN, Level.L4_L5), (RIGHT_FORAMEN, Level.L4_L5), 0.36),
        ((LEFT_RECESS, Level.L4_L5), (RIGHT_RECESS, Level.L4_L5), 0.56),
        ((CANAL, Level.L4_L5), (LEFT_RECESS, Level.L4_L5), 0.58),
        ((CANAL, Level.L3_L4), (CANAL, Level.L4_L5), 0.40),
    ],
)
def test_labels_have_the_rank_correlations_of_the_competition(
    many: severity.GradedSeverity,
    first: tuple[Condition, Level],
    second: tuple[Condition, Level],
    expected: float,
) -> None:
    columns = many.labels[:, [finding_index(*first), finding_index(*second)]]
    both = (columns != MISSING_LABEL).all(axis=1)
    assert spearmanr(columns[both]).statistic == pytest.approx(expected, abs=0.04)


def test_probabilities_equal_the_observed_frequencies(many: severity.GradedSeverity) -> None:
    probabilities = severity.grade_probabilities(many.latent)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1)
    column = finding_index(LEFT_RECESS, Level.L4_L5)
    graded = many.labels[:, column] != MISSING_LABEL
    for grade in Severity:
        said = probabilities[graded, column, grade]
        happened = many.labels[graded, column] == grade
        for low in (0.1, 0.4, 0.7):
            chosen = (said > low) & (said < low + 0.2)
            assert happened[chosen].mean() == pytest.approx(said[chosen].mean(), abs=0.04)


def test_the_best_possible_score_is_between_40_and_50_percent_of_the_prior(
    many: severity.GradedSeverity,
) -> None:
    weighted = severity.grade_probabilities(many.latent) * SEVERITY_WEIGHTS
    competition = weighted / weighted.sum(axis=-1, keepdims=True)
    prior = np.broadcast_to(condition_level_prior(many.labels), competition.shape)
    losses = {}
    for family in Family:
        rows = family_rows(family)
        losses[family] = [
            weighted_log_loss(many.labels[:, rows], predictions[:, rows])
            for predictions in (competition, prior)
        ]
    best_total, prior_total = np.sum(list(losses.values()), axis=0)
    assert 0.40 < best_total / prior_total < 0.50
    assert all(best < prior for best, prior in losses.values())


def test_a_shift_raises_severities_and_keeps_the_probabilities_exact() -> None:
    sick = severity.draw_severity(5_000, shift=0.45, rng=np.random.default_rng(2))
    graded = sick.labels != MISSING_LABEL
    assert (sick.labels[graded] == Severity.SEVERE).mean() == pytest.approx(0.12, abs=0.015)
    expected = severity.grade_probabilities(sick.latent)[..., Severity.SEVERE][graded].mean()
    assert (sick.labels[graded] == Severity.SEVERE).mean() == pytest.approx(expected, abs=0.005)
