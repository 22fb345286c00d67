import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from lumbar_tf.evaluation.evaluated_table import EvaluatedTable, worst_cases
from lumbar_tf.labels import FINDINGS, Severity


def test_worst_cases_are_ordered_by_weighted_loss() -> None:
    labels = np.zeros((3, 25), int)
    probabilities = np.full((3, 25, 3), [1.0, 0.0, 0.0])
    labels[0, 4], probabilities[0, 4] = 2, [0.5, 0.2, 0.3]
    labels[1, 7], probabilities[1, 7] = 1, [0.8, 0.15, 0.05]
    labels[2, 9], probabilities[2, 9] = -1, np.nan
    labels[2, 1], probabilities[2, 1] = 0, [0.02, 0.08, 0.9]
    found = worst_cases(["a", "b", "c"], labels, probabilities, num_worst=10)[:3]
    assert [(case.study_id, case.finding, case.label) for case in found] == [
        ("a", FINDINGS[4], Severity.SEVERE),
        ("c", FINDINGS[1], Severity.NORMAL_MILD),
        ("b", FINDINGS[7], Severity.MODERATE),
    ]
    assert [case.cost for case in found] == pytest.approx(
        [-4 * math.log(0.3), -math.log(0.02), -2 * math.log(0.15)]
    )
    assert found[0].predicted == (0.5, 0.2, 0.3)


def test_worst_cases_are_limited_and_have_positive_losses() -> None:
    generator = np.random.default_rng(0)
    labels, probabilities = np.zeros((4, 25), int), generator.dirichlet([1, 1, 1], (4, 25))
    assert len(worst_cases(list("abcd"), labels, probabilities, num_worst=5)) == 5
    assert worst_cases(list("abcd"), np.full((4, 25), -1), probabilities) == ()


def test_the_confusion_matrix_is_scikit_learns_and_zero_without_labels() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(-1, 3, (20, 25))
    labels[:, 5] = -1
    answers = generator.dirichlet([1, 1, 1], (20, 25))
    evaluated = EvaluatedTable(labels, answers, answers)
    known = labels[:, :5] >= 0
    expected = confusion_matrix(labels[:, :5][known], answers[:, :5][known].argmax(axis=1), labels=[0, 1, 2])
    np.testing.assert_array_equal(evaluated.confusion(range(5)), expected)
    assert not evaluated.confusion([5]).any()
