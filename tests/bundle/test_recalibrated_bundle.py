"""A recalibrated version: from the bundle alone, equal in graph and NumPy; the old one stays as it was."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lumbar_tf
from lumbar_tf.bundle.file_check import find_file_faults
from lumbar_tf.bundle.loading import ServedEnsemble
from lumbar_tf.bundle.recalibrated_bundle import read_stackers
from lumbar_tf.bundle.reference_study import reference_cases
from lumbar_tf.bundle.self_test import load_bundle
from lumbar_tf.bundle.servable_check import find_faults
from lumbar_tf.bundle.served_graph import ServedGraph
from lumbar_tf.cli.command import run_command
from lumbar_tf.ensemble.features import centred_logs, softmax
from lumbar_tf.ensemble.intervals import member_intervals
from lumbar_tf.ensemble.recalibration import Calibration
from lumbar_tf.ensemble.stacker import Head, StackerCoefficients, apply_stacker
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import FINDINGS, Severity, row_id
from lumbar_tf.models.bundle_folder import EXTRA, STACKER_NAME, read_ensemble_json
from lumbar_tf.monitoring.reference import find_reference, read_reference
from lumbar_tf.prediction.pipeline import encode_study
from lumbar_tf.recalibrate import RecalibrateOptions, run_recalibrate
from lumbar_tf.tables.labels import write_record_labels
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.ensemble.synthetic_members import make_members
from tests.trained_pipeline import TrainedPipeline

pytestmark = pytest.mark.slow

NUM_STUDIES = 60


@dataclass(frozen=True)
class Site:
    """Folder of versions, and a site's predictions and labels."""

    models: Path
    predictions: Path
    labels: Path
    usual_labels: Path
    digests: Mapping[str, str]


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def _write_labels(folder: Path, probability: np.ndarray, seed: int) -> Path:
    """Writes labels that are drawn from probabilities."""
    draws = np.random.default_rng([seed, 1]).random((*probability.shape[:2], 1))
    labels = (draws < probability.cumsum(axis=-1)).argmax(axis=-1).astype(np.int8)
    folder.mkdir()
    write_record_labels(folder, {f"{study:03d}": row for study, row in enumerate(labels)})
    return folder / "labels.csv"


