"""From DICOM to the exported ensemble's answers: parity, missing planes, left and right, resumption."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.bundle.loading import ServedEnsemble
from lumbar_tf.config import dump_config
from lumbar_tf.dicom.geometry import mirror_geometry, pixel_to_patient
from lumbar_tf.dicom.sources.study_source import read_source
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.ensemble.stacker import Stacked, apply_stacker
from lumbar_tf.labels import FINDINGS, Family, Flag, Plane, mirror_indices
from lumbar_tf.monitoring.log import read_log
from lumbar_tf.prediction.pipeline import encode_study, predict_source
from lumbar_tf.privacy.identifying_values import collect_identifying_values
from lumbar_tf.records.identifying_text import find_identifying_text
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.tables.folds import read_fold_table
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
from tests.command_line import run_in_process
from tests.interop import hospital
from tests.serving.stand_in_grpc import GrpcStandIn, serve_grpc
from tests.serving.stand_in_models import SavedModel
from tests.serving.stand_in_rest import RestStandIn, serve_rest
from tests.trained_pipeline import TrainedPipeline, predict_in_python

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def studies(trained_pipeline: TrainedPipeline) -> list[Study]:
    """Two held-out studies, read from DICOM."""
    return trained_pipeline.held_out_studies()


@pytest.fixture(scope="module")
def served(trained_pipeline: TrainedPipeline) -> ServedEnsemble:
    """The exported ensemble."""
    return ServedEnsemble(trained_pipeline.model)


def _python_path(trained_pipeline: TrainedPipeline, examples: list[Mapping[Plane, bytes]]) -> Stacked:
    """The same answers without the export: Keras eagerly, the stacker in NumPy."""
    ensemble = trained_pipeline.load_ensemble()
    said = predict_in_python(ensemble, examples)
    return apply_stacker(ensemble.stacker, np.exp(said.log_probabilities.numpy().astype(np.float64)))


def _missing_patterns(study: Mapping[Plane, bytes]) -> Iterator[dict[Plane, bytes]]:
    """The study with every subset of its planes, the empty one too."""
    planes = list(study)
    for count in range(len(planes) + 1):
        for chosen in itertools.combinations(planes, count):
            yield {plane: study[plane] for plane in chosen}


def test_a_script_that_knows_only_tensorflow_gets_the_answers_of_the_python_path(
    trained_pipeline: TrainedPipeline, studies: list[Study], tmp_path: Path
) -> None:
    # All patterns of missing planes of one study and another study beside them: one unequal batch.
    batch = [*_missing_patterns(encode_study(studies[0])), encode_study(studies[1])]
    request = tmp_path / "request.tfrecord"
    with tf.io.TFRecordWriter(str(request)) as writer:
        for study in batch:
            for plane in Plane:
                writer.write(study.get(plane, b""))
    answer = tmp_path / "answer"
    answer.mkdir()
    script = Path(__file__).parent / "serving" / "answer.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, script, trained_pipeline.model, request, answer],
        check=True,
        cwd=tmp_path,
        env=environment,
    )

    def read(name: str, dtype: tf.DType) -> np.ndarray:
        return tf.io.parse_tensor(tf.io.read_file(str(answer / name)), dtype).numpy()

    expected = _python_path(trained_pipeline, batch)
    np.testing.assert_allclose(read("probability", tf.float32), expected.probability, atol=1e-5)
    np.testing.assert_allclose(read("competition", tf.float32), expected.competition, atol=1e-5)
    assert read("members", tf.float32).shape == (len(batch), 3, 25, 3)
    assert read("landmarks", tf.float32).shape == (len(batch), 25, 3)
    assert read("flags", tf.bool).shape == (len(batch), 25, 6)


@pytest.mark.parametrize("name", ["series/low", "series/high", "slices/scale", "slices/offset"])
def test_a_plane_with_nan_in_its_intensities_is_answered_as_a_missing_one(
    served: ServedEnsemble, studies: list[Study], name: str
) -> None:
    study = encode_study(studies[0])
    example = tf.train.Example.FromString(study[Plane.AXIAL_T2])
    example.features.feature[name].float_list.value[0] = float("nan")
    without = {plane: record for plane, record in study.items() if plane is not Plane.AXIAL_T2}
    spoiled = {**study, Plane.AXIAL_T2: example.SerializeToString()}
    answers = served.predict([spoiled, without, study])
    for output in answers.values():
        np.testing.assert_allclose(output[0], output[1], atol=1e-4)
    is_flagged = answers["flags"][:, :, list(Flag).index(Flag.NO_AXIAL_T2)]
    assert is_flagged[0].any() and not is_flagged[2].any()


def test_every_pattern_of_missing_planes_is_answered_and_flagged(
    served: ServedEnsemble, studies: list[Study]
) -> None:
    flags = list(Flag)
    for study in _missing_patterns(encode_study(studies[0])):
        outputs = served.predict([study])
        for head in ("probability", "competition"):
            assert np.isfinite(outputs[head]).all()
            np.testing.assert_allclose(outputs[head].sum(axis=-1), 1.0, atol=1e-5)
        for row, finding in enumerate(FINDINGS):
            if finding.condition.family is Family.FORAMINAL:
                is_set = outputs["flags"][0, row, flags.index(Flag.NO_SAGITTAL_T1)]
                assert is_set == (Plane.SAGITTAL_T1 not in study)
        if not study:
            assert outputs["flags"][0, :, flags.index(Flag.PRIOR_ONLY)].all()
            assert np.isnan(outputs["landmarks"]).all()


def test_who_asks_why_gets_the_same_answer_and_the_maps_behind_it(
    served: ServedEnsemble, studies: list[Study]
) -> None:
    examples = [encode_study(each) for each in studies]
    plain, with_maps = (served.predict(examples, with_saliency=each) for each in (False, True))
    assert set(with_maps) - set(plain) == {"saliency", "weight"}
    for name, values in plain.items():
        np.testing.assert_allclose(with_maps[name], values, atol=1e-5, err_msg=name)
    is_said = np.isfinite(plain["members"]).all(axis=-1)
    np.testing.assert_array_equal(np.isfinite(with_maps["weight"]), is_said)
    np.testing.assert_array_equal(np.isfinite(with_maps["saliency"]).any(axis=(3, 4, 5, 6)), is_said)
    assert np.nanmin(with_maps["saliency"]) == 0 and np.nanmax(with_maps["saliency"]) > 0.1


def test_a_batch_answers_as_its_studies_do_alone(served: ServedEnsemble, studies: list[Study]) -> None:
    examples = [encode_study(each) for each in studies]
    together = served.predict(examples)
    for place, each in enumerate(examples):
        alone = served.predict([each])
        np.testing.assert_allclose(together["probability"][place], alone["probability"][0], atol=1e-5)


def _mirror_study(study: Study, *, flips_pixels: bool) -> Study:
    """The same patient in a mirror; optionally each image also stored with its columns turned."""

    def mirror(each: Slice) -> Slice:
        geometry = mirror_geometry(each.geometry)
        if not flips_pixels:
            return replace(each, geometry=geometry)
        far = pixel_to_patient(geometry, (geometry.columns - 1, 0))
        turned = replace(
            geometry,
            position=tuple(far.tolist()),
            row_direction=tuple(-value for value in geometry.row_direction),
        )
        return replace(each, geometry=turned, pixels=np.ascontiguousarray(each.pixels[:, ::-1]))

    planes = {plane: tuple(mirror(each) for each in slices) for plane, slices in study.planes.items()}
    return replace(study, planes=planes)


@pytest.mark.parametrize("flips_pixels", [False, True])
def test_a_mirrored_study_gives_swapped_sides(
    served: ServedEnsemble, studies: list[Study], flips_pixels: bool
) -> None:
    swapped = list(mirror_indices())
    for study in studies:
        plain = served.predict([encode_study(study)])
        mirrored = served.predict([encode_study(_mirror_study(study, flips_pixels=flips_pixels))])
        for head in ("probability", "competition"):
            np.testing.assert_allclose(mirrored[head][0][swapped], plain[head][0], atol=1e-4)
        members, of_mirrored = plain["members"][0], mirrored["members"][0]
        np.testing.assert_allclose(of_mirrored[:, swapped], members, atol=1e-4)
        expected = plain["landmarks"][0] * np.array([-1.0, 1.0, 1.0])
        np.testing.assert_allclose(mirrored["landmarks"][0][swapped], expected, atol=0.05)
        np.testing.assert_array_equal(mirrored["flags"][0][swapped], plain["flags"][0])
        # The test can fail: the two sides are not answered alike.
        assert np.nanmax(np.abs(members - members[:, swapped])) > 2e-3


def test_held_out_studies_are_in_no_record(trained_pipeline: TrainedPipeline) -> None:
    trained = {each.study_id for each in read_manifest(trained_pipeline.out / "tfrecords").studies}
    held_out = {each.name for each in (trained_pipeline.out / "held_out" / "train_images").iterdir()}
    assert held_out and not trained & held_out


def test_predictions_have_25_rows_a_study_and_a_sheet(trained_pipeline: TrainedPipeline) -> None:
    with (trained_pipeline.out / "predictions" / "submission.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 25
    assert all(
        abs(sum(float(row[name]) for name in ("normal_mild", "moderate", "severe")) - 1) < 1e-4
        for row in rows
    )
    studies = json.loads((trained_pipeline.out / "predictions" / "results.json").read_text(encoding="utf-8"))[
        "studies"
    ]
    assert {each["study_id"] for each in studies} == {
        each.stem for each in (trained_pipeline.out / "predictions" / "sheets").glob("*.png")
    }


def test_every_network_and_every_held_out_study_has_a_page(trained_pipeline: TrainedPipeline) -> None:
    runs = trained_pipeline.out / "runs"
    networks = {path.parent.parent for path in runs.glob("*/*/fold0/weights.weights.h5")}
    assert {path.parent for path in runs.glob("*/*/training.html")} == networks and len(networks) == 5
    index = (runs / "training.html").read_text(encoding="utf-8")
    for each in networks:
        assert f'href="./{each.parent.name}/{each.name}/training.html"' in index
        page = (each / "training.html").read_text(encoding="utf-8")
        assert "2 of 2</b>" in page and "Synthetic studies" in page
    reports = (trained_pipeline.out / "predictions" / "reports").glob("*.html")
    held_out = (trained_pipeline.out / "held_out" / "train_images").iterdir()
    assert {path.stem for path in reports} == {path.name for path in held_out}


def test_a_zip_is_graded_like_its_folder(
    trained_pipeline: TrainedPipeline, served: ServedEnsemble, tmp_path: Path
) -> None:
    study = sorted((trained_pipeline.out / "held_out" / "train_images").iterdir())[0]
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", study.parent, study.name)
    from_zip = predict_source(Path(archive), served, tmp_path / "zip")
    from_folder = predict_source(study, served, tmp_path / "folder")
    np.testing.assert_allclose(from_zip.results[0].probability, from_folder.results[0].probability, atol=1e-5)


def test_a_hospitals_export_is_graded_from_the_right_series_and_names_nobody(
    trained_pipeline: TrainedPipeline, tmp_path: Path
) -> None:
    export = hospital.write_hospital_export(tmp_path / "disc")
    out = tmp_path / "answers"
    words = [f"--study={export.root}", f"--model={trained_pipeline.model}", f"--out={out}"]
    done = run_in_process("predict", *words)
    assert done.returncode == 0, done.stderr
    with (out / "series.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["series_id"]: row["plane"] for row in rows if row["plane"]} == {
        series_id: plane.value for series_id, plane in export.planes.items()
    }
    assert {row["series_id"]: row["reason"] for row in rows if row["reason"]} == {
        series_id: reason.value for series_id, reason in export.reasons.items()
    }
    studies = json.loads((out / "results.json").read_text())["studies"]
    results = {each["study_id"]: each["findings"] for each in studies}
    assert set(results) == {hospital.LUMBAR_STUDY, hospital.CERVICAL_STUDY}
    flags = [set(each["flags"]) for each in results[hospital.LUMBAR_STUDY]]
    # All three planes are there; of the neck there is nothing to say, and that is said.
    absent = {Flag.NO_SAGITTAL_T1.value, Flag.NO_SAGITTAL_T2.value, Flag.NO_AXIAL_T2.value}
    assert not any(each & absent for each in flags)
    assert all(Flag.PRIOR_ONLY.value in each["flags"] for each in results[hospital.CERVICAL_STUDY])
    assert (out / "sheets" / f"{hospital.LUMBAR_STUDY}.png").is_file()
    with read_source(export.root) as source:
        values = collect_identifying_values(source.studies, are_ids_secret=False)
    assert find_identifying_text(out, values) == ()
    written = done.stdout + done.stderr
    assert not [value for value in hospital.IDENTITY.values() if value in written]


def test_out_of_fold_rows_are_of_the_held_out_fold(trained_pipeline: TrainedPipeline) -> None:
    folds = read_fold_table(trained_pipeline.out / "tfrecords" / "folds.csv")
    tables = read_out_of_fold_tables(sorted((trained_pipeline.out / "runs").glob("*/*/oof.csv")))
    assert {table.model for table in tables} == {
        f"{plane}/densenet_tiny" for plane in ("sagittal_t1", "sagittal_t2", "axial_t2")
    }
    for table in tables:
        assert table.folds == {study: folds[study] for study in table.rows}


def test_a_killed_run_goes_on_and_ends_with_every_epoch_once(
    trained_pipeline: TrainedPipeline, tmp_path: Path
) -> None:
    """SIGKILL after the second epoch; the second start finishes the rest."""
    config = tmp_path / "sagittal_t2.yaml"
    config.write_text(dump_config(trained_pipeline.config.planes[0]), encoding="utf-8")
    epochs = 30
    command = [
        sys.executable, "-m", "lumbar_tf.train", "--plane=sagittal_t2", f"--config={config}", "--fold=0",
        f"--records={trained_pipeline.out / 'tfrecords'}", f"--runs={tmp_path / 'runs'}",
        # The grader that follows is not looked at.
        "--set", f"localizer.training.epochs={epochs},grader.training.epochs=1",
    ]  # fmt: skip
    history = tmp_path / "runs" / "sagittal_t2" / "localizer" / "fold0" / "history.json"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if history.is_file() and len(json.loads(history.read_text(encoding="utf-8"))) >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = json.loads(history.read_text(encoding="utf-8"))
    assert process.returncode == -signal.SIGKILL
    assert 2 <= len(before) < epochs
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = json.loads(history.read_text(encoding="utf-8"))
    # The command leaves pages; of the other fold there is nothing yet.
    assert "1 of 2</b>" in history.parents[1].joinpath("training.html").read_text(encoding="utf-8")
    assert (tmp_path / "runs" / "training.html").is_file()
    assert [row["epoch"] for row in after] == [float(epoch) for epoch in range(1, epochs + 1)]
    # The first epoch is not trained again; the one that the kill cut off may be.
    assert after[0] == before[0]
    # A fresh start would begin at the untrained loss again.
    assert after[2]["loss"] < after[0]["loss"]


@pytest.fixture(scope="module")
def said_here(trained_pipeline: TrainedPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `predict --model` leaves of the held-out studies."""
    out = tmp_path_factory.mktemp("here")
    _predict(trained_pipeline, f"--model={trained_pipeline.model}", f"--out={out}")
    return out


