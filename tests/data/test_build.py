import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.data.build import build_records
from lumbar_tf.data.folds import read_folds
from lumbar_tf.labels import FINDINGS, Plane
from lumbar_tf.records.manifest import BuildOptions, read_manifest
from lumbar_tf.records.schema import parse_example

REPOSITORY = Path(__file__).resolve().parents[2]
AXIAL = [1, 0, 0, 0, 1, 0]
OPTIONS = BuildOptions(studies_per_shard=2, num_folds=3, fold_seed=0)


@pytest.fixture
def cohort(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    """Five studies of four patients in the competition's layout; one has no axial series."""
    root = tmp_path / "cohort"
    rng = np.random.default_rng(0)
    series = ["study_id,series_id,series_description"]
    labels = ["study_id," + ",".join(each.name for each in FINDINGS)]
    points = ["study_id,series_id,instance_number,condition,level,x,y"]
    for index in range(5):
        study = str(10 + index)
        labels.append(f"{study},{','.join(['Normal/Mild', 'Moderate', 'Severe', '', 'Severe'] * 5)}")
        points.append(f"{study},1,2,Spinal Canal Stenosis,L1/L2,3,4")
        planes = [("1", "Sagittal T2/STIR"), ("2", "Axial T2")][: 1 if index == 2 else 2]
        for series_id, description in planes:
            series.append(f"{study},{series_id},{description}")
            for number in (1, 2, 3):
                write_dicom(
                    root / "train_images" / study / series_id / f"{number}.dcm",
                    rng.integers(0, 900, (6, 8)).astype(np.uint16),
                    PatientID=f"Doe-{index % 4}",
                    PatientName="Doe^Jane",
                    InstanceNumber=number,
                    ImagePositionPatient=[float(number), 0.0, 5.0 * number],
                    **({"ImageOrientationPatient": AXIAL} if series_id == "2" else {}),
                )
    (root / "train_images" / "13" / "1" / "bad.dcm").write_bytes(b"junk")
    (root / "train.csv").write_text("\n".join(labels) + "\n")
    (root / "train_series_descriptions.csv").write_text("\n".join(series) + "\n")
    (root / "train_label_coordinates.csv").write_text("\n".join(points) + "\n")
    return root


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_records_hold_what_the_folder_held(cohort: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    manifest = build_records([cohort], tmp_path / "out", OPTIONS)
    assert read_manifest(tmp_path / "out") == manifest
    assert [each.study_id for each in manifest.studies] == ["10", "11", "12", "13", "14"]
    assert manifest.studies[2].num_slices == {"sagittal_t2": 3}
    # Studies 10 and 14 are of one patient.
    assert [each.patient_group for each in manifest.studies] == ["10", "11", "12", "13", "10"]
    assert [(each.study_id, each.file_name, each.reason) for each in manifest.rejects] == [
        ("13", "bad.dcm", "not_dicom")
    ]
    paths = manifest.shard_paths(tmp_path / "out", Plane.AXIAL_T2)
    assert [path.name for path in paths] == [f"part-{index:05}-of-00003.tfrecord" for index in range(3)]
    records = [parse_example(each) for each in tf.data.TFRecordDataset([str(path) for path in paths])]
    assert [record["study_id"].numpy().decode() for record in records] == ["10", "11", "13", "14"]
    for record in records:
        seen.extend(record["labels"].numpy().tolist())
        # Column 3 of 0.75 mm along y, row 4 of 0.5 mm down, on the second sagittal slice.
        np.testing.assert_allclose(record["points"][0], (2.0, 2.25, 8.0))
    assert seen == [0, 1, 2, -1, 2] * 5 * 4
    folds = read_folds(tmp_path / "out" / "folds.csv", manifest)
    assert folds["10"] == folds["14"]
    assert set(folds.values()) == {0, 1, 2}


def test_shards_carry_their_digest(cohort: Path, tmp_path: Path) -> None:
    manifest = build_records([cohort], tmp_path / "out", OPTIONS)
    for shards in manifest.planes.values():
        for shard in shards:
            path = tmp_path / "out" / shard.file
            assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256
            assert (
                sum(1 for _ in tf.data.TFRecordDataset([str(path)]))
                == shard.num_examples
                == len(shard.study_ids)
            )


def test_nothing_names_the_patient(cohort: Path, tmp_path: Path) -> None:
    build_records([cohort], tmp_path / "out", OPTIONS)
    for name, data in _tree(tmp_path / "out").items():
        assert b"Doe" not in data, name
        assert str(cohort).encode() not in data, name


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_one(cohort: Path, tmp_path: Path) -> None:
    trees = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        build_records([cohort], out, OPTIONS, workers=workers)
        trees.append(_tree(out))
    assert trees[0] == trees[1]
    assert len(trees[0]) == 3 + 3 + 2


def test_several_sources_are_joined_and_must_not_share_a_study(
    cohort: Path, tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    other = tmp_path / "other" / "20"
    write_dicom(
        other / "s" / "1.dcm", np.ones((4, 4), np.uint16), PatientID="Doe-1", SeriesDescription="Sag T1"
    )
    manifest = build_records([cohort, other.parent], tmp_path / "out", OPTIONS)
    assert manifest.studies[-1].study_id == "20"
    assert manifest.studies[-1].patient_group == "11"
    assert manifest.studies[-1].num_slices == {"sagittal_t1": 1}
    with pytest.raises(ValueError, match="10 in two folders"):
        build_records([cohort, cohort], tmp_path / "out", OPTIONS)


def test_a_second_build_leaves_no_shard_of_the_first(cohort: Path, tmp_path: Path) -> None:
    build_records([cohort], tmp_path / "a", OPTIONS)
    whole = BuildOptions(studies_per_shard=64, num_folds=3, fold_seed=0)
    build_records([cohort], tmp_path / "a", whole)
    build_records([cohort], tmp_path / "b", whole)
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")


def test_a_failed_build_leaves_no_manifest(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_records([cohort], tmp_path / "out", OPTIONS)
    monkeypatch.setattr("lumbar_tf.data.build.write_folds", _no_space)
    with pytest.raises(OSError, match="no space"):
        build_records([cohort], tmp_path / "out", OPTIONS)
    with pytest.raises(ValueError, match="did not finish"):
        read_manifest(tmp_path / "out")


def _no_space(*_: object) -> None:
    raise OSError("no space left")


def test_too_few_studies_for_the_folds_are_refused_first(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fold"):
        build_records([cohort], tmp_path / "out", OPTIONS.model_copy(update={"num_folds": 6}))
    assert not (tmp_path / "out").exists()


def test_a_source_without_a_usable_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "study" / "s").mkdir(parents=True)
    (tmp_path / "in" / "study" / "s" / "1.dcm").write_bytes(b"junk")
    options = OPTIONS.model_copy(update={"num_folds": 1})
    with pytest.raises(ValueError, match="usable"):
        build_records([tmp_path / "in"], tmp_path / "out", options)


@pytest.mark.slow
def test_the_command_builds_and_says_what_it_made(cohort: Path, tmp_path: Path) -> None:
    words = ["-m", "lumbar_tf.build_records", f"--data={cohort}", f"--out={tmp_path / 'out'}", "--folds=3"]
    result = subprocess.run(
        [sys.executable, *words, "--studies-per-shard=2"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "5 studies of 4 patients" in result.stdout
    assert "1 x not_dicom" in result.stdout
    assert "Building records: 5/5" in result.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]["studies_per_shard"] == 2
