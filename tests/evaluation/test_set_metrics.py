import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lumbar_tf.evaluation import evaluation_run
from lumbar_tf.evaluation.console_tables import evaluation_notes
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, FAMILIES
from lumbar_tf.evaluation.evaluation_run import evaluate_files
from lumbar_tf.evaluation.set_metrics import LEVELS, SetCell, SetEvaluation, evaluate_sets, sets_json
from lumbar_tf.labels import FINDINGS, Severity
from lumbar_tf.tables.groups import Grouping
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.tables.set_tables import SetTable, write_set_table
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels

_NUM_STUDIES = 60
_IDS = make_study_ids(_NUM_STUDIES)
Bools = NDArray[np.bool_]


def _sets(seed: int) -> Bools:
    kinds = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]], bool)
    return kinds[np.random.default_rng(seed).integers(0, 7, (_NUM_STUDIES, 25))]


def _table(sets: Bools) -> SetTable:
    return SetTable(0.9, dict(zip(_IDS, sets, strict=True)))


@pytest.fixture(scope="module")
def labels() -> NDArray[np.integer]:
    labels = draw_labels(_NUM_STUDIES).copy()
    labels[np.random.default_rng(5).random(labels.shape) < 0.1] = -1
    return labels


@pytest.fixture(scope="module")
def evaluated(labels: NDArray[np.integer]) -> SetEvaluation:
    group_of = {study: "a" if index < 20 else "b" for index, study in enumerate(_IDS)}
    grouping = Grouping("Vendor", group_of, ("a", "b"))
    return evaluate_sets(_table(_sets(0)), _IDS, labels, [grouping], num_resamples=50)


def _check(cell: SetCell, sets: Bools, labels: NDArray[np.integer]) -> None:
    """Compares a cell with values counted finding by finding."""
    pairs = [
        (own, int(label))
        for own, label in zip(sets.reshape(-1, 3), labels.ravel(), strict=True)
        if label >= 0
    ]
    pairs = [(own, label) for own, label in pairs if own.any()]
    for grade in range(3):
        hits = [own[grade] for own, label in pairs if label == grade]
        assert cell.counts[grade] == len(hits)
        assert cell.coverage[grade].value == pytest.approx(np.mean(hits))
    singles = [bool(own[label]) for own, label in pairs if own.sum() == 1]
    assert cell.mean_size.value == pytest.approx(np.mean([own.sum() for own, _ in pairs]))
    assert cell.singletons.value == pytest.approx(len(singles) / len(pairs))
    assert cell.singleton_accuracy.value == pytest.approx(np.mean(singles))
    for interval in (*cell.coverage, cell.mean_size, cell.singletons, cell.singleton_accuracy):
        assert interval.low <= interval.value <= interval.high


def test_every_cell_counts_its_findings(evaluated: SetEvaluation, labels: NDArray[np.integer]) -> None:
    sets = _sets(0)
    for cells, groups in (
        (evaluated.families, FAMILIES),
        (evaluated.conditions, CONDITIONS),
        (evaluated.levels, LEVELS),
    ):
        assert [cell.name for cell in cells] == list(groups)
        for cell in cells:
            rows = groups[cell.name]
            _check(cell, sets[:, rows], labels[:, rows])
    assert [cell.name for cell in evaluated.findings] == [finding.name for finding in FINDINGS]
    assert evaluated.num_without == int(((labels >= 0) & ~sets.any(axis=-1)).sum()) > 0


def test_groups_of_studies_have_cells_of_their_own(
    evaluated: SetEvaluation, labels: NDArray[np.integer]
) -> None:
    assert [(group.attribute, group.group, group.num_studies) for group in evaluated.subgroups] == [
        ("Vendor", "a", 20),
        ("Vendor", "b", 40),
    ]
    rows = FAMILIES["foraminal"]
    _check(evaluated.subgroups[0].families[1], _sets(0)[:20, rows], labels[:20, rows])


def test_full_sets_cover_everything_and_empty_cells_are_undefined() -> None:
    labels = np.full((_NUM_STUDIES, 25), -1)
    labels[:, FAMILIES["canal"]] = 0
    found = evaluate_sets(_table(np.ones((_NUM_STUDIES, 25, 3), bool)), _IDS, labels, num_resamples=10)
    canal, foraminal, _ = found.families
    assert canal.coverage[0].value == canal.coverage[0].low == 1.0
    assert (canal.mean_size.value, canal.singletons.value) == (3.0, 0.0)
    assert np.isnan(canal.coverage[2].value) and np.isnan(canal.singleton_accuracy.value)
    assert np.isnan(foraminal.mean_size.value)
    assert canal.few == (Severity.MODERATE, Severity.SEVERE)


def test_json_has_the_families_at_the_top_with_plain_numbers(evaluated: SetEvaluation) -> None:
    content = json.loads(json.dumps(sets_json(evaluated)))
    assert content["nominal_coverage"] == 0.9
    for family in FAMILIES:
        cell = content[family]
        assert list(cell["coverage"]) == ["normal_mild", "moderate", "severe"]
        assert all(isinstance(value, float) for value in cell["coverage"].values())
        low, high = cell["coverage_interval"]["severe"]
        assert low <= cell["coverage"]["severe"] <= high
        assert isinstance(cell["mean_size"], float) and len(cell["mean_size_interval"]) == 2
    assert set(content["findings"]) == {finding.name for finding in FINDINGS}
    assert content["subgroups"][1]["canal"]["counts"]["severe"] >= 0


def test_evaluate_reads_sets_and_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_run, "draw_sheets", lambda data, out, *, title: {})
    labels = draw_labels(_NUM_STUDIES)
    write_labels(tmp_path / "train.csv", _IDS, labels)
    write_out_of_fold_table(tmp_path / "p.csv", _IDS, draw_answers(labels, sharpness=2.0, seed=0))
    write_set_table(tmp_path / "sets.csv", _IDS, _sets(1), coverage=0.8)
    files = (tmp_path / "p.csv", [tmp_path / "train.csv"], tmp_path / "out")
    run = evaluate_files(*files, sets=tmp_path / "sets.csv", num_resamples=10)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())["prediction_sets"]
    assert content["nominal_coverage"] == 0.8
    assert content["canal"]["mean_size"] == run.sets.families[0].mean_size.value
    missing = int((~_sets(1).any(axis=-1)).sum())
    assert f"{missing} labelled findings have no prediction set." in evaluation_notes(run)
    plain = evaluate_files(*files, num_resamples=10)
    assert plain.sets is None
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["prediction_sets"] is None
