"""Entry point of the runners."""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from lumbar_tf.runners.outcomes import Job, JobFailure, JobShare, Result
from lumbar_tf.runners.processes import run_in_processes
from lumbar_tf.runners.ray_tasks import run_on_ray


class Runner(Enum):
    """Place where jobs run."""

    LOCAL = "local"
    RAY = "ray"


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    name: Callable[[Job], str] = str,
    runner: Runner = Runner.LOCAL,
    ray_address: str | None = None,
    share: JobShare | None = None,
) -> Iterator[Result]:
    """Runs a function over jobs and yields the results as they are finished, in any order.

    A job whose process dies (killed, out of memory, segmentation fault of a decoder, lost machine) runs
    again, up to three times, so jobs must be repeatable: they should write files atomically. At most as
    many jobs are submitted as there are processes.

    Args:
        function: top-level function of a module; it and the jobs are pickled if there are workers.
        jobs: arguments of the calls.
        workers: with `Runner.LOCAL`, 1 runs the jobs in this process, one after the other; a larger number is
            the number of spawned processes, which requires that the main module is guarded by
            `if __name__ == "__main__"`. With `Runner.RAY`, the number of concurrent jobs that the cluster
            started here has CPUs for; a running cluster keeps its resources.
        name: returns the name of a job for error messages.
        runner: place where the jobs run. With `Runner.RAY` all machines must see the input and output folders
            at the same paths, and have this package installed.
        ray_address: of the Ray cluster, `auto` (on one of its machines) or `host:port`; None starts a cluster
            on this machine and stops it at the end.
        share: with `Runner.RAY`, the resources of a job; one CPU by default.

    Yields:
        The results of the function.

    Raises:
        ValueError: a job raised ValueError (the message has the job's name), or an argument is invalid.
        JobError: a job raised another exception, or its process died in every attempt; the latter is raised
            after all other jobs have yielded their results.
    """
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1. Received: {workers}.")
    if runner is not Runner.RAY and ray_address is not None:
        raise ValueError(
            f"`ray_address` needs the ray runner. Received: {ray_address!r}, runner {runner.value}."
        )
    if runner is not Runner.RAY and share is not None:
        raise ValueError(f"`share` needs the ray runner. Received: {share}, runner {runner.value}.")
    if not jobs:
        return
    if runner is Runner.RAY:
        yield from run_on_ray(
            function, jobs, workers=workers, name=name, address=ray_address, share=share or JobShare()
        )
    elif workers > 1:
        yield from run_in_processes(function, jobs, workers=workers, name=name)
    else:
        yield from _run_here(function, jobs, name)


def _run_here(
    function: Callable[[Job], Result], jobs: Sequence[Job], name: Callable[[Job], str]
) -> Iterator[Result]:
    for job in jobs:
        try:
            result = function(job)
        except Exception as error:
            raise JobFailure.of(error).named(name(job)) from error
        yield result
