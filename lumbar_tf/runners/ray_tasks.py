"""Jobs as tasks of a Ray cluster, which runs them again when a process or a machine is lost.

The machine that this runs on and the cluster's head must live; any other may go at any time.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lumbar_tf.runners.outcomes import (
    MAX_ATTEMPTS,
    Job,
    JobFailure,
    JobShare,
    Result,
    attempt,
    lost_jobs_error,
)

#: Tasks handed to the cluster for each that it has room for: one runs, one waits, so that no CPU idles and
#: a cluster that can grow sees that it should.
_TASKS_PER_PLACE = 2
#: How long cancelled tasks may take to leave their blocks, seconds.
_GRACE_S = 5.0


def run_on_ray(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int,
    name: Callable[[Job], str],
    address: str | None,
    share: JobShare,
) -> Iterator[Result]:
    """Runs jobs on a Ray cluster; see `run_jobs`, which this is a part of.

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or a job raised it.
        JobError: as `run_jobs` has it.
    """
    ray = _load_ray()
    with _connect(ray, min(workers, len(jobs)) * share.num_cpus, address):
        yield from _run_tasks(ray, function, jobs, name, share)


def _load_ray() -> ModuleType:
    # Ray reads these once, while it is imported. A hospital's machine tells nobody that it runs; and Ray
    # would repeat a task that runs out of memory without end.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_ATTEMPTS - 1))
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "The ray runner needs Ray: pip install 'lumbar_tf[ray]'. Received: an environment without it."
        ) from error
    return ray


@contextmanager
def _connect(ray: ModuleType, num_cpus: int, address: str | None) -> Iterator[None]:
    """Starts a cluster or joins one, and ends what was begun. A connection that the caller has is used."""
    if ray.is_initialized():
        yield
        return
    if address and address != "auto":
        _check_port(address)
    # Without an address Ray would join any cluster that it finds; "local" always starts one.
    options: dict[str, Any] = {"address": address} if address else {"address": "local", "num_cpus": num_cpus}
    try:
        ray.init(include_dashboard=None if address else False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _address_error(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """Refuses an address that nobody answers at; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _GRACE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _address_error(address, error) from error


def _address_error(address: str | None, error: Exception) -> ValueError:
    return ValueError(
        "`ray_address` must be `auto` or host:port of a running Ray cluster. "
        f"Received: {address!r} ({type(error).__name__}: {error})."
    )


def _run_tasks(
    ray: ModuleType,
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    name: Callable[[Job], str],
    share: JobShare,
) -> Iterator[Result]:
    # Ray ends the process of a job with GPUs after it: TensorFlow gives their memory back no sooner.
    task = ray.remote(num_cpus=share.num_cpus, num_gpus=share.num_gpus, max_retries=MAX_ATTEMPTS - 1)(attempt)
    waiting = deque(range(len(jobs)))
    running: dict[Any, int] = {}
    lost: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < _window(ray, share):
                index = waiting.popleft()
                running[_submit(task, function, jobs[index], name)] = index
            for reference in ray.wait(list(running), num_returns=1)[0]:
                job_name = name(jobs[running.pop(reference)])
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayTaskError as error:  # a job or a result that cannot be pickled
                    raise JobFailure.of(error.cause).named(job_name) from error
                except ray.exceptions.RayError as error:
                    lost[job_name] = type(error).__name__
                    continue
                if isinstance(outcome, JobFailure):
                    raise outcome.named(job_name)
                yield outcome.value
    finally:
        _cancel(ray, list(running))
    if lost:
        raise lost_jobs_error(lost)


def _window(ray: ModuleType, share: JobShare) -> int:
    """Returns how many tasks may be outstanding; machines come and go, so it is asked every time."""
    has = ray.cluster_resources()
    places = int(has.get("CPU", 0)) // share.num_cpus
    if share.num_gpus:
        places = min(places, int(has.get("GPU", 0) / share.num_gpus))
    return _TASKS_PER_PLACE * max(places, 1)


def _submit(task: Any, function: Callable[[Job], Result], job: Job, name: Callable[[Job], str]) -> Any:
    try:
        return task.remote(function, job)
    except Exception as error:
        raise JobFailure.of(error).named(name(job)) from error


def _cancel(ray: ModuleType, references: list[Any]) -> None:
    """Stops what still runs, by KeyboardInterrupt over there, so that temporary files vanish."""
    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_GRACE_S)
