"""The harness itself: what it kills is dead."""

import sys
import time
from pathlib import Path

import pytest

from tests.records import killing

#: Starts a child that appends a line every 10 ms, prints, and sleeps.
PARENT = """
import subprocess, sys, time
child = "import time\\nwhile True: open({path!r}, 'a').write('x'); time.sleep(0.01)"
subprocess.Popen([sys.executable, "-c", child])
print("started", flush=True)
time.sleep({seconds})
"""


@pytest.mark.parametrize(("seconds", "was_killed", "status"), [(60, True, -9), (0.3, False, 0)])
def test_the_whole_group_is_dead(tmp_path: Path, seconds: float, was_killed: bool, status: int) -> None:
    path = tmp_path / "beats"
    script = PARENT.format(path=str(path), seconds=seconds)
    ending = killing.run_and_kill([sys.executable, "-c", script], 1.0, tmp_path / "log")
    assert (ending.was_killed, ending.status, ending.output) == (was_killed, status, "started\n")
    size = path.stat().st_size
    assert size > 0
    time.sleep(0.1)
    assert path.stat().st_size == size


def test_the_environment_reaches_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.environ['ONE'])"]
    assert killing.run_and_kill(command, 30.0, tmp_path / "log", {"ONE": "two"}).output == "two\n"