def _predict(trained_pipeline: TrainedPipeline, *words: str) -> subprocess.CompletedProcess[str]:
    done = run_in_process(
        "predict", f"--study={trained_pipeline.out / 'held_out'}", "--formats=report", *words
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_server_gives_the_tables_that_the_model_gives(
    trained_pipeline: TrainedPipeline, said_here: Path, tmp_path: Path, wire: str
) -> None:
    """The server is a stand-in that runs the export in this process."""
    model = SavedModel(trained_pipeline.model)
    with serve_grpc(GrpcStandIn(model)) if wire == "grpc" else serve_rest(RestStandIn(model)) as stand_in:
        server = f"{wire}://127.0.0.1:{stand_in.port}"
        done = _predict(
            trained_pipeline,
            f"--server={server}",
            f"--out={tmp_path}",
            f"--log={tmp_path / 'log'}",
            "--gzip",
            "--deadline-s=600",  # the first request traces the graph, which takes minutes on a busy machine
        )
    assert f"{server} lumbar version 1" in done.stdout
    tables = ("submission.csv", "probability.csv", "intervals.csv", "members.csv", "series.csv")
    for name in (*tables, "results.json"):
        assert (tmp_path / name).read_bytes() == (said_here / name).read_bytes(), name
    assert sum(stand_in.attempts.counts.values()) == 2
    (line, _) = read_log(tmp_path / "log").rows
    assert line.model == "1"
    assert line.study_id is None
