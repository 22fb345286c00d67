from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar_tf.files import replace_atomically
from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.framing import read_records
from lumbar_tf.records.manifest import BuildOptions, read_manifest
from lumbar_tf.records.patients import remove_patients
from lumbar_tf.tables.folds import read_folds
from lumbar_tf.tables.labels import read_record_labels

Tree = Callable[[Path], dict[str, bytes]]
OPTIONS = BuildOptions(studies_per_shard=2, num_folds=3, fold_seed=0)


@pytest.fixture
def records(cohort: Path, tmp_path: Path) -> Path:
    """Shards (10, 11), (12, 13), (14); 10 and 14 are of one patient, 12 has no axial series."""
    run_build_task(BuildTask(sources=[cohort], out=tmp_path / "out", options=OPTIONS))
    return tmp_path / "out"


def test_all_of_the_patient_is_gone_and_other_shards_stay(records: Path, read_tree: Tree) -> None:
    before = read_tree(records)
    assert remove_patients(records, ["10"]) == ("10", "14")
    after = read_tree(records)
    manifest = read_manifest(records)
    assert [each.study_id for each in manifest.studies] == ["11", "12", "13"]
    assert set(read_folds(records / "folds.csv", manifest.patient_groups)) == {"11", "12", "13"}
    assert set(read_record_labels(records)) == {"11", "12", "13"}
    for plane, studies in (("sagittal_t2", ["12", "13"]), ("axial_t2", ["13"])):
        untouched, emptied = (f"{plane}/part-0000{index}.tfrecord" for index in (1, 2))
        assert after[untouched] == before[untouched]
        assert emptied not in after
        assert [shard.study_ids for shard in manifest.planes[plane]] == [("11",), tuple(studies)]
        (record,) = read_records(records / plane / "part-00000.tfrecord")
        assert parse_example_features(record)["study_id"] == [b"11"]
        assert record in before[f"{plane}/part-00000.tfrecord"]


def test_a_call_that_was_cut_off_is_finished_by_the_same_call(
    records: Path, monkeypatch: pytest.MonkeyPatch, read_tree: Tree, tmp_path: Path, cohort: Path
) -> None:
    other = tmp_path / "other"
    run_build_task(BuildTask(sources=[cohort], out=other, options=OPTIONS))
    remove_patients(other, ["14"])

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lumbar_tf.records.patients.write_manifest", cut_off)
        with pytest.raises(KeyboardInterrupt):
            remove_patients(records, ["14"])
    # A shard that SIGKILL left half-written holds what is to be forgotten.
    killed = replace_atomically(records / "axial_t2" / "part-00000.tfrecord")
    killed.__enter__().write_bytes(b"half")
    remove_patients(records, ["14"])
    assert read_tree(records) == read_tree(other)


def test_an_unknown_study_is_refused_and_nothing_touched(records: Path, read_tree: Tree) -> None:
    before = read_tree(records)
    with pytest.raises(ValueError, match="'99'"):
        remove_patients(records, ["10", "99"])
    assert read_tree(records) == before


def test_with_the_key_the_sources_own_id_is_enough(cohort: Path, tmp_path: Path) -> None:
    key = bytes(range(32))
    options = OPTIONS.model_copy(update={"is_pseudonymised": True})
    run_build_task(BuildTask(sources=[cohort], out=tmp_path / "out", options=options, key=key))
    with pytest.raises(ValueError, match="not in them"):
        remove_patients(tmp_path / "out", ["14"])
    assert len(remove_patients(tmp_path / "out", ["14"], key=key)) == 2
    assert len(read_manifest(tmp_path / "out").studies) == 3
