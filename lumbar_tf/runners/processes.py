"""Jobs in local processes.

Each process has one job at a time and a pipe of its own, so it is known which job a process died of, and
the others go on undisturbed. A pool of the standard library knows neither: when one of its processes
dies it gives up all of them and every job that was handed out.
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
from typing import Generic

from lumbar_tf.runners.outcomes import (
    MAX_ATTEMPTS,
    Done,
    Job,
    JobFailure,
    Result,
    attempt,
    lost_jobs_error,
)

#: How long a process that is told to stop may take to leave its blocks, seconds.
_GRACE_S = 5.0
#: Ends that come up in practice; any other is told by its number.
_SIGNALS = {int(signal.SIGKILL): "SIGKILL, out of memory?", int(signal.SIGSEGV): "SIGSEGV"}


def run_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, name: Callable[[Job], str]
) -> Iterator[Result]:
    """Runs jobs in spawned processes; see `run_jobs`, which this is a part of."""
    crew = _Crew(function, jobs, workers=workers, name=name)
    try:
        yield from crew.run()
    finally:
        # Also when the caller stops early, by an exception, Ctrl-C or closing the generator.
        crew.dismiss()
    if crew.lost:
        raise lost_jobs_error(crew.lost)


class _Worker:
    """A process and the job it is at."""

    def __init__(self) -> None:
        # Forking after TensorFlow has started its threads can deadlock; spawned processes start clean.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.job: int | None = None

    def give(self, job: int, message: bytes) -> None:
        """Hands over a job."""
        self.job = job
        with suppress(OSError):  # a process that is dead by now shows when it is waited for
            self.pipe.send_bytes(message)

    def take(self) -> tuple[int, Done | JobFailure | None]:
        """Returns the job and what became of it, None where the process died."""
        if self.job is None:
            raise ValueError("A process must have a job before it can answer. Received: an idle one.")
        job, self.job = self.job, None
        try:
            # A process that died without an answer leaves nothing to read, or the end of the pipe.
            return job, pickle.loads(self.pipe.recv_bytes()) if self.pipe.poll() else None  # noqa: S301
        except (EOFError, OSError):
            return job, None

    def bury(self) -> str:
        """Waits for the end of a process that died and says how it came."""
        self.pipe.close()
        self.end()
        code = self.process.exitcode or 0
        return _SIGNALS.get(-code, f"signal {-code}") if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """Waits for the process, and kills it where it does not end by itself."""
        self.process.join(_GRACE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Crew(Generic[Job, Result]):
    """The processes and the jobs that wait for them."""

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
        """Yields the results of all jobs that come to an end."""
        self._hand_out()
        while ready := self._wait():
            outcomes = [self._take(worker) for worker in ready]
            # No process idles while the caller looks at results.
            self._hand_out()
            for job, outcome in outcomes:
                if isinstance(outcome, JobFailure):
                    raise outcome.named(self._name(self._jobs[job]))
                if outcome is not None:
                    yield outcome.value

    def dismiss(self) -> None:
        """Stops all processes: those that idle by closing their pipes, the others by SIGTERM."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.job is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.end()

    def _wait(self) -> list[_Worker]:
        """Returns the processes that have answered or died; none where none has a job."""
        busy = [each for each in self._workers if each.job is not None]
        signs = wait([sign for each in busy for sign in (each.pipe, each.process.sentinel)]) if busy else []
        return [each for each in busy if each.pipe in signs or each.process.sentinel in signs]

    def _take(self, worker: _Worker) -> tuple[int, Done | JobFailure | None]:
        """Returns a process's job and what became of it; a dead one is taken off the list."""
        job, outcome = worker.take()
        if outcome is None:
            self._workers.remove(worker)
            self._repeat(job, worker.bury())
        return job, outcome

    def _repeat(self, job: int, reason: str) -> None:
        """Puts a job that its process died of behind all others, or gives it up."""
        self._deaths[job] += 1
        if self._deaths[job] < MAX_ATTEMPTS:
            self._waiting.append(job)
        else:
            self.lost[self._name(self._jobs[job])] = reason

    def _hand_out(self) -> None:
        """Gives jobs to all who have none, and starts processes as long as there are too few."""
        while self._waiting and len(self._workers) < self._size:
            self._workers.append(_Worker())
            self._give(self._workers[-1])
        for worker in self._workers:
            if self._waiting and worker.job is None:
                self._give(worker)

    def _give(self, worker: _Worker) -> None:
        index = self._waiting.popleft()
        try:
            message = pickle.dumps((self._function, self._jobs[index]))
        except Exception as error:
            raise JobFailure.of(error).named(self._name(self._jobs[index])) from error
        worker.give(index, message)


def _serve(pipe: Connection) -> None:
    """What a process does: one job after the other until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller decides
    # Unlike the default, this leaves `with` and `finally` blocks, so temporary files vanish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))


def _answer(message: bytes) -> bytes:
    try:
        function, job = pickle.loads(message)  # noqa: S301
        return pickle.dumps(attempt(function, job))
    except Exception as error:  # what cannot be imported here, or not be pickled
        return pickle.dumps(JobFailure.of(error))


def _end_with_parent() -> None:
    """Ends this process when the one that started it is killed: two builds never write side by side."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
