import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar_tf.tables.folds import make_folds, read_fold_table, read_folds, sample_folds, write_folds
from tests.records.made_manifests import make_manifest


def _cohort(num_studies: int, seed: int, num_patients: int) -> tuple[list[str], list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = [f"g{index % num_patients:03}" for index in range(num_studies)]
    labels = rng.choice([-1, 0, 1, 2], (num_studies, 25), p=[0.02, 0.78, 0.14, 0.06])
    return [f"s{index:03}" for index in range(num_studies)], groups, labels


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(5, 40))
def test_folds_partition_studies_and_keep_patients_whole(
    seed: int, num_folds: int, num_patients: int
) -> None:
    studies, groups, labels = _cohort(60, seed, num_patients)
    folds = make_folds(studies, groups, labels, num_folds=num_folds, seed=seed)
    assert set(folds) == set(studies)
    assert set(folds.values()) == set(range(num_folds))
    fold_of_group = {(group, folds[study]) for study, group in zip(studies, groups, strict=True)}
    assert len(fold_of_group) == len(set(groups))


def test_folds_do_not_depend_on_the_order_of_studies() -> None:
    studies, groups, labels = _cohort(50, 1, 30)
    order = list(range(50))
    random.Random(3).shuffle(order)
    folds = make_folds(studies, groups, labels, num_folds=5, seed=7)
    shuffled = make_folds(
        [studies[each] for each in order],
        [groups[each] for each in order],
        labels[order],
        num_folds=5,
        seed=7,
    )
    assert shuffled == folds
    assert make_folds(studies, groups, labels, num_folds=5, seed=8) != folds


def test_folds_are_of_one_size_and_one_severity() -> None:
    studies, groups, labels = _cohort(200, 2, 200)
    # A third of the severe findings sit in a few patients, as they do in life.
    labels[:10] = 2
    folds = make_folds(studies, groups, labels, num_folds=5, seed=0)
    fold = np.array([folds[study] for study in studies])
    sizes = np.bincount(fold)
    severe = np.array([(labels[fold == each] == 2).sum() for each in range(5)])
    assert sizes.max() - sizes.min() <= 4
    assert severe.max() / severe.min() < 1.1


def test_bad_requests_are_refused() -> None:
    studies, groups, labels = _cohort(4, 0, 2)
    with pytest.raises(ValueError, match="2 patients"):
        make_folds(studies, groups, labels, num_folds=3, seed=0)
    with pytest.raises(ValueError, match="distinct"):
        make_folds(["a"] * 4, groups, labels, num_folds=2, seed=0)
    with pytest.raises(ValueError, match="length"):
        make_folds(studies, groups, labels[:3], num_folds=2, seed=0)


def test_folds_round_trip(tmp_path: Path) -> None:
    write_folds(tmp_path / "folds.csv", {"10": 1, "2": 0, "unknown": 1})
    assert (tmp_path / "folds.csv").read_text() == "study_id,fold_id\n10,1\n2,0\nunknown,1\n"
    assert read_folds(tmp_path / "folds.csv", make_manifest({"10": "10", "2": "2"}).patient_groups) == {
        "10": 1,
        "2": 0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_id,fold_id\n1,0\n2,1\n", "study 1 in fold 0, study 2 of the same patient in fold 1"),
        ("study_id,fold_id\n1,0\n", "none for 2"),
        ("study_id,fold_id\n1,0\n2,x\n", "line 3: .*'2', 'x'"),
        ("study_id,fold_id\n1,0\n2,-1\n", "line 3: .*'2', '-1'"),
        ("study_id,patient\n1,0\n2,0\n", "a column fold_id or fold"),
    ],
)
def test_folds_that_break_the_rules_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_folds(tmp_path / "folds.csv", make_manifest({"1": "1", "2": "1"}).patient_groups)


def test_a_fold_table_reads_back_as_written(tmp_path: Path) -> None:
    folds = {"10": 1, "9": 0, "x_1": 4}
    write_folds(tmp_path / "deep" / "folds.csv", folds)
    assert read_fold_table(tmp_path / "deep" / "folds.csv") == folds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_id,patient\n1,0\n", "fold_id"),
        ("study_id,fold_id\n1,0\n1,0\n", "line 3"),
        ("study_id,fold_id\n1,first\n", "'first'"),
        ("study_id,fold_id\n1\n", "line 2"),
    ],
)
def test_faults_of_a_fold_table_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_fold_table(path)


@given(num_studies=st.integers(5, 80), seed=st.integers(0, 20))
def test_a_sample_keeps_folds_and_whole_patients_in_proportion(num_studies: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    patient_groups = {str(study): str(rng.integers(50)) for study in range(80)}
    fold_of = {group: int(rng.integers(5)) for group in sorted(set(patient_groups.values()))}
    folds = {study: fold_of[group] for study, group in patient_groups.items()}
    sizes = np.bincount(list(folds.values()), minlength=5)
    sample = sample_folds(folds, patient_groups, num_studies=num_studies)
    assert sample.items() <= folds.items()
    used = {patient_groups[study] for study in sample}
    assert {study for study in folds if patient_groups[study] in used} == set(sample)
    largest = max(np.bincount([int(group) for group in patient_groups.values()]))
    taken = np.bincount(list(sample.values()), minlength=5)
    assert all(taken[sizes > 0] > 0)
    assert np.all(np.abs(taken - num_studies * sizes / 80) <= np.maximum(largest, 1))
    shuffled = dict(sorted(folds.items(), key=lambda _: rng.random()))
    assert sample_folds(shuffled, patient_groups, num_studies=num_studies) == sample


def test_a_sample_of_fewer_studies_than_folds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be at least 2, one for each fold\. Received: 1"):
        sample_folds({"a": 0, "b": 1}, {"a": "a", "b": "b"}, num_studies=1)
