"""Scores by the groups of a table, compared with evaluations of only their studies."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.evaluation.console_tables import evaluation_notes
from lumbar_tf.evaluation.evaluated_table import FAMILIES
from lumbar_tf.evaluation.evaluation_run import EvaluationRun, evaluate_files, evaluation_json
from lumbar_tf.tables.groups import UNKNOWN, Grouping
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.tables.set_tables import write_set_table
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels

_IDS = make_study_ids(60)
_SITES = np.random.default_rng(4).choice(["north", "south"], 60, p=[0.6, 0.4])
_AGES = np.random.default_rng(5).permutation(np.arange(30, 90))
#: These have no row in the table, the next ones no site.
_ABSENT, _NAMELESS = 3, 5


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    _write(folder, "all", np.arange(60))
    sets = np.zeros((60, 25, 3), bool)
    sets[..., :2] = True
    write_set_table(folder / "sets.csv", _IDS, sets, coverage=0.9)
    lines = ["study_id,site,age", "9999,north,44"]
    for place in range(_ABSENT, 60):
        site = "" if place < _ABSENT + _NAMELESS else _SITES[place]
        lines.append(f"{_IDS[place]},{site},{_AGES[place]}")
    (folder / "groups.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _write(folder: Path, name: str, places: NDArray[np.intp]) -> tuple[Path, Path]:
    """Writes labels and predictions of some of the studies."""
    labels = draw_labels(60)
    answers = draw_answers(labels, sharpness=1.0, seed=0)
    ids = [_IDS[place] for place in places]
    write_out_of_fold_table(folder / f"{name}.csv", ids, answers[places])
    return folder / f"{name}.csv", write_labels(folder / f"{name}_labels.csv", ids, labels[places])


def _evaluate(folder: Path, head: Head = Head.PROBABILITY, **options: object) -> EvaluationRun:
    paths = folder / "all.csv", [folder / "all_labels.csv"]
    return evaluate_files(*paths, None, head=head, num_resamples=20, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def evaluated(cohort: Path) -> EvaluationRun:
    return _evaluate(cohort, groups=cohort / "groups.csv", sets=cohort / "sets.csv")


def test_the_groups_of_each_column_add_up_to_the_cohort(evaluated: EvaluationRun) -> None:
    for attribute in ("site", "age"):
        groups = [subgroup for subgroup in evaluated.subgroups if subgroup.attribute == attribute]
        assert sum(subgroup.num_studies for subgroup in groups) == 60
        for place in range(3):
            counts = [subgroup.families[place].counts for subgroup in groups]
            assert np.sum(counts, axis=0).tolist() == list(evaluated.card.families[place].counts)
    sizes = {subgroup.group: subgroup.num_studies for subgroup in evaluated.subgroups}
    num_known = 60 - _ABSENT - _NAMELESS
    assert sizes["north"] + sizes["south"] == num_known
    assert [group.num_studies for group in evaluated.subgroups if group.group == UNKNOWN] == [8, 3]
    assert evaluated.sets is not None
    assert {(group.attribute, group.group) for group in evaluated.sets.subgroups} == {
        (group.attribute, group.group) for group in evaluated.subgroups
    }


def test_rows_of_other_studies_and_studies_without_a_row_are_noted(evaluated: EvaluationRun) -> None:
    notes = evaluation_notes(evaluated)
    assert "1 rows of the table of groups are of other studies." in notes
    assert "3 studies are not in the table of groups: group unknown." in notes


@pytest.mark.parametrize("head", list(Head))
def test_a_group_scores_as_an_evaluation_of_only_its_studies(cohort: Path, head: Head) -> None:
    found = _evaluate(cohort, head, groups=cohort / "groups.csv").subgroups
    (south,) = (subgroup for subgroup in found if subgroup.group == "south")
    places = np.flatnonzero((_SITES == "south") & (np.arange(60) >= _ABSENT + _NAMELESS))
    predictions, labels = _write(cohort, "south", places)
    alone = evaluate_files(predictions, [labels], None, head=head, num_resamples=20)
    assert south.num_studies == alone.card.num_studies == len(places)
    assert south.scores == alone.card.scores
    for cell, expected in zip(south.families, alone.card.families, strict=True):
        assert (cell.name, cell.counts) == (expected.name, expected.counts)
        for name, interval in expected.metrics.items():
            mine = cell.metrics[name]
            np.testing.assert_allclose(
                [mine.value, mine.low, mine.high], [interval.value, interval.low, interval.high]
            )


def test_metrics_of_a_group_agree_with_scikit_learn(evaluated: EvaluationRun) -> None:
    labels = draw_labels(60)
    answers = draw_answers(labels, sharpness=1.0, seed=0)
    (north,) = (subgroup for subgroup in evaluated.subgroups if subgroup.group == "north")
    is_north = (_SITES == "north") & (np.arange(60) >= _ABSENT + _NAMELESS)
    for cell, findings in zip(north.families, FAMILIES.values(), strict=True):
        grades = labels[is_north][:, findings].ravel()
        shares = answers[is_north][:, findings].reshape(-1, 3)
        loss = log_loss(grades, shares, sample_weight=np.array([1, 2, 4])[grades], labels=[0, 1, 2])
        assert cell.metrics["log_loss"].value == pytest.approx(loss)
        assert cell.metrics["auc_severe"].value == pytest.approx(roc_auc_score(grades == 2, shares[:, 2]))


def test_metrics_json_has_the_metrics_of_each_group(evaluated: EvaluationRun) -> None:
    content = evaluation_json(evaluated)["subgroups"]
    assert isinstance(content, list) and len(content) == 3 + 4
    for subgroup in content:
        assert [cell["name"] for cell in subgroup["families"]] == list(FAMILIES)
        assert {"value", "low", "high"} == set(subgroup["families"][0]["auc_severe"])
        assert isinstance(subgroup["families"][0]["calibration_error"], float)


def test_a_column_named_as_a_grouping_of_the_records_is_refused(cohort: Path) -> None:
    vendor = Grouping("site", dict.fromkeys(_IDS, "ge"), ("ge",))
    with pytest.raises(ValueError, match=r"groups.csv: columns must have other names.*\['site'\]"):
        _evaluate(cohort, groups=cohort / "groups.csv", groupings=[vendor])
