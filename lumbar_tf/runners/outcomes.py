"""Resources and outcomes of jobs."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

#: Number of attempts before a job is blamed for the death of its processes.
MAX_ATTEMPTS = 3


class JobError(RuntimeError):
    """A job failed for a reason other than its data."""


@dataclass(frozen=True)
class JobShare:
    """Resources of a cluster that a job reserves.

    Attributes:
        num_cpus: whole CPUs, at least one.
        num_gpus: GPUs; below 1 several jobs share one.
    """

    num_cpus: int = 1
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if self.num_cpus < 1 or self.num_gpus < 0 or (self.num_gpus > 1 and self.num_gpus % 1):
            raise ValueError(
                "A job's share must be at least one CPU and no GPU, a part of one, or whole ones. "
                f"Received: {self.num_cpus} CPUs, {self.num_gpus} GPUs."
            )


@dataclass(frozen=True)
class Done(Generic[Result]):
    """Result of a job."""

    value: Result


@dataclass(frozen=True)
class JobFailure:
    """Exception of a job, as text, because many exceptions cannot be pickled.

    Attributes:
        is_data_fault: whether it was a ValueError.
        type_name: name of the exception's class.
        message: its text.
        trace: its traceback.
    """

    is_data_fault: bool
    type_name: str
    message: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> "JobFailure":
        """Returns the description of an exception."""
        trace = "".join(traceback.format_exception(error))
        return cls(isinstance(error, ValueError), type(error).__name__, str(error), trace)

    def named(self, job_name: str) -> Exception:
        """Returns the exception for the caller, with the job's name in its message.

        >>> JobFailure.of(ValueError("two is bad")).named("job 2")
        ValueError('job 2: two is bad')
        >>> JobFailure.of(KeyError("three")).named("job 3")
        JobError("job 3: KeyError: 'three'")
        """
        error: Exception
        if self.is_data_fault:
            error = ValueError(f"{job_name}: {self.message}")
        else:
            error = JobError(f"{job_name}: {self.type_name}: {self.message}")
        error.add_note(self.trace)
        return error


def attempt(function: Callable[[Job], Result], job: Job) -> Done[Result] | JobFailure:
    """Runs a job and returns its outcome."""
    try:
        return Done(function(job))
    except Exception as error:
        return JobFailure.of(error)


def lost_jobs_error(reasons: dict[str, str]) -> JobError:
    """Returns the error for jobs that never finished.

    Args:
        reasons: reason for the end of the last process, by name of the job.
    """
    lost = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return JobError(f"The worker process died in each of {MAX_ATTEMPTS} attempts at: {lost}.")
