"""`python -m lumbar_tf.document`."""

from pathlib import Path

import pytest

import lumbar_tf
from lumbar_tf.cli.console import ExitStatus
from lumbar_tf.records.manifest import write_manifest
from tests.command_line import run_in_process
from tests.records.made_manifests import make_manifest


def test_each_input_fills_more_items(tmp_path: Path) -> None:
    write_manifest(tmp_path, make_manifest({"1": "1", "2": "1"}))
    found = run_in_process("document", f"--records={tmp_path}", f"--out={tmp_path / 'out'}")
    assert found.returncode == 0, found.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "dataset_card.html",
        "checklist.html",
        "checklist.csv",
    }
    assert "CLAIM 2024" in found.stdout and "blank" in found.stdout
    documents = lumbar_tf.document(tmp_path / "again", records=tmp_path)
    items = documents.to_frame()
    assert documents.dataset_card is not None and len(items) == 44 + 52
    assert set(items.status) <= {"filled", "in part", "blank"}
    (row,) = items[(items.checklist == "CLAIM 2024") & (items.item == "7")].itertuples()
    assert row.content == "2 studies of 1 patients." and row.files == "manifest.json"
    assert "--bundle" in row.blank


def test_a_call_without_inputs_is_refused(tmp_path: Path) -> None:
    found = run_in_process("document", f"--out={tmp_path / 'out'}")
    assert found.returncode == ExitStatus.CALL and "At least one of" in found.stderr
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be an exported version"):
        lumbar_tf.document(tmp_path / "out", bundle=tmp_path)
