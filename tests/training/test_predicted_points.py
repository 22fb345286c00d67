"""Which points crops are cut around, from tables that localizers left."""

import json
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.config import PlaneConfig, load_plane_config
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.labels import Condition, Level, Plane, finding_index
from lumbar_tf.records.manifest import BuildOptions, Manifest
from lumbar_tf.tables.landmarks import LandmarkTable, Points, write_landmarks
from lumbar_tf.training.predicted_points import (
    held_out_points,
    landmark_jitter,
    level_jitter,
    level_plane,
    predicted_doubt,
    predicted_landmarks,
    predicted_levels,
    write_level_slices,
)
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from tests.training.located_runs import AXIAL_LOCALIZER, open_located, write_found

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDIES = ("a", "b", "c")


def _run(path: Path, *overrides: str, plane: Plane = Plane.AXIAL_T2) -> PlaneRun:
    config: PlaneConfig = load_plane_config(CONFIGS / f"{plane.value}.yaml", overrides=overrides)
    manifest = Manifest(
        schema_version="2.0.0",
        packages={},
        options=BuildOptions(studies_per_shard=64, num_folds=3, fold_seed=0),
        planes={},
        studies=(),
        rejects=(),
    )
    return PlaneRun(config, path / "records", path / "runs", manifest, dict.fromkeys(STUDIES, 0))


def _write(run: PlaneRun, plane: Plane, studies: tuple[str, ...]) -> Points:
    """Writes a plane's table; returns its points, float32 [studies, rows, 3]."""
    rows = localizer_rows(plane)
    rng = np.random.default_rng(list(Plane).index(plane))
    points = rng.normal(size=(len(studies), len(rows), 3)).astype(np.float32).round(3)
    spread, doubt = rng.random((2, len(studies), len(rows))).astype(np.float32).round(3)
    folder = run.runs / plane.value / LOCALIZER
    points[0, -1] = np.nan
    doubt[0, -1] = 1.0
    (folder / "fold0").mkdir(parents=True)
    write_landmarks(
        folder / "fold0" / "landmarks.csv", LandmarkTable(studies, rows, points, spread, doubt, 0)
    )
    return points


def test_axial_localizer_needs_sagittal_landmarks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train --plane=sagittal_t2 first"):
        predicted_levels(_run(tmp_path))


def test_anchors_follow_the_configuration(tmp_path: Path) -> None:
    located = _run(tmp_path, AXIAL_LOCALIZER)
    anchored = _run(tmp_path, AXIAL_LOCALIZER, "grader.anchor=subarticular")
    canal = _write(located, Plane.SAGITTAL_T2, STUDIES)
    with pytest.raises(ValueError, match="needs the landmarks of the axial localizer"):
        predicted_landmarks(anchored)
    # The last study has no axial plane.
    found = _write(located, Plane.AXIAL_T2, STUDIES[:2])
    levels, refined = predicted_landmarks(located), predicted_landmarks(anchored)
    for place, study in enumerate(STUDIES):
        np.testing.assert_array_equal(levels[study], predicted_levels(located)[study])
        np.testing.assert_allclose(levels[study][:5], canal[place], atol=1e-4)
        np.testing.assert_array_equal(levels[study][15:20], levels[study][:5])
        np.testing.assert_array_equal(refined[study][:15], levels[study][:15])
    np.testing.assert_array_equal(refined["c"], levels["c"])
    np.testing.assert_allclose(refined["b"][15:20], found[1, 0::2], atol=1e-4)
    np.testing.assert_allclose(refined["b"][20:25], found[1, 1::2], atol=1e-4)
    # Where it found nothing the level point stays, if there is one.
    np.testing.assert_allclose(refined["a"][20:24], found[0, 1:8:2], atol=1e-4)
    np.testing.assert_array_equal(refined["a"][24], levels["a"][4])


def test_jitter_is_the_error_of_the_points_localizer(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.AXIAL_T2, "grader.jitter=2")
    assert landmark_jitter(run, fold=0) == (4.0, 4.0, 4.0)  # nothing measured: 2 mm
    write_found(run, Plane.SAGITTAL_T1, 1, miss_mm=3.5)
    # Only T1 was trained.
    assert level_plane(run) is Plane.SAGITTAL_T1
    np.testing.assert_allclose(level_jitter(run, fold=0, factor=1.0), [3.5] * 3, atol=1e-3)
    write_found(run, Plane.SAGITTAL_T2, 1, miss_mm=1.5)
    write_found(run, Plane.AXIAL_T2, 1, miss_mm=0.5)
    np.testing.assert_allclose(landmark_jitter(run, fold=0), [3.0] * 3, atol=1e-3)
    anchored = open_located(
        tmp_path, Plane.AXIAL_T2, AXIAL_LOCALIZER, "grader.anchor=subarticular", "grader.jitter=2"
    )
    np.testing.assert_allclose(landmark_jitter(anchored, fold=0), [1.0] * 3, atol=1e-3)
    np.testing.assert_allclose(level_jitter(anchored, fold=0, factor=1.0), [1.5] * 3, atol=1e-3)
    foraminal = open_located(tmp_path, Plane.SAGITTAL_T1)
    np.testing.assert_allclose(landmark_jitter(foraminal, fold=0), [3.5] * 3, atol=1e-3)
    assert level_jitter(run, fold=0, factor=0.0) == (0.0, 0.0, 0.0)


