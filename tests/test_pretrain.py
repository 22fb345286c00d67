"""The pretrained ensemble: its making goes on where it stopped, and its place holds a complete one."""

import json
from pathlib import Path

import pytest

from lumbar_tf.api import pretrained
from lumbar_tf.api.pretrained import install_pretrained
from lumbar_tf.bundle.file_check import find_file_faults, seal_description
from lumbar_tf.config import PRETRAINED_CONFIG_PATH, load_demo_config
from lumbar_tf.files import file_sha256
from lumbar_tf.models.pretrained import FOLDER_VARIABLE
from tests.command_line import run_in_process


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _bundle(folder: Path, content: str = "graph") -> Path:
    """The files of a bundle with their manifest, without a graph."""
    _write(folder / "saved_model.pb", content)
    digests = {"saved_model.pb": file_sha256(folder / "saved_model.pb")}
    manifest = seal_description({"members": []}, digests)
    _write(folder / "assets.extra" / "ensemble.json", json.dumps(manifest))
    return folder


def test_a_bundle_is_copied(tmp_path: Path) -> None:
    target = tmp_path / "pretrained"
    installed = install_pretrained(_bundle(tmp_path / "models" / "3"), target)
    assert installed.bundle == target / "3"
    assert find_file_faults(installed.bundle) == []
    files = [path for path in target.rglob("*") if path.is_file()]
    assert installed.size_bytes == sum(path.stat().st_size for path in files)


def test_an_earlier_ensemble_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "place" / "pretrained"
    install_pretrained(_bundle(tmp_path / "1"), target)
    install_pretrained(_bundle(tmp_path / "2", "another graph"), target)
    assert sorted(path.name for path in target.iterdir()) == ["2"]
    assert [path.name for path in target.parent.iterdir()] == ["pretrained"]


def test_a_damaged_or_large_bundle_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "place" / "pretrained"
    install_pretrained(_bundle(tmp_path / "1"), target)
    before = sorted(path for path in target.parent.rglob("*"))
    damaged = _bundle(tmp_path / "2")
    (damaged / "saved_model.pb").write_text("other")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        install_pretrained(damaged, target)
    monkeypatch.setattr(pretrained, "MAX_BYTES", 10)
    monkeypatch.setenv(FOLDER_VARIABLE, str(target))
    with pytest.raises(ValueError, match="must have at most 0 MB"):
        install_pretrained(_bundle(tmp_path / "3"))
    assert sorted(path for path in target.parent.rglob("*")) == before


def test_the_configuration_has_two_members_a_plane() -> None:
    config = load_demo_config(PRETRAINED_CONFIG_PATH)
    assert [len(plane.grader.backbones) for plane in config.planes] == [2, 2, 2]


def test_a_folder_of_another_configuration_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "lumbar_tf_demo.yaml").write_text("other: true\n")
    done = run_in_process("pretrain", f"--out={tmp_path}", f"--install={tmp_path / 'pretrained'}")
    assert done.returncode == 1
    assert "must have been begun with the same configuration" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lumbar_tf_demo.yaml"]
