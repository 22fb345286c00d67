"""Where independent jobs run: in this process or in local processes (a Ray cluster is to come)."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from enum import Enum
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Runner(Enum):
    """Where jobs run."""

    LOCAL = "local"
    RAY = "ray"


class JobError(RuntimeError):
    """A job failed through no fault of its data."""


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    name: Callable[[Job], str] = str,
    runner: Runner = Runner.LOCAL,
) -> Iterator[Result]:
    """Runs a function over jobs and yields each result as it is finished, in any order.

    Args:
        function: a module's top-level function; it and its jobs are pickled where there are workers.
        jobs: one argument each.
        workers: 1 runs the jobs here, one after the other; more runs so many spawned processes, so
            a command's module must be guarded by `if __name__ == "__main__"`.
        name: names a job for error messages.
        runner: where to run.

    Yields:
        What the function returned.

    Raises:
        ValueError: a job raised ValueError, its message with the job's name; or a bad argument here.
        JobError: a job raised anything else, or its process died.
    """
    if runner is not Runner.LOCAL:
        raise ValueError(f"The runner must be local in this version. Received: {runner.value}.")
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1. Received: {workers}.")
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from _run_in_processes(function, jobs, workers, name)
        return
    for job in jobs:
        try:
            result = function(job)
        except Exception as error:
            raise _named(error, name(job)) from error
        yield result


def _run_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, name: Callable[[Job], str]
) -> Iterator[Result]:
    # Forking after TensorFlow has started its threads can deadlock; spawned processes start clean.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        names = {pool.submit(function, job): name(job) for job in jobs}
        try:
            for future in as_completed(names):
                error = future.exception()
                if error is not None:
                    raise _named(error, names[future]) from error
                yield future.result()
        finally:
            # Also when the caller stops early: what has not started never will.
            pool.shutdown(wait=True, cancel_futures=True)


def _named(error: BaseException, job_name: str) -> Exception:
    if isinstance(error, ValueError):
        return ValueError(f"{job_name}: {error}")
    if isinstance(error, BrokenProcessPool):
        return JobError(f"{job_name}: a worker process died (out of memory?).")
    return JobError(f"{job_name}: {type(error).__name__}: {error}")
