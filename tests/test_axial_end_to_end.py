"""An axial localizer in all stages: from the sagittal points to graders and the exported ensemble."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tests.trained_pipeline
from lumbar_tf.bundle.exporting import export_ensemble
from lumbar_tf.bundle.loading import ServedEnsemble
from lumbar_tf.cli.command import run_command
from lumbar_tf.cli.console import print_status
from lumbar_tf.config import DemoConfig, PlaneConfig, dump_config
from lumbar_tf.demo import DemoOptions, Stopwatch, stack_members, train_members
from lumbar_tf.dicom.geometry import mirror_geometry
from lumbar_tf.dicom.study import Study
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.record_source import RecordSource, read_points
from lumbar_tf.labels import Plane, mirror_indices
from lumbar_tf.prediction.pipeline import encode_study
from lumbar_tf.tables.landmarks import read_landmarks
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
from lumbar_tf.train import TrainOptions, run_train
from lumbar_tf.training.predicted_points import predicted_levels
from lumbar_tf.training.runs import landmark_tables, open_run
from tests.session_folders import make_once
from tests.trained_pipeline import TrainedPipeline, predict_in_python, read_study_of, tiny_config

ROWS = list(localizer_rows(Plane.AXIAL_T2))


def _config() -> DemoConfig:
    """The tiny demo's sagittal T2, and its axial plane with a localizer for the crops' points."""
    tiny = tiny_config()
    sagittal, axial = (each for each in tiny.planes if each.plane is not Plane.SAGITTAL_T1)
    assert sagittal.localizer is not None
    content = axial.model_dump()
    content["localizer"] = {
        **sagittal.localizer.model_dump(),
        "side_mm": 64.0,
        "side_px": 64,
        "supersample": 1,
        "num_slices": 3,
        "sigma_mm": 3.0,
    }
    content["localizer"]["training"]["epochs"] = 10
    content["grader"]["anchor"] = "subarticular"
    content["grader"]["training"]["epochs"] = 2
    planes = (sagittal, PlaneConfig.model_validate(content))
    return tiny.model_copy(update={"planes": planes})


def _train(out: Path, config: DemoConfig, sagittal: TrainedPipeline) -> None:
    """Runs the demo's stages up to the export, with the other pipeline's studies and sagittal networks."""
    options, watch = DemoOptions(out=out, workers=1), Stopwatch()
    for name in ("training", "held_out", "tfrecords", f"runs/{Plane.SAGITTAL_T2.value}"):
        shutil.copytree(sagittal.out / name, out / name)
    train_members(config, options, watch)
    stack_members(options, watch)
    export_ensemble(TrainedPipeline(out, config).load_ensemble(), out / "runs", out / "models")


@pytest.fixture(scope="module")
def axial_pipeline(trained_pipeline: TrainedPipeline) -> TrainedPipeline:
    """The stages up to the export, run once for the sources that the package has now."""
    config = _config()
    sources = [Path(__file__).resolve(), Path(str(tests.trained_pipeline.__file__)).resolve()]
    out = make_once(
        "axial_pipeline", lambda folder: _train(folder, config, trained_pipeline), sources=sources
    )
    return TrainedPipeline(out, config)


@pytest.fixture(scope="module")
def studies(axial_pipeline: TrainedPipeline) -> list[Study]:
    """Two held-out studies, read from DICOM."""
    return axial_pipeline.held_out_studies()


@pytest.fixture(scope="module")
def served(axial_pipeline: TrainedPipeline) -> ServedEnsemble:
    """The exported ensemble."""
    return ServedEnsemble(axial_pipeline.model)


def test_its_points_are_nearer_to_the_recess_than_the_points_that_it_began_with(
    axial_pipeline: TrainedPipeline,
) -> None:
    run = open_run(
        axial_pipeline.config.planes[1],
        records=axial_pipeline.out / "tfrecords",
        runs=axial_pipeline.out / "runs",
    )
    found = read_landmarks(landmark_tables(run.runs, (Plane.AXIAL_T2,)), folds=run.folds)
    levels, annotated = predicted_levels(run), read_points(RecordSource(run.shards, tuple(found)))
    assert set(found) == set(run.folds)

    def median_mm(points: dict[str, np.ndarray]) -> float:
        # A study may have no sagittal T2, and so no points at all.
        known = sorted(set(found) & set(points))
        gaps = [np.linalg.norm(points[study] - annotated[study], axis=-1)[ROWS] for study in known]
        return float(np.nanmedian(np.stack(gaps)))

    assert median_mm(found) < 6.0 < median_mm(levels)
    error = json.loads((run.directory / "localizer" / "error.json").read_text())
    assert error["median_mm"] == pytest.approx(median_mm(found), abs=1e-3)
    assert error["slices"]["within_one"] > 0.9
    assert error["num_points"] == error["slices"]["num_points"] > 100


def test_the_exported_ensemble_finds_and_grades_as_the_python_path_does(
    axial_pipeline: TrainedPipeline, served: ServedEnsemble, studies: list[Study]
) -> None:
    # The second study once more without its axial plane.
    examples = [dict(encode_study(each)) for each in (*studies, studies[1])]
    del examples[2][Plane.AXIAL_T2]
    outputs = served.predict(examples)
    ensemble = axial_pipeline.load_ensemble()
    assert ensemble.networks[Plane.AXIAL_T2].localizer is not None
    said = predict_in_python(ensemble, examples)
    np.testing.assert_allclose(outputs["landmarks"], said.landmarks, atol=1e-2)
    np.testing.assert_allclose(
        outputs["members"], np.exp(said.log_probabilities).transpose(1, 0, 2, 3), atol=1e-4
    )
    landmarks = outputs["landmarks"]
    # Left and right are places of their own, on their own sides; without axial slices the level's point.
    assert (landmarks[:2, 15:20, 0] > landmarks[:2, 20:25, 0] + 3).mean() > 0.9
    np.testing.assert_array_equal(landmarks[2, 15:20], landmarks[2, :5])
    # Rows of one batch agree to float32 rounding only: the kernels split a batch over threads.
    np.testing.assert_allclose(landmarks[1, :5], landmarks[2, :5], rtol=0, atol=1e-4)


def test_the_graph_cuts_at_the_points_that_out_of_fold_crops_were_cut_at(
    axial_pipeline: TrainedPipeline,
) -> None:
    """One fold's networks alone, run by the graph's functions, give that fold's tables."""
    runs = axial_pipeline.out / "runs"
    run = open_run(axial_pipeline.config.planes[1], records=axial_pipeline.out / "tfrecords", runs=runs)
    study = sorted(study for study, fold in run.folds.items() if fold == 0)[0]
    ensemble = axial_pipeline.load_ensemble()
    for networks in ensemble.networks.values():
        for folded in (networks.localizer, *networks.graders.values()):
            assert folded is not None
            for variable in folded.parameters:
                # All folds become the one that held the study out.
                variable.assign(folded.parameters[0])
    example = encode_study(read_study_of(axial_pipeline.out / "training", study))
    said = predict_in_python(ensemble, [example])
    table = read_landmarks(landmark_tables(runs, (Plane.SAGITTAL_T2, Plane.AXIAL_T2)))[study]
    is_found = np.isfinite(table).all(axis=-1)
    assert is_found[ROWS].sum() >= 8
    np.testing.assert_allclose(said.landmarks.numpy()[0][is_found], table[is_found], atol=1e-2)
    (name,) = (each for each in ensemble.stacker.members if each.startswith("axial_t2"))
    oof = read_out_of_fold_tables([runs / name / "oof.csv"])[0].rows[study]
    answer = np.exp(said.log_probabilities.numpy()[ensemble.stacker.members.index(name), 0])
    np.testing.assert_allclose(answer[15:], np.asarray(oof)[15:], atol=1e-3)


