"""Jobs, their parts and their files; `test_end_to_end.py` trains networks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.config import EarlyStoppingConfig, PlaneConfig, TrainingConfig, load_plane_config
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import BuildOptions, Manifest, Shard, StudyEntry
from lumbar_tf.training.cross_validation import (
    TrainingJob,
    early_stopping_studies,
    finish_member,
    grader_jobs,
    localizer_jobs,
    split_by_fold,
    split_fold,
)
from lumbar_tf.training.metadata import write_fold_metadata, write_member_metadata
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from tests.training.located_runs import open_located, write_found

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Twelve patients with two studies each.
STUDIES = tuple(f"{patient}{item}" for patient in "abcdefghijkl" for item in "12")


def _config() -> PlaneConfig:
    return load_plane_config(CONFIGS / "sagittal_t2.yaml")


@pytest.fixture
def run(tmp_path: Path) -> PlaneRun:
    """A run with three folds of whole patients, without files."""
    entries = tuple(
        StudyEntry(study_id=study, patient_group=f"{study[0]}1", source_digest="", num_slices={})
        for study in STUDIES
    )
    shard = Shard(file="a", sha256="", size_bytes=0, num_examples=len(STUDIES), study_ids=STUDIES)
    manifest = Manifest(
        schema_version="2.0.0",
        packages={},
        options=BuildOptions(studies_per_shard=64, num_folds=3, fold_seed=0),
        planes={"sagittal_t2": (shard,)},
        studies=entries,
        rejects=(),
    )
    folds = {study: place // 2 % 3 for place, study in enumerate(STUDIES)}
    return PlaneRun(_config(), tmp_path / "records", tmp_path / "runs", manifest, folds)


def _training(**changes: Any) -> TrainingConfig:
    return TrainingConfig(epochs=1, batch_studies=2, learning_rate=0.1, **changes)


def test_early_stopping_studies_are_whole_training_patients(run: PlaneRun) -> None:
    """No patient is in two parts, and none of the held-out fold is in the early-stopping part."""
    training = _training(early_stopping=EarlyStoppingConfig(patience=1, share=0.25))
    sources = split_fold(run, 1, training, seed=1)
    train, watched, held_out = (
        set(part.study_ids) for part in (sources.train, sources.early_stopping, sources.held_out)
    )
    assert train | watched | held_out == set(STUDIES)
    assert len(train) + len(watched) + len(held_out) == len(STUDIES)
    assert held_out == {study for study in STUDIES if run.folds[study] == 1}
    assert len(watched) == 4, "a quarter of eight training patients"
    patients = [{study[0] for study in part} for part in (train, watched, held_out)]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert split_fold(run, 1, training, seed=1) == sources
    chosen = {split_fold(run, 1, training, seed=seed).early_stopping.study_ids for seed in range(5)}
    assert len(chosen) > 1


def test_all_training_studies_are_used_without_early_stopping(run: PlaneRun) -> None:
    sources = split_fold(run, 0, _training(), seed=0)
    assert not sources.early_stopping.study_ids
    assert set(sources.train.study_ids) == {study for study in STUDIES if run.folds[study] != 0}


def test_early_stopping_needs_two_patients(run: PlaneRun) -> None:
    with pytest.raises(ValueError, match="two training patients"):
        early_stopping_studies(run, STUDIES[:2], share=0.5, seed=0)


def test_fold_without_training_studies_is_refused(run: PlaneRun) -> None:
    alone = PlaneRun(run.config, run.records, run.runs, run.manifest, dict.fromkeys(STUDIES, 0))
    with pytest.raises(ValueError, match="Fold 0 leaves no study"):
        split_fold(alone, 0, _training(), seed=0)


def test_jobs_are_split_by_fold_for_many_workers(run: PlaneRun) -> None:
    jobs = localizer_jobs(run, (0, 2)) + grader_jobs(run, (0, 2))
    assert [job.name for job in jobs] == [
        f"sagittal_t2/{member}" for member in (LOCALIZER, *run.config.grader.backbones)
    ]
    parts = split_by_fold(jobs)
    assert [(part.member, part.folds, part.is_part) for part in parts] == [
        (job.member, (fold,), True) for job in jobs for fold in (0, 2)
    ]
    assert len({part.name for part in parts}) == len(parts)
    assert parts[1].name == "sagittal_t2/localizer fold 2"


def test_folds_have_distinct_seeds(run: PlaneRun) -> None:
    assert len({run.fold_seed(fold) for fold in range(5)}) == 5


def test_member_metadata_names_origin_and_folds(run: PlaneRun) -> None:
    member = run.config.grader.backbones[0]
    origin = {"config_sha256": "c", "folds_sha256": "f", "manifest_sha256": "m"}
    run.directory.mkdir(parents=True)
    (run.directory / "run.json").write_text(json.dumps(origin))
    for fold in (0, 2):
        directory = run.fold_directory(member, fold)
        directory.mkdir(parents=True)
        weights = directory / "weights.weights.h5"
        weights.write_bytes(b"w")
        write_fold_metadata(
            directory, [weights], seed=run.fold_seed(fold), epochs=7, best_epoch=7, num_replicas=1
        )
    (run.fold_directory(member, 0) / "oof.csv").write_text("row_id\n")
    write_member_metadata(run, member)
    record = json.loads((run.member_directory(member) / "run.json").read_text())
    assert record["origin"] == origin
    assert record["member"] == f"sagittal_t2/{member}"
    # Fold 2 has weights and no table: it is not done.
    assert list(record["folds"]) == ["0"] and record["is_complete"] is False
    fold = record["folds"]["0"]
    assert (fold["seed"], fold["epochs"], fold["device"].split()[0]) == (0, 7, "CPU")
    assert fold["finished_at"].endswith("+00:00")
    assert list(fold["weights_sha256"]) == ["weights.weights.h5"]
    assert len(fold["table_sha256"]) == 64
    assert {"tensorflow", "keras", "numpy", "lumbar_tf"} <= set(fold["packages"])


@pytest.mark.parametrize("plane", [Plane.SAGITTAL_T2, Plane.SAGITTAL_T1])
def test_a_localizer_that_withholds_every_point_ends_training(tmp_path: Path, plane: Plane) -> None:
    run = open_located(tmp_path, plane)
    run.directory.mkdir(parents=True)
    origin = {"config_sha256": "c", "folds_sha256": "f", "manifest_sha256": "m"}
    (run.directory / "run.json").write_text(json.dumps(origin))
    (job,) = localizer_jobs(run, (0, 1, 2))
    for fold in range(3):
        write_found(run, plane, fold, miss_mm=np.nan)
    with pytest.raises(
        ValueError, match=f"localizer of {plane.value} must find a point.* 3 held-out studies"
    ):
        finish_member(job)
    # Nothing that looks like a result is left, and a second start ends in the same way.
    assert not (run.member_directory(LOCALIZER) / "error.json").exists()
    with pytest.raises(ValueError, match="must find a point"):
        finish_member(job)
    # Points in one fold are enough to go on.
    write_found(run, plane, 1, miss_mm=1.0)
    assert "held-out points, median error 1.7 mm" in finish_member(job)


def test_failing_page_is_a_warning(run: PlaneRun) -> None:
    member = run.config.grader.backbones[0]
    run.directory.mkdir(parents=True)
    (run.directory / "run.json").write_text("{}")
    told: list[tuple[PlaneRun, str]] = []

    def on_update(run: PlaneRun, member: str) -> None:
        told.append((run, member))
        raise OSError("no space left")

    with pytest.warns(UserWarning, match="no space left"):
        finish_member(TrainingJob(run, member, (0,), on_update=on_update))
    assert told == [(run, member)]
    assert (run.member_directory(member) / "run.json").is_file()


def test_fold_is_done_if_its_table_exists(run: PlaneRun) -> None:
    assert not run.is_done(LOCALIZER, 0)
    (run.fold_directory(LOCALIZER, 0)).mkdir(parents=True)
    (run.fold_directory(LOCALIZER, 0) / "landmarks.csv").touch()
    assert run.is_done(LOCALIZER, 0)
    assert not run.is_done("mobilenet_v2", 0)
    assert TrainingJob(run, LOCALIZER, (0,)).name == "sagittal_t2/localizer"
