import numpy as np
import pytest
from sklearn.metrics import recall_score

from lumbar_tf.evaluation.operating_points import OPERATING_POINTS, OperatingPoint, Target


def test_the_points_are_those_that_the_documents_name() -> None:
    found = [(point.name, point.target, point.threshold) for point in OPERATING_POINTS]
    assert found == [
        ("not_normal_most_probable", Target.NOT_NORMAL, None),
        ("not_normal_half", Target.NOT_NORMAL, 0.5),
        ("severe_most_probable", Target.SEVERE, None),
        ("severe_fifth", Target.SEVERE, 0.2),
    ]


@pytest.mark.parametrize(
    ("point", "cost_of_a_miss"), [(OPERATING_POINTS[1], 1.0), (OPERATING_POINTS[3], 4.0)]
)
def test_each_threshold_minimises_its_stated_cost(point: OperatingPoint, cost_of_a_miss: float) -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1.2, 0.8, 0.6], 200_000)
    # Labels drawn from the probabilities: they are calibrated.
    grades = (generator.random((200_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    is_met, chance = point.target.is_met(grades), point.target.probability(probabilities)

    def cost(threshold: float) -> float:
        says_yes = chance >= threshold
        return float((is_met & ~says_yes).sum() * cost_of_a_miss + (~is_met & says_yes).sum())

    assert point.threshold is not None
    assert cost(point.threshold) < min(cost(point.threshold - 0.05), cost(point.threshold + 0.05))


def test_the_most_probable_grade_answers_both_questions() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25], [0.2, 0.45, 0.35], [0.1, 0.4, 0.5]])
    said = {point.name: point.is_predicted(probabilities).tolist() for point in OPERATING_POINTS}
    # The first is probably not normal, but no grade is more probable than Normal/Mild.
    assert said["not_normal_most_probable"] == [False, True, True]
    assert said["not_normal_half"] == [True, True, True]
    assert said["severe_most_probable"] == [False, False, True]
    assert said["severe_fifth"] == [True, True, True]
    grades = np.array([1, 1, 2])
    assert recall_score(Target.NOT_NORMAL.is_met(grades), said["not_normal_most_probable"]) == pytest.approx(
        2 / 3
    )
