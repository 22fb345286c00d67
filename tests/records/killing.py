"""Kills a command in the middle of its work, as a power cut or the kernel's memory killer would."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: A command that neither ends nor is killed by then is a fault of the test.
_LONGEST_S = 300.0


@dataclass(frozen=True)
class Ending:
    """How a command came to its end.

    Attributes:
        was_killed: whether it still ran when its time was up.
        status: its exit status; minus the signal's number where a signal ended it.
        output: what it and its children wrote to stdout and stderr.
    """

    was_killed: bool
    status: int
    output: str


def run_and_kill(
    command: Sequence[str], delay_s: float, log: Path, environment: Mapping[str, str] | None = None
) -> Ending:
    """Starts a command in a process group of its own and kills the whole group with SIGKILL.

    When this returns, none of the group's processes runs any more, whether the command was killed or came
    to its end before.

    Args:
        command: the words of the command.
        delay_s: seconds from its start to the kill.
        log: a file that gets its output; a pipe could fill up, or be held open by a child.
        environment: variables beside this process's own.

    Returns:
        How it ended.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            process.wait(delay_s)
            was_killed = False
        except subprocess.TimeoutExpired:
            was_killed = True
        finally:
            _kill_group(process.pid)
        status = process.wait(_LONGEST_S)
    _wait_for_group(process.pid)
    return Ending(was_killed, status, log.read_text(errors="replace"))


def _kill_group(group: int) -> None:
    # The group lives as long as any process in it does, also when the command itself has ended.
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _wait_for_group(group: int) -> None:
    """Waits until killed grandchildren are gone: until then, one could still be inside a write."""
    end = time.monotonic() + _LONGEST_S
    while _is_alive(group):
        if time.monotonic() > end:
            raise TimeoutError(f"A killed process group must end. Received: {group}, still alive.")
        time.sleep(0.005)


def _is_alive(group: int) -> bool:
    """Whether a process of the group runs; those that nobody has waited for yet do not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
