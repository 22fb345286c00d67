"""A run of a plane as training leaves it, without training: histories, records, tables, errors."""

import json
from pathlib import Path

import numpy as np

from lumbar_tf.config import load_plane_config
from lumbar_tf.labels import FINDINGS, Family
from lumbar_tf.records.manifest import BuildOptions, Manifest, Shard, StudyEntry
from lumbar_tf.tables.labels import write_record_labels
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.training.localization_metrics import measure_level_errors
from lumbar_tf.training.metadata import write_fold_metadata
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from tests.graded_cohort import draw_labels

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NASTY = "<script>alert(1)</script>"
BACKBONE = "mobilenet_v2"
#: The last one's id is nasty.
STUDIES = (*(str(100 + number) for number in range(29)), NASTY)
NUM_FOLDS = 3


def make_run(folder: Path) -> PlaneRun:
    """Returns a sagittal T2 run on thirty studies with labels, of which nothing is trained yet."""
    shard = Shard(file="a", sha256="", size_bytes=0, num_examples=len(STUDIES), study_ids=STUDIES)
    manifest = Manifest(
        schema_version="2.0.0",
        packages={},
        options=BuildOptions(studies_per_shard=64, num_folds=NUM_FOLDS, fold_seed=0),
        planes={"sagittal_t2": (shard,)},
        studies=tuple(
            StudyEntry(study_id=study_id, patient_group=study_id, source_digest="", num_slices={})
            for study_id in STUDIES
        ),
        rejects=(),
    )
    overrides = ("grader.training.batch_studies=4", f"grader.backbones=[{BACKBONE}]")
    config = load_plane_config(CONFIGS / "sagittal_t2.yaml", overrides=overrides)
    folds = {study: place % NUM_FOLDS for place, study in enumerate(STUDIES)}
    labels = draw_labels(len(STUDIES)).astype(np.int8)
    (folder / "records").mkdir(parents=True)
    write_record_labels(folder / "records", dict(zip(STUDIES, labels, strict=True)))
    return PlaneRun(config, folder / "records", folder / "runs", manifest, folds)


def train_fold(run: PlaneRun, member: str, fold: int, *, num_epochs: int = 4) -> None:
    """Writes what a fold leaves: seconds 9 and then 2, a loss of 1 / epoch, answers that know the canal."""
    directory = run.fold_directory(member, fold)
    directory.mkdir(parents=True)
    history = [
        {
            "epoch": float(epoch),
            "loss": 1.0 / epoch,
            "val_loss": 1.5 / epoch,
            "val_weighted_log_loss": 1.2 / epoch,
            "learning_rate": 0.01 / epoch,
            "seconds": 9.0 if epoch == 1 else 2.0,
        }
        for epoch in range(1, num_epochs + 1)
    ]
    (directory / "history.json").write_text(json.dumps(history))
    weights = directory / "weights.weights.h5"
    weights.write_bytes(b"w")
    write_fold_metadata(
        directory,
        [weights],
        seed=run.fold_seed(fold),
        epochs=num_epochs,
        best_epoch=num_epochs,
        num_replicas=1,
    )
    if member == LOCALIZER:
        (directory / "landmarks.csv").touch()
        return
    held_out = [study for study in STUDIES if run.folds[study] == fold]
    write_out_of_fold_table(
        directory / "oof.csv",
        held_out,
        answers(held_out),
        folds=[fold] * len(held_out),
        model=run.member_name(member),
    )


def answers(study_ids: list[str]) -> np.ndarray:
    """Returns [n, 25, 3] of the canal, right by a half, and of nothing else; the nasty study is worst."""
    labels = draw_labels(len(STUDIES))[[STUDIES.index(study_id) for study_id in study_ids]]
    predicted = np.where(np.eye(3)[labels] > 0, 0.5, 0.25)
    predicted[[study_id == NASTY for study_id in study_ids]] = (1e-6, 1e-6, 1 - 2e-6)
    others = [row for row, finding in enumerate(FINDINGS) if finding.condition.family is not Family.CANAL]
    predicted[:, others] = np.nan
    return predicted


def write_error(run: PlaneRun) -> None:
    """Writes the localizer's error: 3 mm at L1/L2 to 7 mm at L5/S1, of ten studies."""
    annotated = {study_id: np.zeros((25, 3), np.float32) for study_id in STUDIES[:10]}
    miss = np.zeros((25, 3), np.float32)
    miss[:, 2] = 3.0 + np.arange(25) % 5
    levels = measure_level_errors(dict.fromkeys(annotated, miss), annotated)
    content = {
        "num_points": 250, "num_withheld": 2, "median_mm": 5.0, "within_10_mm": 1.0, "own_level": 0.998,
        "sd_mm": [0.0, 0.0, 5.2],
        "level_shift": {"num_studies": 10, "num_shifted": 2, "num_flagged": 3, "num_caught": 1},
        "levels": [{**vars(error), "level": error.level.value} for error in levels],
    }  # fmt: skip
    path = run.member_directory(LOCALIZER) / "error.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