def test_a_mirrored_study_has_its_points_on_the_other_sides(
    served: ServedEnsemble, studies: list[Study]
) -> None:
    swapped = list(mirror_indices())
    for study in studies:
        planes = {
            plane: tuple(replace(each, geometry=mirror_geometry(each.geometry)) for each in slices)
            for plane, slices in study.planes.items()
        }
        mirrored = replace(study, planes=planes)
        plain, other = (served.predict([encode_study(each)]) for each in (study, mirrored))
        expected = plain["landmarks"][0] * np.array([-1.0, 1.0, 1.0])
        np.testing.assert_allclose(other["landmarks"][0][swapped], expected, atol=0.05)
        np.testing.assert_allclose(other["probability"][0][swapped], plain["probability"][0], atol=1e-4)


def test_train_locates_before_it_grades_leaves_tables_and_goes_on_after_an_interrupt(
    axial_pipeline: TrainedPipeline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "axial_t2.yaml"
    config.write_text(dump_config(axial_pipeline.config.planes[1]), encoding="utf-8")
    # A copy: the pipeline's own folder is shared with other tests.
    shutil.copytree(axial_pipeline.out / "runs" / "sagittal_t2", tmp_path / "runs" / "sagittal_t2")
    words = [
        "--plane=axial_t2", f"--config={config}", "--fold=1", f"--records={axial_pipeline.out / 'tfrecords'}",
        f"--runs={tmp_path / 'runs'}", "--set=localizer.training.epochs=1,grader.training.epochs=1",
    ]  # fmt: skip

    def interrupt_when_located(text: str) -> None:
        print_status(text)
        if text.startswith("axial_t2/localizer: done"):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr("lumbar_tf.api.training.print_status", interrupt_when_located)
        run_command(TrainOptions, run_train, arguments=words)
    assert "ERROR: interrupted\nRun the same command again" in capsys.readouterr().err
    landmarks = tmp_path / "runs" / "axial_t2" / "localizer" / "fold1" / "landmarks.csv"
    before = landmarks.stat().st_mtime_ns
    with pytest.raises(SystemExit) as end:
        run_command(TrainOptions, run_train, arguments=[*words, "--json"])
    assert end.value.code == 0
    assert landmarks.stat().st_mtime_ns == before
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    runs = tmp_path / "runs"
    assert answer["paths"] == {"run": str(runs / "axial_t2"), "pages": str(runs / "training.html")}
    assert answer["notes"][0].startswith("axial_t2/localizer: done, ")
    assert " is lost to points: " in answer["notes"][1]
    printed = captured.err
    folder = tmp_path / "runs" / "axial_t2"
    assert (folder / "localizer" / "fold1" / "landmarks.csv").is_file()
    assert (folder / "densenet_tiny" / "fold1" / "oof.csv").is_file()
    slices = json.loads((folder / "level_slices.json").read_text())
    assert slices["num_points"] > 100 and slices["within_one"] > 0.9
    assert f"within one of it at {slices['within_one']:.1%}" in printed
    assert "slices" in json.loads((folder / "localizer" / "error.json").read_text())
    assert printed.index("axial_t2/localizer: done") < printed.index("densenet_tiny fold 1  epoch 1/1")
