"""Training data in the description of an ensemble: what is written is read, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.models.bundle_folder import read_ensemble_json
from lumbar_tf.serving.training_data import (
    MAX_ORIGIN_CHARACTERS,
    TrainingData,
    parse_training,
    summarise_origin,
    training_to_json,
)

UNDOCUMENTED = "The model's training data are not documented."
SYNTHETIC = "The model was trained on synthetic studies. Its grades are not validated on patients."
HOSTILE: dict[str, Any] = {
    "not an object": "Validated on 10,000 patients.",
    "null": None,
    "empty": {},
    "long": {"data": "x" * 10_000, "is_synthetic": False},
    "control characters": {"data": "a\x1b[2Jb", "is_synthetic": False},
    "lines": {"data": "a\nb", "is_synthetic": False},
    "right to left": {"data": "a\u202eb", "is_synthetic": False},
    "number": {"data": 7, "is_synthetic": False},
    "word for a flag": {"data": "a", "is_synthetic": "no"},
    "no flag": {"data": "a"},
}


@given(st.text(max_size=400), st.booleans())
def test_any_text_becomes_a_line_that_is_read_back(text: str, is_synthetic: bool) -> None:
    training = TrainingData(summarise_origin(text), is_synthetic)
    stored = json.loads(json.dumps({"training": training_to_json(training)}))
    assert parse_training(stored) == training
    assert training.note.isprintable() and len(training.note) < MAX_ORIGIN_CHARACTERS + 30


def test_the_note_states_synthetic_studies_whatever_their_origin() -> None:
    assert TrainingData("10,000 patients", is_synthetic=True).note == SYNTHETIC
    assert TrainingData("SPIDER, 88 studies.").note == "The model was trained on SPIDER, 88 studies."
    assert TrainingData().note == UNDOCUMENTED


def test_a_long_origin_is_cut() -> None:
    assert summarise_origin("word " * 100).endswith("...")
    assert len(summarise_origin("x" * 10_000)) == MAX_ORIGIN_CHARACTERS


def test_the_data_of_an_old_bundle_are_undocumented(tmp_path: Path) -> None:
    _write(tmp_path, {"members": []})
    assert parse_training(read_ensemble_json(tmp_path)).note == UNDOCUMENTED


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=list(HOSTILE))
def test_a_bundle_with_another_entry_is_refused(tmp_path: Path, entry: object) -> None:
    _write(tmp_path, {"members": [], "training": entry})
    with pytest.raises(ValueError, match="its training must") as error:
        read_ensemble_json(tmp_path)
    # The message does not repeat the text.
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def _write(folder: Path, description: dict[str, Any]) -> None:
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "ensemble.json").write_text(json.dumps(description), encoding="utf-8")
