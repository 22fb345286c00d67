import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import lumbar_tf
from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym, read_key
from lumbar_tf.records.build import BuildMode, BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions, Manifest, read_manifest
from lumbar_tf.records.parsing import parse_example
from lumbar_tf.runners import JobError
from lumbar_tf.tables.folds import read_folds
from lumbar_tf.tables.labels import read_record_labels

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = BuildOptions(studies_per_shard=2, num_folds=3, fold_seed=0)
Tree = Callable[[Path], dict[str, bytes]]


def _build(source: Path, out: Path, *others: Path, workers: int = 1, **task: object) -> Manifest:
    options = {"options": OPTIONS, **task}
    return run_build_task(BuildTask(sources=[source, *others], out=out, **options), workers=workers)


def _no_space(*_: object) -> None:
    raise OSError("no space left")


def _fail_to_build(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds all but the manifest, for which there is no space."""
    with monkeypatch.context() as patch:
        patch.setattr("lumbar_tf.records.build.write_manifest", _no_space)
        with pytest.raises(OSError, match="no space"):
            _build(source, out)


def test_records_hold_what_the_folder_held(cohort: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    manifest = _build(cohort, tmp_path / "out")
    assert read_manifest(tmp_path / "out") == manifest
    assert [each.study_id for each in manifest.studies] == ["10", "11", "12", "13", "14"]
    assert manifest.studies[2].num_slices == {"sagittal_t2": 3}
    # Studies 10 and 14 are of one patient.
    assert [each.patient_group for each in manifest.studies] == ["10", "11", "12", "13", "10"]
    assert [(each.study_id, each.reason) for each in manifest.rejects] == [("13", "not_dicom")]
    (series,) = manifest.studies[2].series
    assert (series.series_id, series.plane, series.num_slices, series.rows) == ("1", Plane.SAGITTAL_T2, 3, 6)
    paths = manifest.shard_paths(tmp_path / "out", Plane.AXIAL_T2)
    assert [path.name for path in paths] == [f"part-{index:05}.tfrecord" for index in range(3)]
    records = [parse_example(each) for each in tf.data.TFRecordDataset([str(path) for path in paths])]
    assert [record["study_id"].numpy().decode() for record in records] == ["10", "11", "13", "14"]
    for record in records:
        seen.extend(record["labels"].numpy().tolist())
        # Column 3 of 0.75 mm along y, row 4 of 0.5 mm down, on the second sagittal slice.
        np.testing.assert_allclose(record["points"][0], (2.0, 2.25, 8.0))
    assert seen == [0, 1, 2, -1, 2] * 5 * 4
    folds = read_folds(tmp_path / "out" / "folds.csv", manifest.patient_groups)
    assert folds["10"] == folds["14"]
    assert set(folds.values()) == {0, 1, 2}
    labels = read_record_labels(tmp_path / "out")
    assert {study: row.tolist() for study, row in labels.items()} == {
        str(study): [0, 1, 2, -1, 2] * 5 for study in range(10, 15)
    }


def test_shards_carry_their_digest(cohort: Path, tmp_path: Path) -> None:
    manifest = _build(cohort, tmp_path / "out")
    for shards in manifest.planes.values():
        for shard in shards:
            data = (tmp_path / "out" / shard.file).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (shard.sha256, shard.size_bytes)
            count = sum(1 for _ in tf.data.TFRecordDataset([str(tmp_path / "out" / shard.file)]))
            assert count == shard.num_examples == len(shard.study_ids)


def test_nothing_names_the_patient(cohort: Path, tmp_path: Path, read_tree: Tree) -> None:
    _build(cohort, tmp_path / "out")
    for name, data in read_tree(tmp_path / "out").items():
        assert b"Doe" not in data, name
        assert str(cohort).encode() not in data, name


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_one(cohort: Path, tmp_path: Path, read_tree: Tree) -> None:
    for workers in (1, 2):
        _build(cohort, tmp_path / f"out{workers}", workers=workers)
    trees = [read_tree(tmp_path / f"out{workers}") for workers in (1, 2)]
    assert trees[0] == trees[1]
    # Shards of two planes, folds, labels and manifest: the journal is gone.
    assert len(trees[0]) == 3 + 3 + 3


def test_several_sources_are_joined(cohort: Path, tmp_path: Path, write_dicom: Callable[..., Path]) -> None:
    other = tmp_path / "other"
    write_dicom(
        other / "20" / "s" / "1.dcm",
        np.ones((4, 4), np.uint16),
        PatientID="Doe-1",
        SeriesDescription="Sag T1",
    )
    manifest = _build(cohort, tmp_path / "out", other)
    assert manifest.studies[-1].study_id == "20"
    assert manifest.studies[-1].patient_group == "11"
    assert manifest.studies[-1].num_slices == {"sagittal_t1": 1}


def test_of_a_study_in_two_sources_the_first_counts(cohort: Path, tmp_path: Path, read_tree: Tree) -> None:
    manifest = _build(cohort, tmp_path / "twice", cohort)
    assert sorted(each.study_id for each in manifest.rejects if each.reason == "duplicate_study") == [
        str(study) for study in range(10, 15)
    ]
    assert manifest.planes == _build(cohort, tmp_path / "once").planes


def test_records_that_are_there_are_not_touched_unasked(
    cohort: Path, tmp_path: Path, read_tree: Tree
) -> None:
    _build(cohort, tmp_path / "out")
    before = read_tree(tmp_path / "out")
    with pytest.raises(ValueError, match=r"must hold no records.*finished"):
        _build(cohort, tmp_path / "out")
    assert read_tree(tmp_path / "out") == before


def test_overwriting_leaves_no_shard_of_the_first_build(
    cohort: Path, tmp_path: Path, read_tree: Tree
) -> None:
    whole = BuildOptions(studies_per_shard=64, num_folds=3, fold_seed=0)
    _build(cohort, tmp_path / "a")
    _build(cohort, tmp_path / "a", options=whole, mode=BuildMode.OVERWRITE)
    _build(cohort, tmp_path / "b", options=whole)
    assert read_tree(tmp_path / "a") == read_tree(tmp_path / "b")


def test_a_build_that_fails_is_resumed_to_the_same_bytes(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_tree: Tree
) -> None:
    _build(cohort, tmp_path / "whole")
    _fail_to_build(cohort, tmp_path / "out", monkeypatch)
    with pytest.raises(ValueError, match="did not finish"):
        read_manifest(tmp_path / "out")
    with pytest.raises(ValueError, match="unfinished records; use --resume"):
        _build(cohort, tmp_path / "out")
    # Nothing is read again but the headers that say whose studies they are.
    with monkeypatch.context() as patch:
        patch.setattr("lumbar_tf.records.shards.make_study_records", _no_space)
        _build(cohort, tmp_path / "out", mode=BuildMode.RESUME)
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


@pytest.mark.parametrize("mode", [BuildMode.RESUME, BuildMode.OVERWRITE])
def test_what_a_killed_build_left_half_written_is_gone(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_tree: Tree, mode: BuildMode
) -> None:
    _build(cohort, tmp_path / "whole")
    _fail_to_build(cohort, tmp_path / "out", monkeypatch)
    # Blocks that are entered and not left, as SIGKILL has it.
    killed = [
        replace_atomically(tmp_path / "out" / name)
        for name in ("folds.csv", "manifest.json", "axial_t2/part-00001.tfrecord", ".build/part-00001.json")
    ]
    for each in killed:
        each.__enter__().write_bytes(b"half")
    (tmp_path / "out" / ".somebodys.tmp").write_text("own")
    _build(cohort, tmp_path / "out", mode=mode)
    (tmp_path / "out" / ".somebodys.tmp").unlink()
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_a_part_whose_files_changed_is_built_again(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_tree: Tree
) -> None:
    _fail_to_build(cohort, tmp_path / "out", monkeypatch)
    (cohort / "train_images" / "10" / "1" / "2.dcm").unlink()
    # A shard that somebody cut is built again too.
    os.truncate(tmp_path / "out" / "sagittal_t2" / "part-00001.tfrecord", 100)
    _build(cohort, tmp_path / "out", mode=BuildMode.RESUME)
    _build(cohort, tmp_path / "whole")
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_a_build_is_not_resumed_with_other_options_or_studies(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_to_build(cohort, tmp_path / "out", monkeypatch)
    other = OPTIONS.model_copy(update={"fold_seed": 1})
    with pytest.raises(ValueError, match="other studies, options"):
        _build(cohort, tmp_path / "out", options=other, mode=BuildMode.RESUME)
    (cohort / "train_images" / "10").rename(cohort / "train_images" / "99")
    with pytest.raises(ValueError, match="other studies, options"):
        _build(cohort, tmp_path / "out", mode=BuildMode.RESUME)


def test_resuming_finished_records_changes_nothing(cohort: Path, tmp_path: Path, read_tree: Tree) -> None:
    (cohort / "train_images" / "15").mkdir()
    (cohort / "train_images" / "15" / "1.dcm").write_bytes(b"junk")
    first = _build(cohort, tmp_path / "out")
    assert "no_slices" in {each.reason for each in first.rejects}
    before = read_tree(tmp_path / "out")
    assert _build(cohort, tmp_path / "out", mode=BuildMode.RESUME) == first
    assert read_tree(tmp_path / "out") == before


def _hold_back(cohort: Path, aside: Path, *studies: str) -> None:
    aside.mkdir(exist_ok=True)
    for study in studies:
        (cohort / "train_images" / study).rename(aside / study)


def test_added_studies_go_to_new_shards_and_leave_the_old_ones(
    cohort: Path, tmp_path: Path, read_tree: Tree
) -> None:
    _hold_back(cohort, tmp_path / "aside", "11", "14")
    first = _build(cohort, tmp_path / "out")
    old = read_tree(tmp_path / "out")
    for each in (tmp_path / "aside").iterdir():
        each.rename(cohort / "train_images" / each.name)
    with pytest.raises(ValueError, match=r"lack 2 of these studies; the first is 11.*--append"):
        _build(cohort, tmp_path / "out", mode=BuildMode.RESUME)
    manifest = _build(cohort, tmp_path / "out", mode=BuildMode.APPEND)
    new = read_tree(tmp_path / "out")
    assert [each.study_id for each in manifest.studies] == ["10", "12", "13", "11", "14"]
    # 14 is the patient of 10, who was there before.
    assert [each.patient_group for each in manifest.studies] == ["10", "12", "13", "11", "10"]
    assert {name for name in old if name.endswith(".tfrecord") and old[name] == new[name]} == {
        shard.file for shards in first.planes.values() for shard in shards
    }
    assert [shard.study_ids for shard in manifest.planes["sagittal_t2"]] == [
        ("10", "12"),
        ("13",),
        ("11", "14"),
    ]
    folds = read_folds(tmp_path / "out" / "folds.csv", manifest.patient_groups)
    assert folds["14"] == folds["10"]
    assert all(f"{study},{folds[study]}".encode() in old["folds.csv"] for study in ("10", "12", "13"))
    assert _build(cohort, tmp_path / "out", mode=BuildMode.APPEND) == manifest
    assert read_tree(tmp_path / "out") == new


def test_studies_are_added_only_beside_the_old_ones_or_under_a_key(cohort: Path, tmp_path: Path) -> None:
    _hold_back(cohort, tmp_path / "aside", "14")
    key = bytes(range(32))
    secret = OPTIONS.model_copy(update={"is_pseudonymised": True})
    _build(cohort, tmp_path / "plain")
    first = _build(cohort, tmp_path / "secret", key=key, options=secret)
    with pytest.raises(ValueError, match=r"Missing: 4, the first is 10"):
        _build(tmp_path / "aside", tmp_path / "plain", mode=BuildMode.APPEND)
    new = cohort.with_name("new") / "train_images"
    new.parent.mkdir()
    (tmp_path / "aside").rename(new)
    table = "train_series_descriptions.csv"
    (new.parent / table).write_text((cohort / table).read_text())
    manifest = _build(new.parent, tmp_path / "secret", key=key, options=secret, mode=BuildMode.APPEND)
    (added,) = (each for each in manifest.studies if each not in first.studies)
    by_group = [each.study_id for each in manifest.studies if each.patient_group == added.patient_group]
    # Study 14 is of the patient of study 10, which nobody can read from the ids.
    assert len(by_group) == 2
    assert (
        read_folds(tmp_path / "secret" / "folds.csv", manifest.patient_groups)[by_group[0]]
        == (read_folds(tmp_path / "secret" / "folds.csv", manifest.patient_groups)[by_group[1]])
    )


def test_pseudonyms_leave_no_id_and_change_no_pixel(cohort: Path, tmp_path: Path, read_tree: Tree) -> None:
    secret = OPTIONS.model_copy(update={"is_pseudonymised": True})
    plain = _build(cohort, tmp_path / "plain")
    manifest = _build(cohort, tmp_path / "secret", key=bytes(range(32)), options=secret)
    assert sorted(each.source_digest for each in manifest.studies) == sorted(
        each.source_digest for each in plain.studies
    )
    text = (tmp_path / "secret" / "manifest.json").read_text()
    assert '"10"' not in text
    assert not set(read_record_labels(tmp_path / "secret")) & {"10", "11", "12", "13", "14"}
    assert sorted(map(tuple, read_record_labels(tmp_path / "secret").values())) == sorted(
        map(tuple, read_record_labels(tmp_path / "plain").values())
    )


def test_the_first_fault_is_fatal_under_strict(cohort: Path, tmp_path: Path) -> None:
    _build(cohort, tmp_path / "a", is_strict=True)  # a file that is no DICOM is no fault
    path = cohort / "train_images" / "11" / "1" / "2.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"part 0 .*--strict: study 11, .*file 2\.dcm: "):
        _build(cohort, tmp_path / "b", is_strict=True)
    assert len(_build(cohort, tmp_path / "c").studies) == 5


def test_two_builds_at_a_time_are_refused(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_again(*_: object) -> None:
        with pytest.raises(ValueError, match="one build at a time"):
            _build(cohort, tmp_path / "out", mode=BuildMode.OVERWRITE)
        raise OSError("seen")

    monkeypatch.setattr("lumbar_tf.records.shards.make_study_records", build_again)
    with pytest.raises(JobError, match="seen"):
        _build(cohort, tmp_path / "out")


def test_too_few_studies_for_the_folds_are_refused_first(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fold"):
        _build(cohort, tmp_path / "out", options=OPTIONS.model_copy(update={"num_folds": 6}))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("num_folds", "rule"), [(6, "6 folds, 5 studies"), (5, "5 folds, 4 patients")])
def test_folds_beyond_the_cohort_are_an_error_of_the_call(
    cohort: Path, tmp_path: Path, num_folds: int, rule: str
) -> None:
    # Studies 10 and 14 are of one patient.
    with pytest.raises(UsageError, match=f"`folds` must be at most the number of .*{rule}"):
        _build(cohort, tmp_path / "out", options=OPTIONS.model_copy(update={"num_folds": num_folds}))
    assert list((tmp_path / "out").iterdir()) == []


#: Studies 10 and 14 are of one patient.
GIVEN_FOLDS = {"10": 2, "11": 0, "12": 1, "13": 0, "14": 2, "of another cohort": 1}


def _write_folds(path: Path, folds: dict[str, int], column: str) -> Path:
    rows = [f"{study},{fold},more" for study, fold in folds.items()]
    path.write_text("\n".join([f"study_id,{column},other", *rows]) + "\n")
    return path


@pytest.mark.parametrize("column", ["fold_id", "fold"])
def test_given_folds_are_kept(cohort: Path, tmp_path: Path, read_tree: Tree, column: str) -> None:
    table = _write_folds(tmp_path / "mine.csv", GIVEN_FOLDS, column)
    lumbar_tf.build_records(cohort, tmp_path / "out", folds_file=table, studies_per_shard=2)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.options.num_folds == 3
    kept = {study: fold for study, fold in GIVEN_FOLDS.items() if study != "of another cohort"}
    assert read_folds(tmp_path / "out" / "folds.csv", manifest.patient_groups) == kept
    # Only the folds differ from those of a build that assigns them.
    _build(cohort, tmp_path / "assigned")
    given, assigned = read_tree(tmp_path / "out"), read_tree(tmp_path / "assigned")
    assert {name for name in given.keys() | assigned.keys() if given[name] != assigned[name]} == {"folds.csv"}


def test_given_folds_are_those_of_the_ids_before_pseudonyms(cohort: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("k" * 40)
    table = _write_folds(tmp_path / "mine.csv", GIVEN_FOLDS, "fold")
    lumbar_tf.build_records(cohort, tmp_path / "out", folds_file=table, pseudonym_key_file=key_file)
    folds = read_folds(tmp_path / "out" / "folds.csv", read_manifest(tmp_path / "out").patient_groups)
    key = read_key(key_file)
    assert folds == {
        pseudonym(key, IdKind.STUDY, study): fold for study, fold in GIVEN_FOLDS.items() if study.isdecimal()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"14": 0}, "must keep a patient in one fold. Received: study 10 in fold 2, study 14"),
        ({"12": None}, "must give a fold .* to every study of the records. Received: none for 12"),
        ({"12": 0}, "each of the folds 0 to 2. Received: none for fold 1"),
        ({"12": 10**15}, "`folds` must be at most the number of studies"),
        ({"12": -1}, "with a fold 0, 1"),
    ],
)
def test_given_folds_that_do_not_fit_are_refused_before_anything_is_built(
    cohort: Path, tmp_path: Path, change: dict[str, int | None], message: str
) -> None:
    folds = {study: fold for study, fold in {**GIVEN_FOLDS, **change}.items() if fold is not None}
    folds.pop("of another cohort")
    table = _write_folds(tmp_path / "mine.csv", folds, "fold")
    with pytest.raises(ValueError, match=message):
        lumbar_tf.build_records(cohort, tmp_path / "out", folds_file=table)
    assert not list((tmp_path / "out").rglob("*.tfrecord"))


def test_a_build_is_not_resumed_with_other_given_folds(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folds = tmp_path / "out", {study: GIVEN_FOLDS[study] for study in ("10", "11", "12", "13", "14")}
    with monkeypatch.context() as patch:
        patch.setattr("lumbar_tf.records.build.write_manifest", _no_space)
        with pytest.raises(OSError, match="no space"):
            _build(cohort, out, folds=folds)
    with pytest.raises(ValueError, match="other studies, options"):
        _build(cohort, out, folds={**folds, "12": 0, "11": 1}, mode=BuildMode.RESUME)
    _build(cohort, out, folds=folds, mode=BuildMode.RESUME)
    assert read_folds(out / "folds.csv", read_manifest(out).patient_groups) == folds


def test_appended_studies_get_their_given_folds(cohort: Path, tmp_path: Path) -> None:
    out, folds = tmp_path / "out", {study: GIVEN_FOLDS[study] for study in ("10", "11", "12", "13", "14")}
    _hold_back(cohort, tmp_path / "aside", "13")
    _build(cohort, out, folds=folds)
    (tmp_path / "aside" / "13").rename(cohort / "train_images" / "13")
    _build(cohort, out, folds={**folds, "13": 1}, mode=BuildMode.APPEND)
    assert read_folds(out / "folds.csv", read_manifest(out).patient_groups) == {**folds, "13": 1}


def test_a_source_without_a_usable_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "study" / "s").mkdir(parents=True)
    (tmp_path / "in" / "study" / "s" / "1.dcm").write_bytes(b"junk")
    with pytest.raises(ValueError, match="usable"):
        _build(tmp_path / "in", tmp_path / "out", options=OPTIONS.model_copy(update={"num_folds": 1}))


def test_building_needs_no_tensorflow() -> None:
    modules = "lumbar_tf.records.build, lumbar_tf.records.patients"
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


@pytest.mark.slow
def test_the_command_builds_forgets_and_says_what_it_did(cohort: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lumbar_tf.build_records", f"--out={tmp_path / 'out'}", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)

    built = run(f"--data={cohort}", "--folds=3", "--studies-per-shard=2")
    assert built.returncode == 0, built.stderr
    lines = [line.split() for line in built.stdout.splitlines()]
    assert ["studies", "5"] in lines and ["patients", "4"] in lines
    assert "1 x not_dicom" in built.stdout
    assert "Building records: 5/5" in built.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]["studies_per_shard"] == 2
    forgotten = run("--forget=14")
    assert forgotten.returncode == 0, forgotten.stderr
    assert ["studies", "removed", "2"] in [line.split() for line in forgotten.stdout.splitlines()]
    assert run("--forget=14", "--append").returncode == 2
    assert run("--append").returncode == 2
    assert run(f"--data={cohort}").returncode == 1
