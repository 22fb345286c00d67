"""Jobs, their parts and what they leave; that networks learn is shown in `test_way.py`."""

import json
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.config import EarlyStoppingConfig, PlaneConfig, TrainingConfig, load_plane_config
from lumbar_tf.records.manifest import BuildOptions, Manifest, Shard, StudyEntry
from lumbar_tf.training.cross_validation import (
    TrainingJob,
    finish_member,
    grader_jobs,
    localizer_jobs,
    split_by_fold,
)
from lumbar_tf.training.fold_metadata import write_fold_metadata
from lumbar_tf.training.run_metadata import write_member_metadata
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from lumbar_tf.training.task import early_stopping_studies, split_fold

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Twelve patients with two studies each.
STUDIES = tuple(f"{patient}{each}" for patient in "abcdefghijkl" for each in "12")


def _config() -> PlaneConfig:
    return load_plane_config(CONFIGS / "sagittal_t2.yaml")


@pytest.fixture
def run(tmp_path: Path) -> PlaneRun:
    """A run with three folds of whole patients, and nothing on disk."""
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


def test_early_stopping_watches_training_patients_only(run: PlaneRun) -> None:
    """The split inside: no patient on both sides, and nobody of the fold that is scored afterwards."""
    training = _training(early_stopping=EarlyStoppingConfig(patience=1, share=0.25))
    sources = split_fold(run, 1, training, seed=1)
    train, watched, held_out = (
        set(each.study_ids) for each in (sources.train, sources.watched, sources.held_out)
    )
    assert train | watched | held_out == set(STUDIES)
    assert len(train) + len(watched) + len(held_out) == len(STUDIES)
    assert held_out == {study for study in STUDIES if run.folds[study] == 1}
    assert len(watched) == 4, "a quarter of eight training patients"
    patients = [{study[0] for study in each} for each in (train, watched, held_out)]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert split_fold(run, 1, training, seed=1) == sources
    chosen = {split_fold(run, 1, training, seed=seed).watched.study_ids for seed in range(5)}
    assert len(chosen) > 1


def test_without_early_stopping_every_training_study_trains(run: PlaneRun) -> None:
    sources = split_fold(run, 0, _training(), seed=0)
    assert not sources.watched.study_ids
    assert set(sources.train.study_ids) == {study for study in STUDIES if run.folds[study] != 0}


def test_one_patient_cannot_be_split(run: PlaneRun) -> None:
    with pytest.raises(ValueError, match="two training patients"):
        early_stopping_studies(run, STUDIES[:2], share=0.5, seed=0)


def test_a_fold_that_leaves_nothing_is_refused(run: PlaneRun) -> None:
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


def test_a_seed_is_its_folds_own(run: PlaneRun) -> None:
    assert len({run.fold_seed(fold) for fold in range(5)}) == 5


def test_a_members_record_names_what_made_it(run: PlaneRun) -> None:
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


def test_a_page_that_cannot_be_made_is_a_warning_and_no_end_of_a_training(run: PlaneRun) -> None:
    member = run.config.grader.backbones[0]
    run.directory.mkdir(parents=True)
    (run.directory / "run.json").write_text("{}")
    told: list[tuple[PlaneRun, str]] = []

    def tell(run: PlaneRun, member: str) -> None:
        told.append((run, member))
        raise OSError("no space left")

    with pytest.warns(UserWarning, match="no space left"):
        finish_member(TrainingJob(run, member, (0,), tell=tell))
    assert told == [(run, member)]
    assert (run.member_directory(member) / "run.json").is_file()


def test_a_fold_is_done_when_its_table_is_there(run: PlaneRun) -> None:
    assert not run.is_answered(LOCALIZER, 0)
    (run.fold_directory(LOCALIZER, 0)).mkdir(parents=True)
    (run.fold_directory(LOCALIZER, 0) / "landmarks.csv").touch()
    assert run.is_answered(LOCALIZER, 0)
    assert not run.is_answered("mobilenet_v2", 0)
    assert TrainingJob(run, LOCALIZER, (0,)).name == "sagittal_t2/localizer"
