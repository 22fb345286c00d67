"""docs/explore.ipynb runs from its first cell to its last, on a small bundle, and is kept without outputs."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.documents import REPOSITORY
from tests.trained_pipeline import TrainedPipeline

NOTEBOOK = REPOSITORY / "docs" / "explore.ipynb"
#: The kernel loads TensorFlow and plans the graph, on a machine that others may use.
_TIMEOUT_S = 300


def test_it_is_kept_without_outputs() -> None:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [each for each in content["cells"] if each["cell_type"] == "code"]
    assert len(cells) > 10
    for each in cells:
        assert each["outputs"] == [] and each["execution_count"] is None, each["id"]
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    nbformat.validate(nbformat.from_dict(content))


def test_it_runs_to_its_end(
    trained_pipeline: TrainedPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMBAR_TF_MODEL", str(trained_pipeline.model))
    monkeypatch.setenv("LUMBAR_TF_EXPLORE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook,
        timeout=_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    assert sum("image/png" in each.get("data", {}) for each in outputs) == 6
    printed = "".join(each["text"] for each in outputs if each.get("name") == "stdout")
    assert printed.count("neural foraminal narrowing") == 10
    assert "members: axial_t2/densenet_tiny" in printed
    assert (tmp_path / "900000001.html").is_file()
