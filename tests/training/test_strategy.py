"""A batch that two devices share gives the step that one device makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.config import TrainingConfig
from lumbar_tf.training import fitter
from lumbar_tf.training.devices import describe_device

ROOT = Path(__file__).resolve().parents[2]


def _run(kind: str, num_devices: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.training.mirrored_run", kind, str(num_devices)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grader", "localizer"])
def test_two_devices_give_the_steps_of_one(kind: str) -> None:
    """With labels that differ in number from replica to replica, and clipping at every step."""
    one, two = _run(kind, 1), _run(kind, 2)
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert len(one["losses"]) == 5
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-4)
    assert len({round(loss, 3) for loss in one["losses"]}) == 5


def test_replicas_that_cannot_share_a_batch_are_refused() -> None:
    training = TrainingConfig(epochs=1, batch_studies=3, learning_rate=0.1)
    with pytest.raises(ValueError, match="3 studies, 2 devices"):
        fitter.check_replicas(training, 2)
    compiled = training.model_copy(update={"batch_studies": 4, "jit_compile": True})
    with pytest.raises(ValueError, match="jit_compile"):
        fitter.check_replicas(compiled, 2)
    fitter.check_replicas(compiled, 1)


def test_the_device_has_a_name() -> None:
    assert describe_device().split()[0] in ("CPU", "GPU", "TPU")
