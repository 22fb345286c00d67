"""What a fold began with is what it goes on with, whatever other folds leave in the meantime."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.files import file_sha256
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import Plane
from lumbar_tf.training.fitter import TrainingTask
from lumbar_tf.training.fold_crops import axial_localizer_crops, grader_crops, read_fold_crops
from lumbar_tf.training.grader_task import grader_task
from lumbar_tf.training.localizer_task import axial_localizer_task
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from tests.training.located_runs import AXIAL_LOCALIZER, open_located, write_found

MEMBER = "mobilenet_v2"


def _arrays(inputs: object) -> list[np.ndarray]:
    return [np.asarray(array) for array in tf.nest.flatten(inputs)]


def _data(task: TrainingTask, run: PlaneRun, fold: int) -> list[np.ndarray]:
    """Returns what the network is fed with in training and in answering."""
    source = RecordSource(run.shards, run.studies(held_out=fold, is_training=True))
    train = task.train_dataset(source, fold=fold, seed=0, start_epoch=0)
    found = [array for inputs, _ in train.take(2) for array in _arrays(inputs)]
    return found + [
        array for inputs, _, _ in task.eval_dataset(source, fold=fold) for array in _arrays(inputs)
    ]


def test_crops_file_contains_tables_and_jitter(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.SAGITTAL_T2)
    tables = [write_found(run, Plane.SAGITTAL_T2, fold, miss_mm=fold + 1.0) for fold in (0, 1)]
    tables.append(write_found(run, Plane.SAGITTAL_T1, 2, miss_mm=3.0))
    crops = grader_crops(run, MEMBER, 0)
    directory = run.fold_directory(MEMBER, 0)
    assert json.loads((directory / "crops.json").read_text()) == {
        "plane": "sagittal_t2",
        "jitter_mm": list(crops.jitter_mm),
        "tables_sha256": {path.relative_to(run.runs).as_posix(): file_sha256(path) for path in tables},
    }
    assert crops.jitter_mm == pytest.approx((2.0, 2.0, 2.0), abs=1e-3)
    assert read_fold_crops(directory) == crops
    assert set(crops.tables(run.runs)) == set(tables)
    assert read_fold_crops(run.fold_directory(MEMBER, 1)) is None


def test_missing_landmarks_are_refused(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.AXIAL_T2)
    with pytest.raises(ValueError, match="train --plane=sagittal_t2 first"):
        grader_crops(run, MEMBER, 0)
    assert not run.fold_directory(MEMBER, 0).exists()


def test_jitter_stays_when_other_localizers_finish(tmp_path: Path) -> None:
    """`--fold=0` is killed in its grader; then all folds are trained."""
    run = open_located(tmp_path, Plane.SAGITTAL_T2)
    write_found(run, Plane.SAGITTAL_T2, 0, miss_mm=1.0)
    begun = grader_crops(run, MEMBER, 0)
    assert begun.jitter_mm == (2.0, 2.0, 2.0)
    for fold in (1, 2):
        write_found(run, Plane.SAGITTAL_T2, fold, miss_mm=4.0)
    assert grader_crops(run, MEMBER, 0) == begun
    assert grader_crops(run, MEMBER, 1).jitter_mm != begun.jitter_mm


def test_axial_localizer_keeps_its_recorded_crops(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.AXIAL_T2, AXIAL_LOCALIZER)
    for fold in (0, 1):
        write_found(run, Plane.SAGITTAL_T2, fold, miss_mm=3.0)
    begun = axial_localizer_crops(run, 0, factor=0.5)
    assert begun.plane is Plane.SAGITTAL_T2
    assert begun.jitter_mm == pytest.approx((1.5, 1.5, 1.5), abs=1e-3)
    write_found(run, Plane.SAGITTAL_T2, 2, miss_mm=1.0)
    assert (
        axial_localizer_crops(run, 0, factor=0.5)
        == begun
        == read_fold_crops(run.fold_directory(LOCALIZER, 0))
    )


def test_landmarks_that_changed_or_were_lost_are_refused(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.AXIAL_T2, AXIAL_LOCALIZER)
    write_found(run, Plane.SAGITTAL_T2, 0, miss_mm=1.0)
    other = write_found(run, Plane.SAGITTAL_T2, 1, miss_mm=1.0)
    before = other.read_bytes()
    begins = (partial(grader_crops, run, MEMBER, 0), partial(axial_localizer_crops, run, 0, factor=1.0))
    begun = [begin() for begin in begins]
    write_found(run, Plane.SAGITTAL_T2, 1, miss_mm=1.5)
    for begin in begins:
        with pytest.raises(ValueError, match=r"landmarks of its start: .*fold1.*Received: [0-9a-f]{64}"):
            begin()
    other.unlink()
    for begin in begins:
        with pytest.raises(ValueError, match=r"fold1.*Received: no file\. Restore the table"):
            begin()
    other.write_bytes(before)
    assert [begin() for begin in begins] == begun


@pytest.mark.slow
@pytest.mark.parametrize("member", [MEMBER, LOCALIZER])
def test_data_of_a_resumed_fold_are_the_same(tmp_path: Path, member: str) -> None:
    def begin() -> TrainingTask:
        if member == MEMBER:
            return grader_task(run, MEMBER)
        assert run.config.localizer is not None
        return axial_localizer_task(run, run.config.localizer)

    run = open_located(tmp_path, Plane.AXIAL_T2, AXIAL_LOCALIZER)
    for fold in (0, 1):
        write_found(run, Plane.SAGITTAL_T2, fold, miss_mm=0.5)
    first = _data(begin(), run, 0)
    write_found(run, Plane.SAGITTAL_T2, 2, miss_mm=4.0)
    (run.runs / "sagittal_t2" / LOCALIZER / "error.json").write_text('{"num_points": 9, "sd_mm": [4, 4, 4]}')
    for one, other in zip(first, _data(begin(), run, 0), strict=True):
        np.testing.assert_array_equal(one, other)
    # A fold that begins now has other crops.
    (run.fold_directory(member, 0) / "crops.json").unlink()
    fresh = _data(begin(), run, 0)
    assert any(not np.array_equal(one, other) for one, other in zip(first, fresh, strict=True))
