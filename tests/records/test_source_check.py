import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lumbar_tf.records.build import BuildMode, BuildTask, run_build_task
from lumbar_tf.records.cohort import make_study_records, open_cohort
from lumbar_tf.records.framing import RecordWriter, read_records
from lumbar_tf.records.issues import RecordIssue
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.records.patients import remove_patients
from lumbar_tf.records.source_check import verify_source
from lumbar_tf.records.table_check import check_tables
from lumbar_tf.records.verification import verify_records

OPTIONS = BuildOptions(studies_per_shard=2, num_folds=3, fold_seed=0)
KEY = bytes(range(32))
T2 = "sagittal_t2/part-00000.tfrecord"
Named = set[tuple[str, str, str]]


@pytest.fixture
def records(cohort: Path, tmp_path: Path) -> Path:
    """Shards (10, 11), (12, 13), (14); 10 and 14 are of one patient, 12 has no axial series."""
    run_build_task(BuildTask(sources=[cohort], out=tmp_path / "out", options=OPTIONS))
    return tmp_path / "out"


def _check(
    records: Path, *sources: Path, key: bytes | None = None, workers: int = 1
) -> Sequence[RecordIssue]:
    verification = verify_records(records)
    rebuild = partial(make_study_records, options=OPTIONS, key=key)
    with open_cohort(sources, key=key) as cohort:
        return verify_source(records, verification, cohort.jobs, rebuild, workers=workers)


def _named(found: Sequence[RecordIssue]) -> Named:
    return {(each.code.value, each.file, each.study_id) for each in found}


def test_records_are_what_their_source_gives(records: Path, cohort: Path) -> None:
    verification = verify_records(records)
    assert verification.found == ()
    assert check_tables(records, verification) == []
    assert _check(records, cohort) == ()


def test_records_under_pseudonyms_are_what_their_source_gives(cohort: Path, tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"is_pseudonymised": True})
    run_build_task(BuildTask(sources=[cohort], out=tmp_path / "secret", options=options, key=KEY))
    assert verify_records(tmp_path / "secret").found == ()
    assert _check(tmp_path / "secret", cohort, key=KEY) == ()


@pytest.mark.slow
def test_workers_find_the_same(records: Path, cohort: Path) -> None:
    shutil.rmtree(cohort / "train_images" / "13")
    assert _check(records, cohort, workers=2) == _check(records, cohort) != ()


def test_a_file_that_changed_is_named(records: Path, cohort: Path) -> None:
    path = cohort / "train_images" / "11" / "1" / "2.dcm"
    dataset = pydicom.dcmread(path)
    dataset.InstitutionName = "elsewhere"
    dataset.save_as(path)
    assert _named(_check(records, cohort)) == {("source_changed", "manifest.json", "11")}


def test_a_file_that_is_gone_or_new_is_named(
    records: Path, cohort: Path, write_dicom: Callable[..., Path]
) -> None:
    (cohort / "train_images" / "10" / "1" / "3.dcm").unlink()
    write_dicom(cohort / "train_images" / "12" / "1" / "4.dcm", np.ones((6, 8), np.uint16))
    assert _named(_check(records, cohort)) == {
        ("source_changed", "manifest.json", "10"),
        ("source_changed", "manifest.json", "12"),
    }


def test_studies_that_are_gone_or_new_are_named(
    records: Path, cohort: Path, write_dicom: Callable[..., Path]
) -> None:
    shutil.rmtree(cohort / "train_images" / "13")
    write_dicom(cohort / "train_images" / "20" / "1" / "1.dcm", np.ones((6, 8), np.uint16))
    assert _named(_check(records, cohort)) == {
        ("source_missing", "manifest.json", "13"),
        ("source_added", "manifest.json", "20"),
    }


def test_a_forgotten_patient_that_the_source_still_has_is_named(records: Path, cohort: Path) -> None:
    remove_patients(records, ["10"])
    assert verify_records(records).found == ()
    assert _named(_check(records, cohort)) == {
        ("source_added", "manifest.json", "10"),
        ("source_added", "manifest.json", "14"),
    }


