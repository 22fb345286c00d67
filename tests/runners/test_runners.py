import importlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from lumbar_tf.runners import JobError, Runner, run_jobs
from tests.runners.runner_jobs import named, wait_until

TESTS = Path(__file__).parent


@pytest.fixture
def jobs_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Jobs that spawned processes and Ray's can import, which they cannot this file."""
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return importlib.import_module("runner_jobs")


def attempts(folder: Path, number: int) -> int:
    return len((folder / str(number)).read_text().splitlines())


def is_running(process_id: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_job_yields_once(jobs_module: ModuleType, workers: int) -> None:
    assert sorted(run_jobs(jobs_module.square, range(5), workers=workers)) == [0, 1, 4, 9, 16]


def test_one_worker_is_this_process_and_more_are_not(jobs_module: ModuleType) -> None:
    assert list(run_jobs(jobs_module.process_id, [0])) == [os.getpid()]
    assert os.getpid() not in list(run_jobs(jobs_module.process_id, [0], workers=2))
    assert list(run_jobs(jobs_module.square, [], workers=2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_carry_the_job_s_name(jobs_module: ModuleType, workers: int) -> None:
    with pytest.raises(ValueError, match="two") as caught:
        list(run_jobs(jobs_module.fail, [1, 2], name=named, workers=workers))
    assert str(caught.value) == "job-2: two is bad"
    with pytest.raises(JobError) as lost:
        list(run_jobs(jobs_module.fail, [3], name=named, workers=workers))
    assert str(lost.value) == "job-3: KeyError: 'three'"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("fail_unpicklably", "job-1: UnpicklableError: one and other"),
        ("return_unpicklable", r"job-1: .*pickle"),
    ],
)
def test_what_cannot_be_pickled_is_an_error_with_a_name(
    jobs_module: ModuleType, function: str, expected: str
) -> None:
    with pytest.raises(JobError, match=expected):
        list(run_jobs(getattr(jobs_module, function), [1], name=named, workers=2))


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(JobError, match=r"job-<lambda>.*pickle"):
        list(run_jobs(str, [lambda: None], name=lambda job: f"job-{job.__name__}", workers=2))


def test_jobs_whose_process_was_killed_once_are_run_again(jobs_module: ModuleType, tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(8)]
    assert sorted(run_jobs(jobs_module.die_once, jobs, workers=2)) == list(range(8))
    assert [attempts(tmp_path, number) for number in (1, 3, 5, 7)] == [2, 2, 2, 2]


def test_a_job_that_always_kills_its_process_costs_no_other(jobs_module: ModuleType, tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(6)]
    results: list[int] = []
    with pytest.raises(JobError, match=r"3 attempts at: job-0 \(SIGKILL, out of memory\?\)") as caught:
        for result in run_jobs(jobs_module.die_always, jobs, workers=2, name=named):
            results.append(result)
    assert sorted(results) == [1, 2, 3, 4, 5]
    assert "job-1" not in str(caught.value)
    assert [attempts(tmp_path, number) for number in range(6)] == [3, 1, 1, 1, 1, 1]


def test_a_process_that_ends_by_itself_is_told() -> None:
    with pytest.raises(JobError, match=r"job-3 \(exit status 3\)"):
        list(run_jobs(os._exit, [3, 3], workers=2, name=named))


def test_a_script_that_its_own_processes_run_again_is_told_what_it_lacks(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text("from lumbar_tf.runners import run_jobs\nlist(run_jobs(str, range(40), workers=2))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: Worker processes must") and '`if __name__ == "__main__":`' in last
    # Two processes were tried, not three for each of 40 jobs.
    assert done.stderr.count("An attempt has been made to start a new process") <= 2


def test_no_more_jobs_are_begun_than_there_are_processes(jobs_module: ModuleType, tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(1, 40)]
    results = run_jobs(jobs_module.die_always, jobs, workers=2)
    next(results)
    # Two may have ended together, and each is followed by one more.
    assert len(list(tmp_path.iterdir())) <= 4
    results.close()  # type: ignore[attr-defined]
    assert len(list(tmp_path.iterdir())) <= 4


def test_closing_stops_what_runs_and_leaves_its_blocks(jobs_module: ModuleType, tmp_path: Path) -> None:
    markers = [tmp_path / "0", tmp_path / "1"]

    results = run_jobs(jobs_module.start_or_hold, [str(tmp_path), *map(str, markers)], workers=3)
    next(results)
    wait_until(lambda: all(each.exists() and each.read_text() for each in markers))
    ids = [int(each.read_text()) for each in markers]
    results.close()  # type: ignore[attr-defined]
    assert not any(each.exists() for each in markers)
    assert not any(map(is_running, ids))


HOLDER = """
    import signal
    import sys
    sys.path.insert(0, {tests!r})
    from lumbar_tf.runners import run_jobs
    import runner_jobs

    if __name__ == "__main__":
        # A shell's background jobs, such as tests that run in one, ignore it from the start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            list(run_jobs(runner_jobs.hold_a_file, sys.argv[1:], workers=2))
        except KeyboardInterrupt:
            sys.exit(130)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "hold.py"
    script.write_text(textwrap.dedent(HOLDER).format(tests=str(TESTS)))
    markers = [tmp_path / "0", tmp_path / "1"]
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, markers)],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(lambda: all(each.exists() and each.read_text() for each in markers))
    ids = [int(each.read_text()) for each in markers]
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130
        assert errors == b""
        assert not any(each.exists() for each in markers)
    else:
        process.kill()
        process.communicate(timeout=120)
    wait_until(lambda: not any(map(is_running, ids)))


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="workers"):
        list(run_jobs(str, [1], workers=0))
    with pytest.raises(ValueError, match="ray runner"):
        list(run_jobs(str, [1], ray_address="auto"))


def test_without_ray_its_runner_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'lumbar_tf\[ray\]'"):
        list(run_jobs(str, [1], runner=Runner.RAY))
