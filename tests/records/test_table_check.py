from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.records.shard_check import RecordSummary
from lumbar_tf.records.table_check import check_folds, check_labels
from lumbar_tf.tables.labels import write_record_labels
from tests.records.made_manifests import make_manifest

HEAD = "study_id,fold_id\n"
GOOD = "1,0\n2,1\n3,0\n"
#: Studies 1 and 3 are of one patient.
MANIFEST = make_manifest({"1": "1", "2": "2", "3": "1"})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (GOOD, set()),
        ("1,0\n2,1\n", {("fold_missing", "3")}),
        (GOOD + "4,1\n", {("fold_foreign", "4")}),
        ("1,0\n2,1\n3,1\n", {("fold_splits_patient", "3")}),
        ("1,0\n2,0\n3,0\n", {("fold_empty", "")}),
        ("1,0\n2,2\n3,0\n", {("fold_out_of_range", "2"), ("fold_empty", "")}),
        (GOOD + "1,0\n", {("folds_damaged", "")}),
        ("1,0\n2,\n3,0\n", {("folds_damaged", "")}),
        ("1,0\n2,1\n3,\x000\n", {("folds_damaged", "")}),
    ],
)
def test_each_fault_of_the_table_is_named(tmp_path: Path, rows: str, expected: set[tuple[str, str]]) -> None:
    (tmp_path / "folds.csv").write_text(HEAD + rows)
    found = check_folds(tmp_path, MANIFEST)
    assert {(each.code.value, each.study_id) for each in found} == expected
    assert {each.file for each in found} <= {"folds.csv"}


def test_a_table_that_is_no_table_is_named_without_a_manifest(tmp_path: Path) -> None:
    assert [each.code.value for each in check_folds(tmp_path, None)] == ["folds_absent"]
    for content in (b"\xff\xfe\x00", b"", b"study_id\n1\n"):
        (tmp_path / "folds.csv").write_bytes(content)
        assert [each.code.value for each in check_folds(tmp_path, None)] == ["folds_damaged"]
    (tmp_path / "folds.csv").write_text(HEAD + GOOD)
    assert check_folds(tmp_path, None) == []


def _record(study_id: str, label: int) -> RecordSummary:
    return RecordSummary(study_id, "axial_t2", "a", 0, 0, 0, "", labels=(label,) * 25, points_sha256="")


def test_labels_are_those_of_the_records(tmp_path: Path) -> None:
    records = [_record("1", 2), _record("2", -1), _record("3", 0)]
    sound = {"1": np.full(25, 2, np.int8), "3": np.zeros(25, np.int8)}
    write_record_labels(tmp_path, sound)
    assert check_labels(tmp_path, MANIFEST, records) == []
    changed = np.full(25, 2, np.int8)
    changed[[3, 7]] = 1, -1
    write_record_labels(tmp_path, {**sound, "1": changed, "9": changed})
    found = check_labels(tmp_path, MANIFEST, records)
    assert [(each.code.value, each.study_id) for each in found] == [
        ("labels_foreign", "9"),
        ("labels_differ", "1"),
    ]
    assert found[1].message.startswith("2 labels")
    write_record_labels(tmp_path, {"1": sound["1"]})
    # Study 3 has labels in its records and none in the table.
    assert [each.study_id for each in check_labels(tmp_path, MANIFEST, records)] == ["3"]


def test_a_label_table_that_is_none_is_named(tmp_path: Path) -> None:
    assert [each.code.value for each in check_labels(tmp_path, None, [])] == ["labels_absent"]
    for content in (b"", b"study_id\n1\n", b"study_id,spinal_canal_stenosis_l1_l2\n1,Awful\n", b"\xff\x00"):
        (tmp_path / "labels.csv").write_bytes(content)
        assert [each.code.value for each in check_labels(tmp_path, None, [])] == ["labels_damaged"]
