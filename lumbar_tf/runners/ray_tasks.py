"""Jobs as tasks of a Ray cluster, which repeats tasks of a lost process or machine.

This machine and the head of the cluster must stay up; other machines may be lost at any time.
"""

import logging
import os
import socket
import sys
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

#: Submitted tasks per free place: one runs and one waits, so that no CPU idles and an autoscaler sees
#: the demand.
_TASKS_PER_PLACE = 2
#: Time for cancelled tasks to leave their `with` blocks, in seconds.
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
    """Runs jobs on a Ray cluster. See `run_jobs`.

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or a job raised it.
        JobError: see `run_jobs`.
    """
    ray = _load_ray(is_local=address is None)
    with _connect(ray, min(workers, len(jobs)) * share.num_cpus, address):
        yield from _run_tasks(ray, function, jobs, name, share)


def _load_ray(*, is_local: bool) -> ModuleType:
    # Ray reads these variables when it is imported: no usage reports, and a limit on the attempts of tasks
    # that run out of memory.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_ATTEMPTS - 1))
    if is_local and "ray" not in sys.modules:
        # Ray's ports run what is sent to them, and it opens them on all interfaces. Without support for
        # several machines, which it has on Linux unless this variable is 0, it uses the loopback interface
        # only (measured with 2.60). A value set by the user takes precedence.
        # Ray itself requires a token of a cluster that it starts, unless RAY_AUTH_MODE is set.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "The ray runner needs Ray: pip install 'lumbar_tf[ray]'. Received: an environment without it."
        ) from error
    return ray


@contextmanager
def _connect(ray: ModuleType, num_cpus: int, address: str | None) -> Iterator[None]:
    """Starts or joins a cluster, and disconnects at the end. An existing connection is used as it is."""
    if ray.is_initialized():
        yield
        return
    if address and address != "auto":
        _check_port(address)
    # Without an address Ray would join any cluster it finds; "local" always starts one.
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
    """Raises if nothing listens at an address; Ray itself would try for minutes."""
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
    # Ray ends the process after a job with GPUs, because TensorFlow does not free their memory earlier.
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
                except ray.exceptions.RayTaskError as error:  # the job or its result cannot be pickled
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
    """Returns the maximum number of submitted tasks; the cluster's size may have changed."""
    resources = ray.cluster_resources()
    places = int(resources.get("CPU", 0)) // share.num_cpus
    if share.num_gpus:
        places = min(places, int(resources.get("GPU", 0) / share.num_gpus))
    return _TASKS_PER_PLACE * max(places, 1)


def _submit(task: Any, function: Callable[[Job], Result], job: Job, name: Callable[[Job], str]) -> Any:
    try:
        return task.remote(function, job)
    except Exception as error:
        raise JobFailure.of(error).named(name(job)) from error


def _cancel(ray: ModuleType, references: list[Any]) -> None:
    """Cancels running tasks by KeyboardInterrupt, so that temporary files are removed."""
    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_GRACE_S)