def _write_predictions(folder: Path, stacker: StackerCoefficients, seed: int) -> np.ndarray:
    """Writes members.csv and probability.csv as `predict` does; returns the probabilities."""
    probabilities = make_members(NUM_STUDIES, len(stacker.members), seed)[0].probabilities
    stacked = apply_stacker(stacker, probabilities)
    ids = [f"{study:03d}" for study in range(NUM_STUDIES)]
    folder.mkdir()
    write_out_of_fold_table(folder / "probability.csv", ids, stacked.probability)
    lines = ["row_id,normal_mild,moderate,severe,model"]
    for name, rows in zip(stacker.members, probabilities, strict=True):
        for study, values in zip(ids, rows, strict=True):
            for finding, row in zip(FINDINGS, values, strict=True):
                cells = ",".join(f"{value:.9g}" for value in row)
                lines.append(f"{row_id(study, finding)},{cells},{name}")
    (folder / "members.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return stacked.probability


@pytest.fixture(scope="module")
def site(trained_pipeline: TrainedPipeline, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A copy of the trained bundle, and a site with many more severe findings."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(trained_pipeline.model, folder / "models" / "1")
    stacker, _ = read_stackers(folder / "models" / "1")
    probability = _write_predictions(folder / "predictions", stacker, 1)
    shifted = softmax(Calibration(0.8, 0.5, 2.0).apply(centred_logs(probability)))
    return Site(
        folder / "models",
        folder / "predictions",
        _write_labels(folder / "shifted", shifted, 2),
        _write_labels(folder / "usual", probability, 3),
        _digests(folder / "models" / "1"),
    )


@pytest.fixture(scope="module")
def result(site: Site) -> lumbar_tf.RecalibrationResult:
    """The bundle recalibrated once, as version 2."""
    return lumbar_tf.recalibrate(site.predictions, site.labels, model=site.models / "1")


def test_the_next_version_has_the_figures_and_passes_its_self_test(
    result: lumbar_tf.RecalibrationResult, site: Site
) -> None:
    assert result.path == site.models / "2"
    assert result.num_studies == result.num_patients == NUM_STUDIES
    frame = result.to_frame().set_index("family")
    assert set(result.families) == set(frame.index[frame.is_recalibrated]) != set()
    chosen = frame[frame.is_recalibrated]
    assert (chosen.gain_bound > 0).all() and (chosen.loss_after < chosen.loss_before).all()
    assert (chosen.severe > 0.5).all()
    assert find_faults(result.path) == find_file_faults(result.path) == []
    load_bundle(result.path, with_saliency=True, force_self_test=True)


def test_the_graph_equals_numpy(
    result: lumbar_tf.RecalibrationResult, site: Site, trained_pipeline: TrainedPipeline
) -> None:
    assert result.path is not None
    studies = [encode_study(study) for study in trained_pipeline.held_out_studies()]
    cases = [*reference_cases().values(), *studies]
    old, new = (
        served.predict(cases, with_saliency=True)
        for served in (ServedEnsemble(site.models / "1"), ServedEnsemble(result.path))
    )
    original, stacker = read_stackers(result.path)
    members = new["members"].transpose(1, 0, 2, 3).astype(np.float64)
    stacked = apply_stacker(stacker, members)
    for head in Head:
        assert_allclose(new[head.value], stacked.head(head), atol=2e-6)
    assert_array_equal(new["prediction_set"], stacked.sets)
    intervals = member_intervals(stacker, members)
    assert_allclose(new["interval"], np.stack([intervals.low, intervals.high], axis=-1), atol=1e-4)
    assert np.abs(new["probability"] - old["probability"]).max() > 0.05
    # What the stacker has no part in is what it was, and the weights are scaled like the logits.
    assert set(new) == set(old)
    for name in ("members", "landmarks", "doubt", "flags", "saliency"):
        assert_allclose(new[name], old[name], atol=1e-5)
    assert_array_equal(np.isnan(new["weight"]), np.isnan(old["weight"]))
    assert_allclose(apply_stacker(original, members).probability, old["probability"], atol=2e-6)


def test_the_version_says_where_it_came_from(result: lumbar_tf.RecalibrationResult, site: Site) -> None:
    assert result.path is not None
    description = read_ensemble_json(result.path)
    origin = description["recalibration"]
    assert description["version"] == 2
    assert origin["source"] == {
        "version": "1",
        "manifest_sha256": file_sha256(site.models / "1" / EXTRA / "ensemble.json"),
    }
    assert origin["labels_sha256"] == [file_sha256(site.labels)]
    assert origin["num_studies"] == NUM_STUDIES
    assert set(origin["families"]) == {"canal", "foraminal", "subarticular"}
    kept = ("training", "members", "planes", "findings", "flags", "prediction_set_coverage")
    source = read_ensemble_json(site.models / "1")
    assert {name: description[name] for name in kept} == {name: source[name] for name in kept}
    card = (result.path / EXTRA / "model_card.md").read_text(encoding="utf-8")
    assert card.startswith("# Model card: lumbar_tf ensemble, version 2\n")
    assert f"{NUM_STUDIES} labelled studies of {NUM_STUDIES} patients" in card
    text = ServedGraph(result.path).run("describe", {"study": [b""]})["description"][0]
    assert json.loads(text)["recalibration"] == origin
    reference = read_reference(find_reference(result.path))
    assert reference.model == "2"
    assert any(name.startswith("probability/") for name in reference.distributions)


def test_the_old_version_is_untouched_and_loads(result: lumbar_tf.RecalibrationResult, site: Site) -> None:
    assert _digests(site.models / "1") == site.digests
    assert load_bundle(site.models / "1").version == "1"
    assert {path.name for path in site.models.iterdir()} >= {"1", "2"}


def test_a_recalibrated_version_is_recalibrated_from_the_first_stacker(
    result: lumbar_tf.RecalibrationResult, site: Site, tmp_path: Path
) -> None:
    assert result.path is not None
    # Predictions of the version before, other labels.
    stacker, _ = read_stackers(result.path)
    probability = _write_predictions(tmp_path / "predictions", stacker, 4)
    shifted = softmax(Calibration(0.7, -0.5, 1.0).apply(centred_logs(probability)))
    labels = _write_labels(tmp_path / "labels", shifted, 5)
    again = lumbar_tf.recalibrate(
        tmp_path / "predictions", labels, model=result.path, out=tmp_path / "models"
    )
    direct = lumbar_tf.recalibrate(
        tmp_path / "predictions", labels, model=site.models / "1", out=tmp_path / "direct"
    )
    assert again.path is not None and direct.path is not None
    texts = {(path / EXTRA / STACKER_NAME).read_bytes() for path in (again.path, direct.path)}
    assert len(texts) == 1
    origin = read_ensemble_json(again.path)["recalibration"]
    assert (origin["source"]["version"], origin["original_version"]) == ("2", "1")
    sizes = [(path / "saved_model.pb").stat().st_size for path in (result.path, again.path)]
    assert sizes[1] < 1.01 * sizes[0]
    card = (again.path / EXTRA / "model_card.md").read_text(encoding="utf-8")
    assert card.count("## Recalibration") == 1
    case = [reference_cases()["plain"]]
    first, second = (ServedEnsemble(path).predict(case) for path in (again.path, direct.path))
    for name in ("probability", "competition", "interval"):
        assert_allclose(first[name], second[name], atol=1e-6)


def test_labels_like_the_predictions_give_no_version(site: Site, tmp_path: Path) -> None:
    found = lumbar_tf.recalibrate(
        site.predictions, site.usual_labels, model=site.models / "1", out=tmp_path / "models"
    )
    assert found.path is None and found.families == ()
    assert len(found.notes) == 3 and all("no reliable gain" in note for note in found.notes)
    assert not (tmp_path / "models").exists()


def test_a_source_that_was_changed_is_refused(site: Site, tmp_path: Path) -> None:
    changed = tmp_path / "models" / "1"
    shutil.copytree(site.models / "1", changed)
    stacker = changed / EXTRA / STACKER_NAME
    stacker.write_text(stacker.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(ValueError, match="is not the file that was exported"):
        lumbar_tf.recalibrate(site.predictions, site.labels, model=changed)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["1"]


def test_predictions_of_another_bundle_are_refused(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "predictions"
    shutil.copytree(site.predictions, other)
    ids = [f"{study:03d}" for study in range(NUM_STUDIES)]
    uniform = np.full((NUM_STUDIES, len(FINDINGS), len(Severity)), 1 / 3)
    write_out_of_fold_table(other / "probability.csv", ids, uniform)
    with pytest.raises(ValueError, match="must be those of the bundle, version 1"):
        lumbar_tf.recalibrate(other, site.labels, model=site.models / "1")


def test_the_command_prints_the_figures_and_refuses_with_status_1(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        f"--predictions={site.predictions}",
        f"--model={site.models / '1'}",
        f"--out={tmp_path / 'models'}",
    ]
    with pytest.raises(SystemExit) as end:
        run_command(RecalibrateOptions, run_recalibrate, arguments=[*words, f"--labels={site.usual_labels}"])
    printed = capsys.readouterr().out
    assert end.value.code == 1
    assert "No version written: no family gains" in printed and "foraminal" in printed
    few = tmp_path / "few.csv"
    few.write_text("".join(site.labels.read_text(encoding="utf-8").splitlines(keepends=True)[:25]))
    with pytest.raises(SystemExit) as end:
        run_command(RecalibrateOptions, run_recalibrate, arguments=[*words, f"--labels={few}"])
    assert end.value.code == 1
    assert "at least 25 patients" in (error := capsys.readouterr().err) and "Received: 24" in error


def test_the_new_version_is_signed(site: Site, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from tests.bundle.signing_keys import write_keys

    private, public = write_keys(tmp_path, "sign")
    with pytest.raises(ValueError, match="a signature is required"):
        lumbar_tf.recalibrate(
            site.predictions, site.labels, model=site.models / "1", require_signature=public
        )
    signed = lumbar_tf.recalibrate(
        site.predictions,
        site.labels,
        model=site.models / "1",
        out=tmp_path / "models",
        sign_key_file=private,
    )
    assert signed.path is not None
    assert load_bundle(signed.path, require_signature=public).version == "1"
