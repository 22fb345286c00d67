import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def _edit(records: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((records / "manifest.json").read_text(encoding="utf-8"))
    change(content)
    (records / "manifest.json").write_text(json.dumps(content), encoding="utf-8")


def _rename_shard(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["planes"]["axial_t2"][0].update(file=name)


@pytest.mark.parametrize("name", ["../victim.txt", "axial_t2/../../victim.txt", "sagittal_t2/../victim.txt"])
def test_no_file_outside_the_folder_is_deleted(records: Path, read_tree: Tree, name: str) -> None:
    victim = records.parent / "victim.txt"
    victim.write_text("mine", encoding="utf-8")
    _edit(records, _rename_shard(name))
    before = read_tree(records)
    with pytest.raises(ValueError, match=r"must be named <plane>/<file>. Received: '.*victim\.txt'"):
        remove_patients(records, ["10"])
    assert victim.read_text(encoding="utf-8") == "mine"
    assert read_tree(records) == before


def test_an_absolute_name_and_an_unknown_plane_are_refused(records: Path) -> None:
    (records.parent / "victim.txt").write_text("mine", encoding="utf-8")
    _edit(records, _rename_shard(str(records.parent / "victim.txt")))
    with pytest.raises(ValueError, match="must be named <plane>/<file>"):
        remove_patients(records, ["10"])
    _edit(records, lambda content: content["planes"].update({"..": content["planes"].pop("axial_t2")}))
    _edit(records, lambda content: content["planes"][".."][0].update(file="../victim.txt"))
    with pytest.raises(ValueError, match="must be named <plane>/<file>"):
        remove_patients(records, ["10"])
    assert (records.parent / "victim.txt").is_file()


def test_patients_that_the_manifest_hides_are_not_reported_as_removed(records: Path) -> None:
    """The manifest says that a shard holds another study than it does."""
    _edit(records, lambda content: content["planes"]["axial_t2"][0].update(study_ids=["11"]))
    with pytest.raises(ValueError, match=r"'axial_t2/part-00000\.tfrecord', which holds records of them"):
        remove_patients(records, ["10"])
    assert "10" in read_manifest(records).patient_groups


@pytest.mark.parametrize("name", ["axial_t2/part-00007.tfrecord", "copy/part-00000.tfrecord", "axial.backup"])
def test_copies_beside_the_shards_are_found_and_the_same_call_completes_the_removal(
    records: Path, name: str
) -> None:
    copy = records / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(records / "axial_t2" / "part-00000.tfrecord", copy)
    with pytest.raises(ValueError, match=f"'{name}', which holds records of them"):
        remove_patients(records, ["10"])
    assert "10" in read_manifest(records).patient_groups
    copy.unlink()
    assert remove_patients(records, ["10"]) == ("10", "14")


def test_a_shard_that_is_a_link_is_refused_and_nothing_touched(records: Path, read_tree: Tree) -> None:
    """Removing the link would leave the records."""
    elsewhere = records.parent / "elsewhere.tfrecord"
    shard = records / "axial_t2" / "part-00000.tfrecord"
    shard.rename(elsewhere)
    shard.symlink_to(elsewhere)
    before = read_tree(records)
    with pytest.raises(ValueError, match=r"not links.* Received: axial_t2/part-00000\.tfrecord"):
        remove_patients(records, ["10"])
    assert read_tree(records) == before


def test_a_plane_whose_folder_is_a_link_is_refused(records: Path) -> None:
    (records / "axial_t2").rename(records.parent / "elsewhere")
    (records / "axial_t2").symlink_to(records.parent / "elsewhere")
    with pytest.raises(ValueError, match="not links"):
        remove_patients(records, ["10"])


def test_a_pipe_in_place_of_a_shard_ends_the_removal(records: Path) -> None:
    os.mkfifo(records / "axial_t2" / "part-00009.tfrecord")
    with pytest.raises(ValueError, match="cannot be searched"):
        remove_patients(records, ["10"])
