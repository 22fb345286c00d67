"""A run that is killed and taken up again ends as an undisturbed one, bit for bit, on a CPU."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.training import fold_run

ROOT = Path(__file__).resolve().parents[2]
#: Epochs that are in the history when the clock of a kill starts.
_KILLED_AFTER = (1, 5, 9)


def _start(shard: Path, folder: Path, mode: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.training.fold_run", str(shard), str(folder), mode]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)


def _history(folder: Path) -> list[dict[str, float]]:
    path = folder / "history.json"
    return json.loads(path.read_text()) if path.is_file() else []


def _kill_in_epoch(process: subprocess.Popen[bytes], folder: Path, num_done: int, delay_s: float) -> None:
    end = time.monotonic() + 240
    while len(_history(folder)) < num_done:
        assert time.monotonic() < end and process.poll() is None, "the run must still be at it"
        time.sleep(0.005)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must not have ended before"


def _weights(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cached", "uncached"])
def test_sigkill_at_three_points_does_not_change_the_result(tmp_path: Path, mode: str) -> None:
    shard = tmp_path / "a.tfrecord"
    fold_run.write_shard(shard)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _start(shard, whole, mode).wait(300) == 0
    epoch_s = float(np.median([row["seconds"] for row in _history(whole)[1:]]))
    moments = random.Random(mode)
    for num_done in _KILLED_AFTER:
        process = _start(shard, killed, mode)
        _kill_in_epoch(process, killed, num_done, moments.uniform(0, epoch_s))
        assert not (killed / "weights.weights.h5").exists()
    assert _start(shard, killed, mode).wait(300) == 0
    rows, expected = _history(killed), _history(whole)
    assert [row["epoch"] for row in rows] == [float(number) for number in range(1, fold_run.EPOCHS + 1)]
    for row, other in zip(rows, expected, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    resumed, undisturbed = (_weights(folder / "weights.weights.h5") for folder in (killed, whole))
    assert resumed.keys() == undisturbed.keys() and len(resumed) > 8
    for name, value in undisturbed.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    losses = [row["loss"] for row in expected]
    assert len(set(losses)) == len(losses), "the epochs must differ, or a repeated one would not show"
