import numpy as np
import pytest

from lumbar_tf.evaluation.comparison import SMALL_GROUP, compare_tables, score_subgroups
from lumbar_tf.evaluation.evaluated_table import prepare_table
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, competition_score
from lumbar_tf.tables.groups import Grouping


def _tables(num_studies: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A table, the same a little blurred, and one that knows nothing."""
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(num_studies, 25), p=[0.7, 0.2, 0.1])
    logits = np.eye(3)[labels] * 2 + generator.normal(size=(num_studies, 25, 3))

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=-1, keepdims=True)

    blurred = logits + generator.normal(scale=0.3, size=logits.shape)
    return labels, {
        "first": softmax(logits),
        "blurred": softmax(blurred),
        "flat": np.full((*labels.shape, 3), 1 / 3),
    }


def test_differences_are_to_the_first_and_narrower_than_the_scores() -> None:
    labels, tables = _tables()
    found = compare_tables(labels, tables, num_resamples=300)
    first, blurred, flat = found
    assert [table.name for table in found] == list(tables) and first.difference is None
    for table in found:
        expected = competition_score(labels, tables[table.name])
        assert (table.num_studies, table.num_labels) == (60, 1500)
        for name in SCORE_FIGURES:
            assert table.scores[name].value == pytest.approx(getattr(expected, name))
            if table.difference:
                gap = getattr(expected, name) - first.scores[name].value
                assert table.difference[name].value == pytest.approx(gap)
    assert flat.difference and blurred.difference
    assert flat.difference["score"].low > 0 and blurred.difference["score"].value > 0
    width = first.scores["score"].high - first.scores["score"].low
    assert blurred.difference["score"].high - blurred.difference["score"].low < width


def test_tables_are_compared_over_common_labels() -> None:
    labels, tables = _tables()
    tables["flat"][:10] = np.nan
    tables["blurred"][:, 15:] = np.nan
    tables["first"][20, 4] = np.nan
    labels[30] = -1
    first, blurred, flat = compare_tables(labels, tables, num_resamples=5)
    assert (first.num_studies, first.num_labels) == (59, 59 * 25 - 1)
    assert (blurred.num_studies, blurred.num_labels) == (59, 59 * 15 - 1)
    assert (flat.num_studies, flat.num_labels) == (49, 49 * 25 - 1)
    common = labels.copy()
    common[20, 4], common[:, 15:] = -1, -1
    gap = (
        competition_score(common, tables["blurred"]).score - competition_score(common, tables["first"]).score
    )
    assert blurred.difference and blurred.difference["score"].value == pytest.approx(gap)
    assert np.isnan(blurred.difference["subarticular"].value)


def test_nothing_in_common_is_refused() -> None:
    labels, tables = _tables()
    tables["first"][:30], tables["flat"][30:] = np.nan, np.nan
    with pytest.raises(ValueError, match="Received: none by 'flat'"):
        compare_tables(labels, tables)


_IDS = [f"{100 + index}" for index in range(70)]


def test_each_group_has_its_own_score_and_small_groups_are_marked() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(70, 25), p=[0.7, 0.2, 0.1])
    probabilities = generator.dirichlet([2, 1, 1], (70, 25))
    labels[69] = -1
    group_of = {study: "ge" if index < 45 else "siemens" for index, study in enumerate(_IDS)}
    del group_of["101"]
    grouping = Grouping("Vendor", group_of, ("siemens", "ge", "philips"))
    found = score_subgroups(_IDS, prepare_table(labels, probabilities)[0], [grouping], num_resamples=50)
    assert [(subgroup.group, subgroup.num_studies, subgroup.is_small) for subgroup in found] == [
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
    evaluated, _ = prepare_table(labels, np.full((SMALL_GROUP, 25, 3), 1 / 3))
    (found,) = score_subgroups(ids, evaluated, [grouping], num_resamples=2)
    assert not found.is_small
