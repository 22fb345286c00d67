"""Reading of mutated files: no crash, no hang, and only valid shapes and positions are accepted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom import fuzzing

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_FILES = 20_000


def _fuzz(first: int, count: int, progress: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.dicom.fuzzing", str(first), str(count), str(progress)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_mutated_files_are_read_or_rejected(tmp_path: Path) -> None:
    progress = tmp_path / "number"
    run = _fuzz(0, NUM_FILES, progress)
    assert run.returncode == 0, f"at file {progress.read_text()}: {run.stderr[-4000:]}"
    result = json.loads(run.stdout)
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == NUM_FILES
    assert result["slowest_seconds"] < fuzzing.MAX_SECONDS
    assert result["peak_bytes"] < fuzzing.MAX_EXTRA_BYTES
    # Some mutated files stay valid, others are rejected by their header, others by their pixels.
    assert {"accepted", "truncated", "damaged_header", "undecodable", "bad_orientation"} <= set(outcomes)
    assert set(outcomes) <= {"accepted", *(reason.value for reason in RejectReason)}


def test_a_file_is_the_same_on_every_run() -> None:
    bases = fuzzing.make_bases()
    assert fuzzing.mutate(bases, 17) == fuzzing.mutate(bases, 17) != fuzzing.mutate(bases, 18)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.uint16), np.full((24, 20), np.nan, np.float32), np.zeros((24, 20), "O")]
)
def test_wrong_pixels_would_be_found(monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray) -> None:
    monkeypatch.setattr(fuzzing, "decode_frame", lambda image, frame: pixels)
    with pytest.raises(fuzzing.FuzzError):
        fuzzing.read(fuzzing.make_bases()[0])


def test_an_error_of_another_kind_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> None:
        raise KeyError

    monkeypatch.setattr(fuzzing, "open_image", fail)
    with pytest.raises(KeyError):
        fuzzing.read(b"")
