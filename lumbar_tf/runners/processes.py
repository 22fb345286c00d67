"""Jobs in local processes.

Each process has one job at a time and its own pipe, so the job of a process that dies is known and the other
processes continue. A pool of the standard library breaks when one of its processes dies, and loses all jobs
that were submitted.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from typing import Generic

from lumbar_tf.runners.memory import keep_freed_memory
from lumbar_tf.runners.outcomes import (
    MAX_ATTEMPTS,
    Done,
    Job,
    JobFailure,
    Result,
    attempt,
    lost_jobs_error,
)

#: Time for a process to leave its `with` blocks after SIGTERM, in seconds.
_GRACE_S = 5.0
#: Names of common signals; others are reported by number.
_SIGNALS = {int(signal.SIGKILL): "SIGKILL, out of memory?", int(signal.SIGSEGV): "SIGSEGV"}


def run_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, name: Callable[[Job], str]
) -> Iterator[Result]:
    """Runs jobs in spawned processes. See `run_jobs`."""
    pool = _ProcessPool(function, jobs, workers=workers, name=name)
    try:
        yield from pool.run()
    finally:
        # Also if the caller stops early: an exception, Ctrl-C or a closed generator.
        pool.stop()
    if pool.lost:
        raise lost_jobs_error(pool.lost)


class _Worker:
    """A process and its current job."""

    def __init__(self) -> None:
        # Forking after TensorFlow has started its threads can deadlock; spawned processes start clean.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._has_started = context.Event()
        self.process = context.Process(target=_serve, args=(theirs, self._has_started), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.job: int | None = None

    def submit(self, job: int, message: bytes) -> None:
        """Sends a job to the process."""
        self.job = job
        with suppress(OSError):  # a dead process is noticed when it is waited for
            self.pipe.send_bytes(message)

    def receive(self) -> tuple[int, Done | JobFailure | None]:
        """Returns the job and its outcome; None if the process died."""
        if self.job is None:
            raise ValueError(
                "A process must have a job before its outcome is received. Received: an idle process."
            )
        job, self.job = self.job, None
        try:
            # A process that died leaves nothing to read, or the end of the pipe.
            return job, pickle.loads(self.pipe.recv_bytes()) if self.pipe.poll() else None  # noqa: S301
        except (EOFError, OSError):
            return job, None

    def exit_reason(self) -> str:
        """Waits for the end of a process that died and returns the reason.

        Raises:
            RuntimeError: it failed before it could take a job, as every other process of this program would.
        """
        self.pipe.close()
        self.end()
        code = self.process.exitcode or 0
        if code > 0 and not self._has_started.is_set():
            raise RuntimeError(
                "Worker processes must be able to import the program that starts them. Received: a process "
                f"that ended with exit status {code} before its first job. A script needs `if __name__ == "
                '"__main__":` around its calls; otherwise use workers=1.'
            )
        return _SIGNALS.get(-code, f"signal {-code}") if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """Waits for the process, and kills it if it does not end."""
        self.process.join(_GRACE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _ProcessPool(Generic[Job, Result]):
    """Processes and the jobs that wait for them."""

    def __init__(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        *,
        workers: int,
        name: Callable[[Job], str],
    ) -> None:
        self.lost: dict[str, str] = {}
        self._function = function
        self._jobs = jobs
        self._name = name
        self._size = min(workers, len(jobs))
        self._waiting = deque(range(len(jobs)))
        self._deaths: Counter[int] = Counter()
        self._workers: list[_Worker] = []

    def run(self) -> Iterator[Result]:
        """Yields the results of all finished jobs."""
        self._submit_jobs()
        while ready := self._wait():
            outcomes = [self._receive(worker) for worker in ready]
            # Processes work while the caller uses the results.
            self._submit_jobs()
            for job, outcome in outcomes:
                if isinstance(outcome, JobFailure):
                    raise outcome.named(self._name(self._jobs[job]))
                if outcome is not None:
                    yield outcome.value

    def stop(self) -> None:
        """Stops all processes: idle ones by closing their pipes, the others by SIGTERM."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.job is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.end()

    def _wait(self) -> list[_Worker]:
        """Returns the processes that have finished a job or died; empty if none has a job."""
        busy = [worker for worker in self._workers if worker.job is not None]
        handles = [handle for worker in busy for handle in (worker.pipe, worker.process.sentinel)]
        ready = wait(handles) if busy else []
        return [worker for worker in busy if worker.pipe in ready or worker.process.sentinel in ready]

    def _receive(self, worker: _Worker) -> tuple[int, Done | JobFailure | None]:
        """Returns the job of a process and its outcome; removes a dead process."""
        job, outcome = worker.receive()
        if outcome is None:
            self._workers.remove(worker)
            self._repeat(job, worker.exit_reason())
        return job, outcome

    def _repeat(self, job: int, reason: str) -> None:
        """Queues a job whose process died again, or gives it up after the last attempt."""
        self._deaths[job] += 1
        if self._deaths[job] < MAX_ATTEMPTS:
            self._waiting.append(job)
        else:
            self.lost[self._name(self._jobs[job])] = reason

    def _submit_jobs(self) -> None:
        """Submits jobs to idle processes, and starts missing processes."""
        while self._waiting and len(self._workers) < self._size:
            self._workers.append(_Worker())
            self._submit(self._workers[-1])
        for worker in self._workers:
            if self._waiting and worker.job is None:
                self._submit(worker)

    def _submit(self, worker: _Worker) -> None:
        index = self._waiting.popleft()
        try:
            message = pickle.dumps((self._function, self._jobs[index]))
        except Exception as error:
            raise JobFailure.of(error).named(self._name(self._jobs[index])) from error
        worker.submit(index, message)


def _serve(pipe: Connection, has_started: Event) -> None:
    """Runs one job after the other until the pipe is closed; main function of a process."""
    has_started.set()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole process group; the caller handles it
    # Unlike the default handler, this runs `finally` blocks, so temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_run_message(pipe.recv_bytes()))


def _run_message(message: bytes) -> bytes:
    try:
        function, job = pickle.loads(message)  # noqa: S301
        return pickle.dumps(attempt(function, job))
    except Exception as error:  # the job cannot be imported, or its result cannot be pickled
        return pickle.dumps(JobFailure.of(error))


def _end_with_parent() -> None:
    """Ends this process when its parent is killed, so that two builds never write at the same time."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
