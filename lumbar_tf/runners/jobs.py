"""Runs a function over jobs, wherever the caller wants them run."""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from lumbar_tf.runners.outcomes import Job, JobFailure, JobShare, Result
from lumbar_tf.runners.processes import run_in_processes
from lumbar_tf.runners.ray_tasks import run_on_ray


class Runner(Enum):
    """Where jobs run."""

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
    """Runs a function over jobs and yields each result as it is finished, in any order.

    A job whose process dies (killed, out of memory, a decoder's segmentation fault, a lost machine) is
    run again, three times in all, so jobs must bear to be repeated: let them write whole files or
    none. No more jobs are handed out than there are processes for.

    Args:
        function: a module's top-level function; it and its jobs are pickled where there are workers.
        jobs: one argument each.
        workers: with `Runner.LOCAL`, 1 runs the jobs here, one after the other, without protection from
            a process that dies; more runs so many spawned processes, so a command's module must be
            guarded by `if __name__ == "__main__"`. With `Runner.RAY`, for how many jobs side by side the
            cluster that is started here has CPUs; a cluster that runs already says itself what it has.
        name: names a job for error messages.
        runner: where to run. With `Runner.RAY` all machines must see the input and output folders at
            the same paths, and have this package installed.
        ray_address: of the Ray cluster to use, `auto` (on one of its machines) or `host:port`; None starts
            one on this machine and stops it at the end.
        share: with `Runner.RAY`, what each job has of a machine; one CPU by default.

    Yields:
        What the function returned.

    Raises:
        ValueError: a job raised ValueError, its message with the job's name; or a bad argument here.
        JobError: a job raised anything else. Or its process died every time: then only after all other
            jobs have yielded their results.
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
