import os
from pathlib import Path

import pytest

from lumbar_tf.runners import JobError, Runner, run_jobs


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


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_yields_once(workers: int) -> None:
    # os.path functions can be pickled by name; this module cannot be imported by a spawned process.
    jobs = [str(Path("a") / str(index)) for index in range(5)]
    assert sorted(run_jobs(os.path.basename, jobs, workers=workers)) == ["0", "1", "2", "3", "4"]


def test_one_worker_is_this_process() -> None:
    assert list(run_jobs(process_id, [0])) == [os.getpid()]
    assert list(run_jobs(square, [])) == []


def test_errors_carry_the_job_s_name() -> None:
    with pytest.raises(ValueError, match="job-2: two is bad"):
        list(run_jobs(fail, [1, 2], name=lambda job: f"job-{job}"))
    with pytest.raises(JobError, match="job-3: KeyError"):
        list(run_jobs(fail, [3], name=lambda job: f"job-{job}"))


def test_errors_from_a_process_carry_the_job_s_name() -> None:
    with pytest.raises(JobError, match="job-2: TypeError"):
        list(run_jobs(os.path.basename, ["a", 2], workers=2, name=lambda job: f"job-{job}"))  # type: ignore[list-item]


def test_a_dead_process_is_named() -> None:
    with pytest.raises(JobError, match="worker process died"):
        list(run_jobs(os._exit, [3, 3], workers=2))


def test_unavailable_runner_is_refused() -> None:
    with pytest.raises(ValueError, match="ray"):
        list(run_jobs(square, [1], runner=Runner.RAY))
    with pytest.raises(ValueError, match="workers"):
        list(run_jobs(square, [1], workers=0))
