import json

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Condition, Flag, Plane, Severity
from lumbar_tf.monitoring.quantities import measure_answer, measure_probabilities

RNG = np.random.default_rng(0)
PROBABILITY = RNG.dirichlet((1, 1, 1), 25).astype(np.float32)


def test_each_finding_has_two_grades_and_the_third_follows() -> None:
    found = measure_probabilities(PROBABILITY, np.zeros((0, 25, 3)))
    for row, finding in enumerate(FINDINGS):
        for grade in (Severity.NORMAL_MILD, Severity.SEVERE):
            value = found[f"probability/{finding.name}/{grade.column}"]
            assert value == pytest.approx(float(PROBABILITY[row, grade]), abs=1e-6)
    assert sum(name.startswith("probability/") for name in found) == 50


def test_disagreement_is_the_spread_of_expected_grades() -> None:
    members = np.full((3, 25, 3), np.nan)
    sure = np.eye(3)
    members[0, :10], members[1, :10] = sure[0], sure[2]  # canal and left foramen: grades 0 and 2
    members[1, 10:15] = members[2, 10:15] = sure[1]  # right foramen: both 1
    members[0, 15] = sure[0]  # left subarticular: one member alone
    found = measure_probabilities(PROBABILITY, members)
    expected = [1.0, 1.0, 0.0, None, None]
    assert [found[f"disagreement/{condition.value}"] for condition in Condition] == expected


def test_an_answer_without_images_or_points_is_measured_too() -> None:
    flags = np.zeros((25, len(Flag)), np.bool_)
    flags[:5, list(Flag).index(Flag.PRIOR_ONLY)] = True
    landmarks = np.full((25, 3), np.nan)
    found = measure_answer(PROBABILITY, np.full((2, 25, 3), np.nan), landmarks, flags, {})
    assert found["flags/prior_only"] == 0.2
    assert found["flags/no_landmark"] == 0.0
    assert found["landmarks/found"] == 0
    assert found["landmarks/level_spacing_mm"] is None
    for plane in Plane:
        assert found[f"images/{plane.value}/present"] == 0
        assert found[f"images/{plane.value}/sharpness"] is None
    json.dumps(found, allow_nan=False)


def test_points_tell_their_number_and_the_spacing_of_discs_and_no_place() -> None:
    landmarks = np.full((25, 3), np.nan)
    landmarks[:5] = np.array([[4.0, -7.0, 1000.0 - 35.0 * level] for level in range(5)])
    flags = np.zeros((25, len(Flag)), np.bool_)
    here, there = (
        measure_answer(PROBABILITY, np.full((1, 25, 3), np.nan), points, flags, {})
        for points in (landmarks, landmarks + [500.0, 20.0, -300.0])
    )
    assert (here["landmarks/found"], here["landmarks/level_spacing_mm"]) == (5, 35)
    assert here == there


def test_other_outputs_are_kept_as_mean_and_maximum() -> None:
    doubt = np.full(25, np.nan)
    doubt[:2] = 0.25, 0.75
    flags = np.zeros((25, len(Flag)), np.bool_)
    extras = {"doubt": doubt, "nothing": np.full((25, 2), np.nan)}
    found = measure_answer(
        PROBABILITY, np.full((1, 25, 3), np.nan), np.zeros((25, 3)), flags, {}, extras=extras
    )
    assert (found["outputs/doubt/mean"], found["outputs/doubt/max"]) == (0.5, 0.75)
    assert found["outputs/nothing/mean"] is None