def test_held_out_fold_does_not_enter_its_jitter(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.SAGITTAL_T2)
    write_found(run, Plane.SAGITTAL_T2, 0, miss_mm=1.0)
    # Its own table is no measure: as if nothing had been.
    assert landmark_jitter(run, fold=0) == (2.0, 2.0, 2.0)
    for fold, miss_mm in ((1, 2.0), (2, 4.0)):
        write_found(run, Plane.SAGITTAL_T2, fold, miss_mm=miss_mm)
    # Root mean squares of what the others miss by; each study has four annotated points of the canal.
    expected = {0: (4 + 16) / 2, 1: (1 + 16) / 2, 2: (1 + 4) / 2}
    for fold, square in expected.items():
        np.testing.assert_allclose(landmark_jitter(run, fold=fold), [square**0.5] * 3, atol=1e-3)
    write_found(run, Plane.SAGITTAL_T2, 0, miss_mm=3.0)
    np.testing.assert_allclose(landmark_jitter(run, fold=0), [expected[0] ** 0.5] * 3, atol=1e-3)


def test_jitter_without_fold_is_the_reported_error(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.SAGITTAL_T2, "grader.jitter=2")
    assert landmark_jitter(run, fold=None) == (4.0, 4.0, 4.0)
    error = run.runs / "sagittal_t2" / LOCALIZER / "error.json"
    error.parent.mkdir(parents=True)
    error.write_text(json.dumps({"num_points": 9, "sd_mm": [1.5, 2.5, 0.5]}))
    assert landmark_jitter(run, fold=None) == (3.0, 5.0, 1.0)
    assert landmark_jitter(run, fold=0) == (4.0, 4.0, 4.0)
    error.write_text(json.dumps({"num_points": 0, "sd_mm": [0.0, 0.0, 0.0]}))
    assert landmark_jitter(run, fold=None) == (4.0, 4.0, 4.0)


def test_doubt_of_a_level_is_that_of_its_canal_or_foramina(tmp_path: Path) -> None:
    run = _run(tmp_path)
    _write(run, Plane.SAGITTAL_T2, STUDIES[:2])
    _write(run, Plane.SAGITTAL_T1, STUDIES)
    doubt = predicted_doubt(run)
    assert sorted(doubt) == list(STUDIES)
    # Neither the canal nor the right foramen was found there.
    assert np.isnan(doubt["a"][4])
    for level in range(5):
        np.testing.assert_array_equal(doubt["a"][[15 + level, 20 + level]], doubt["a"][level])
        np.testing.assert_allclose(
            doubt["c"][[level, 15 + level]], doubt["c"][[5 + level, 10 + level]].mean(), rtol=1e-5
        )


def test_slice_agreement_is_cached_for_the_same_points(tmp_path: Path) -> None:
    run = open_located(tmp_path, Plane.AXIAL_T2)
    run.directory.mkdir(parents=True)
    write_found(run, Plane.SAGITTAL_T2, 0, miss_mm=0.0)
    first = write_level_slices(run)
    assert first.num_points == 10
    shard = run.records / "axial_t2"
    records = shard.read_bytes()
    shard.unlink()
    assert write_level_slices(run) == first
    shard.write_bytes(records)
    write_found(run, Plane.SAGITTAL_T2, 1, miss_mm=0.0)
    assert write_level_slices(run).num_points == 20


def test_held_out_points_cover_all_families_and_must_be_of_their_fold(tmp_path: Path) -> None:
    run = _run(tmp_path)
    canal = _write(run, Plane.SAGITTAL_T2, STUDIES)
    foramen, recess = (
        finding_index(condition, Level.L4_L5)
        for condition in (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.LEFT_SUBARTICULAR_STENOSIS)
    )
    found = held_out_points(run.runs, run.folds)
    np.testing.assert_array_equal(found["b"][recess], canal[1, 3])
    assert np.isnan(found["b"][foramen]).all()
    axial = _write(run, Plane.AXIAL_T2, ("b",))
    found = held_out_points(run.runs, run.folds)
    np.testing.assert_array_equal(found["b"][recess], axial[0, localizer_rows(Plane.AXIAL_T2).index(recess)])
    np.testing.assert_array_equal(found["c"][recess], canal[2, 3])
    with pytest.raises(ValueError, match="held its study out"):
        held_out_points(run.runs, {"b": 1})
    assert held_out_points(tmp_path / "nothing", run.folds) == {}
