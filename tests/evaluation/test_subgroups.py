import numpy as np
import pytest

from lumbar_tf.evaluation.metrics import competition_score
from lumbar_tf.evaluation.subgroups import SMALL_GROUP, Grouping, score_subgroups

_IDS = [f"{100 + index}" for index in range(70)]


def test_each_group_has_its_own_score_and_small_ones_are_said_to_be() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(70, 25), p=[0.7, 0.2, 0.1])
    probabilities = generator.dirichlet([2, 1, 1], (70, 25))
    labels[69] = -1
    group_of = {study: "ge" if index < 45 else "siemens" for index, study in enumerate(_IDS)}
    del group_of["101"]
    grouping = Grouping("Vendor", group_of, ("siemens", "ge", "philips"))
    found = score_subgroups(_IDS, labels, probabilities, [grouping], num_resamples=50)
    assert [(each.group, each.num_studies, each.is_small) for each in found] == [
        ("siemens", 24, True),
        ("ge", 44, False),
        ("not in the manifest", 1, True),
    ]
    ge = np.r_[0, 2:45]
    expected = competition_score(labels[ge], probabilities[ge])
    assert found[1].scores["score"].value == pytest.approx(expected.score)
    assert found[1].scores["score"].low < expected.score < found[1].scores["score"].high
    assert found[1].num_severe == (labels[ge] == 2).sum()


def test_the_limit_of_small_is_exclusive() -> None:
    labels = np.zeros((SMALL_GROUP, 25), int)
    ids = _IDS[:SMALL_GROUP]
    grouping = Grouping("Vendor", dict.fromkeys(ids, "ge"), ("ge",))
    (found,) = score_subgroups(ids, labels, np.full((SMALL_GROUP, 25, 3), 1 / 3), [grouping], num_resamples=2)
    assert not found.is_small
