"""The installation as `info` describes it."""

import importlib.util
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

import lumbar_tf
from lumbar_tf.models.pretrained import pretrained_folder
from tests.command_line import run_in_process


def test_versions_devices_and_extras_are_those_of_the_environment(tmp_path: Path) -> None:
    found = lumbar_tf.info(tmp_path / "absent")
    assert found.versions["tensorflow"] == version("tensorflow")
    assert "CPU:0" in found.devices
    for extra, package, module in (("tfio", "tensorflow-io", "tensorflow_io"), ("ray", "ray", "ray")):
        is_absent = importlib.util.find_spec(module) is None
        assert (package in found.extras[extra]) == is_absent
    assert not {"dev", "docs"} & set(found.extras)


def test_the_pretrained_ensemble_is_found_and_says_what_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMBAR_TF_CACHE", str(tmp_path))
    (bundle,) = lumbar_tf.info(tmp_path / "absent").bundles
    assert bundle.path.parent == pretrained_folder()
    assert len(bundle.members) == 6
    assert bundle.training.startswith("The model was trained on synthetic studies.")
    assert bundle.verdict == "files and graph checked, self-test not run yet"


def test_a_changed_bundle_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    shutil.copytree(pretrained_folder(), models)
    (version_folder,) = models.iterdir()
    (version_folder / "variables" / "variables.index").write_bytes(b"other")
    monkeypatch.setenv("LUMBAR_TF_PRETRAINED", str(tmp_path / "absent"))
    done = run_in_process("info", f"--models={models}", "--json")
    assert done.returncode == 1
    (bundle,) = json.loads(done.stdout)["bundles"]
    assert bundle["faults"] == [
        "variables/variables.index is not the file that was exported (its SHA-256 differs)"
    ]


def test_no_bundle_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBAR_TF_PRETRAINED", str(tmp_path / "absent"))
    done = run_in_process("info", f"--models={tmp_path}")
    assert done.returncode == 0
    assert f"No bundle: neither in {tmp_path}, nor the pretrained ensemble." in done.stdout