def test_a_study_that_gave_no_records_is_known(cohort: Path, tmp_path: Path) -> None:
    empty = cohort / "train_images" / "20" / "1"
    empty.mkdir(parents=True)
    (empty / "1.dcm").write_bytes(b"junk")
    run_build_task(BuildTask(sources=[cohort], out=tmp_path / "out", options=OPTIONS))
    assert _check(tmp_path / "out", cohort) == ()
    shutil.copytree(cohort / "train_images" / "10" / "1", empty, dirs_exist_ok=True)
    with (cohort / "train_series_descriptions.csv").open("a") as file:
        file.write("20,1,Sagittal T2/STIR\n")
    assert _named(_check(tmp_path / "out", cohort)) == {("source_changed", "manifest.json", "20")}


def test_labels_and_points_of_changed_tables_are_named(records: Path, cohort: Path) -> None:
    labels = cohort / "train.csv"
    labels.write_text(labels.read_text().replace("11,Normal/Mild,Moderate", "11,Normal/Mild,Severe"))
    points = cohort / "train_label_coordinates.csv"
    points.write_text(points.read_text().replace("12,1,2,Spinal Canal Stenosis,L1/L2,3,4", ""))
    found = _check(records, cohort)
    assert _named(found) == {
        ("record_differs", T2, "11"),
        ("record_differs", T2.replace("sagittal", "axial"), "11"),
        ("record_differs", T2.replace("00000", "00001"), "12"),
    }
    assert {(each.study_id, each.message) for each in found} == {
        ("11", "the source gives other values of labels"),
        ("12", "the source gives other values of points"),
    }


def _forge(records: Path, file: str, old: bytes, new: bytes) -> None:
    """Changes bytes of a shard and everything that could tell: checksums and manifest."""
    shard = [each.replace(old, new, 1) for each in read_records(records / file)]
    with (records / file).open("wb") as stream:
        writer = RecordWriter(stream)
        for each in shard:
            writer.write(each)
    content = json.loads((records / "manifest.json").read_text())
    for entry in content["planes"][file.partition("/")[0]]:
        if entry["file"] == file:
            entry["sha256"] = writer.sha256
    (records / "manifest.json").write_text(json.dumps(content))


def test_pixels_that_fit_every_checksum_but_not_the_source_are_named(records: Path, cohort: Path) -> None:
    dataset = pydicom.dcmread(cohort / "train_images" / "10" / "1" / "1.dcm")
    row = dataset.PixelData[:16]
    _forge(records, T2, row, bytes(reversed(row)))
    assert verify_records(records).found == ()
    (found,) = _check(records, cohort)
    assert (found.code.value, found.file, found.record, found.study_id) == ("record_differs", T2, 0, "10")
    assert found.message == "the source gives other values of slices/image"


def test_a_manifest_that_tells_something_else_is_named(records: Path, cohort: Path) -> None:
    content = json.loads((records / "manifest.json").read_text())
    content["studies"][0]["series"][0]["vendor"] = "ge"
    content["rejects"] = []
    content["packages"]["numpy"] = "1.0"
    (records / "manifest.json").write_text(json.dumps(content))
    found = _check(records, cohort)
    assert _named(found) == {
        ("manifest_differs", "manifest.json", "10"),
        ("manifest_differs", "manifest.json", "13"),
    }
    assert {each.message for each in found} == {
        "series differs from that of its files; built with other versions of numpy",
        "rejects lack 1 of it: not_dicom; built with other versions of numpy",
    }


def test_damaged_records_are_left_to_the_other_check(records: Path, cohort: Path) -> None:
    data = bytearray((records / T2).read_bytes())
    data[200] ^= 1
    (records / T2).write_bytes(data)
    assert verify_records(records).found != ()
    assert _check(records, cohort) == ()
    (records / "manifest.json").unlink()
    assert _check(records, cohort) == ()


def test_records_with_added_studies_are_sound(cohort: Path, tmp_path: Path) -> None:
    out, late = tmp_path / "out", tmp_path / "late"
    shutil.move(cohort / "train_images" / "14", late)
    task = BuildTask(sources=[cohort], out=out, options=OPTIONS)
    run_build_task(task)
    shutil.move(late, cohort / "train_images" / "14")
    assert _named(_check(out, cohort)) == {("source_added", "manifest.json", "14")}
    run_build_task(replace(task, mode=BuildMode.APPEND))
    verification = verify_records(out)
    assert verification.found == ()
    assert check_tables(out, verification) == []
    assert _check(out, cohort) == ()
