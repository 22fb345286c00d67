import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar_tf.config import (
    CropConfig,
    GraderConfig,
    LabelNoiseConfig,
    LocalizerConfig,
    PlaneConfig,
    TrainingConfig,
)
from lumbar_tf.labels import Family, Plane
from lumbar_tf.records.manifest import read_manifest, write_manifest
from lumbar_tf.training.runs import PlaneRun, has_synthetic_studies, open_run

FOLDS = {"a": 0, "b": 1}
TRAINING = TrainingConfig(epochs=1, batch_studies=1, learning_rate=1e-3)


def _config(noise: LabelNoiseConfig | None = None, *, dropout: float = 0.2) -> PlaneConfig:
    return PlaneConfig(
        plane=Plane.SAGITTAL_T2,
        localizer=LocalizerConfig(backbone="csp_darknet_narrow", training=TRAINING),
        grader=GraderConfig(
            backbones=("csp_darknet_narrow",),
            targets=(Family.CANAL,),
            crop=CropConfig(side_mm=40.0, side_px=32, num_slices=1),
            dropout=dropout,
            label_noise=noise,
            training=TRAINING,
        ),
    )


def _reopen(run: PlaneRun, config: PlaneConfig) -> PlaneRun:
    """Opens a run's folder again once a fold of it was begun."""
    run.fold_directory("csp_darknet_narrow", 0).mkdir(parents=True, exist_ok=True)
    return open_run(config, records=run.records, runs=run.runs)


def test_started_run_needs_the_same_configuration(
    start: Callable[..., PlaneRun],
) -> None:
    run = start("first", FOLDS, _config())
    assert _reopen(run, _config()).folds == FOLDS
    with pytest.raises(ValueError, match="with another config"):
        _reopen(run, _config(dropout=0.5))


def test_a_run_of_a_sample_uses_its_studies_only_and_is_no_run_of_all(start: Callable[..., PlaneRun]) -> None:
    folds = {str(study): study % 2 for study in range(10)}
    run = start("first", folds, _config())
    sampled = open_run(_config(), records=run.records, runs=run.records / "sample", num_studies=4)
    used = {study for held_out in (0, 1) for study in sampled.studies(held_out=held_out, is_training=False)}
    assert used == set(sampled.folds) and len(used) == 4
    sampled.fold_directory("csp_darknet_narrow", 0).mkdir(parents=True)
    assert open_run(_config(), records=run.records, runs=sampled.runs, num_studies=4).folds == sampled.folds
    with pytest.raises(ValueError, match="with another folds"):
        open_run(_config(), records=run.records, runs=sampled.runs)


def test_started_run_needs_the_same_label_noise_tables(
    start: Callable[..., PlaneRun], tmp_path: Path
) -> None:
    table = tmp_path / "before.csv"
    table.write_text("one")
    config = _config(LabelNoiseConfig(threshold=0.8, oof=str(tmp_path / "*.csv")))
    run = start("first", FOLDS, config)
    _reopen(run, config)
    table.write_text("another")
    with pytest.raises(ValueError, match="with another noise_tables"):
        _reopen(run, config)


def _open_synthetic(start: Callable[..., PlaneRun], name: str) -> PlaneRun:
    records = start(name, FOLDS, _config()).records
    write_manifest(records, read_manifest(records).model_copy(update={"is_synthetic": True}))
    return open_run(_config(), records=records, runs=records / "runs")


def test_a_run_contains_whether_its_studies_are_synthetic(start: Callable[..., PlaneRun]) -> None:
    patients, synthetic = start("patients", FOLDS, _config()), _open_synthetic(start, "synthetic")
    planes = [Plane.SAGITTAL_T2]
    # Whatever records lie in the folder at export.
    for records in (patients.records, synthetic.records, patients.records / "absent"):
        assert has_synthetic_studies(synthetic.runs, planes, records)
        assert not has_synthetic_studies(patients.runs, planes, records)


@pytest.mark.parametrize("has_run", [True, False])
def test_records_decide_for_a_run_that_does_not_contain_it(
    start: Callable[..., PlaneRun], has_run: bool
) -> None:
    patients, synthetic = start("patients", FOLDS, _config()), _open_synthetic(start, "synthetic")
    path = synthetic.directory / "run.json"
    origin = json.loads(path.read_text())
    del origin["is_synthetic"]
    path.write_text(json.dumps(origin))
    planes = [Plane.SAGITTAL_T2] if has_run else [Plane.AXIAL_T2]
    assert has_synthetic_studies(synthetic.runs, planes, synthetic.records)
    assert not has_synthetic_studies(synthetic.runs, planes, patients.records)
    assert not has_synthetic_studies(synthetic.runs, planes, patients.records / "absent")
