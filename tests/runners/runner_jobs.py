"""Jobs for the runners' tests, in a module that other processes can import, and how tests watch them."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def named(job: Any) -> str:
    """Returns a job's name in an error."""
    return f"job-{job[1] if isinstance(job, tuple) else job}"


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Waits for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


def fail(number: int) -> int:
    if number == 2:
        raise ValueError("two is bad")
    if number == 3:
        raise KeyError("three")
    return number


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def fail_unpicklably(_: int) -> int:
    raise UnpicklableError("one", "other")


def return_unpicklable(_: int) -> object:
    return threading.Lock()


def die_once(job: tuple[str, int]) -> int:
    """Odd jobs kill their process at the first attempt; every attempt leaves a line."""
    number = job[1]
    if number % 2 and count_attempt(job) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(job: tuple[str, int]) -> int:
    """Job 0 kills its process at every attempt."""
    number = job[1]
    count_attempt(job)
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return number


def count_attempt(job: tuple[str, int]) -> int:
    folder, number = job
    with (Path(folder) / str(number)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len((Path(folder) / str(number)).read_text().splitlines())


def hold_a_file(path: str) -> None:
    """Makes a file that is to vanish, and takes a minute."""
    marker = Path(path)
    try:
        marker.write_text(str(os.getpid()))
        for _ in range(600):
            time.sleep(0.1)  # Ray's interrupt is seen between statements
    finally:
        marker.unlink()


def start_or_hold(path: str) -> None:
    """Returns at once where the path is a folder, else as `hold_a_file`."""
    if not Path(path).is_dir():
        hold_a_file(path)


def say_where(job: tuple[str, int]) -> int:
    """Takes a moment; the name of the file that it makes says on which Ray node it ran."""
    import ray

    folder, number = job
    (Path(folder) / f"{number}.{ray.get_runtime_context().get_node_id()}.{os.getpid()}").touch()
    time.sleep(0.5)
    return number
