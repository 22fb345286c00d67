"""The Ray runner, on clusters of this machine."""

import contextlib
import importlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lumbar_tf.runners import JobError, Runner, run_jobs

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def jobs_module() -> Iterator[ModuleType]:
    """Jobs that Ray's processes can import too: they inherit PYTHONPATH from the cluster's start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tests"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "tests"), str(REPOSITORY)]))
        yield importlib.import_module("runner_jobs")


def named(job: Any) -> str:
    return f"job-{job[1] if isinstance(job, tuple) else job}"


def test_a_local_cluster_runs_every_job_and_is_gone_afterwards(jobs_module: ModuleType) -> None:
    results = run_jobs(jobs_module.square, range(6), workers=2, runner=Runner.RAY)
    assert sorted(results) == [0, 1, 4, 9, 16, 25]
    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


class TestTwoNodes:
    """A head without CPUs and two machines with one each."""

    @pytest.fixture(scope="class")
    def cluster(self, jobs_module: ModuleType) -> Iterator[Any]:
        from ray.cluster_utils import Cluster

        # Ray takes 15 s to miss a machine; here 1.5 s have to do.
        checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": {**checks, "health_check_failure_threshold": 3},
            },
        )
        try:
            cluster.add_node(num_cpus=1)
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()

    def test_errors_read_as_they_do_from_local_processes(self, jobs_module: ModuleType, cluster: Any) -> None:
        options = {"name": named, "runner": Runner.RAY, "ray_address": cluster.address}
        with pytest.raises(ValueError, match="two") as caught:
            list(run_jobs(jobs_module.fail, [1, 2], **options))
        assert str(caught.value) == "job-2: two is bad"
        with pytest.raises(JobError) as lost:
            list(run_jobs(jobs_module.fail, [3], **options))
        assert str(lost.value) == "job-3: KeyError: 'three'"
        with pytest.raises(JobError, match="job-1: UnpicklableError: one and other"):
            list(run_jobs(jobs_module.fail_unpicklably, [1], **options))
        with pytest.raises(JobError, match=r"job-1: .*(pickle|serialize)"):
            list(run_jobs(jobs_module.return_unpicklable, [1], **options))

    def test_a_job_that_always_kills_its_process_costs_no_other(
        self, jobs_module: ModuleType, cluster: Any, tmp_path: Path
    ) -> None:
        jobs = [(str(tmp_path), number) for number in range(4)]
        results: list[int] = []
        with pytest.raises(JobError, match=r"3 attempts at: job-0 \(WorkerCrashedError\)"):
            for result in run_jobs(
                jobs_module.die_always, jobs, name=named, runner=Runner.RAY, ray_address=cluster.address
            ):
                results.append(result)
        assert sorted(results) == [1, 2, 3]
        assert len((tmp_path / "0").read_text().splitlines()) == 3

    def test_closing_stops_what_runs_and_leaves_its_blocks(
        self, jobs_module: ModuleType, cluster: Any, tmp_path: Path
    ) -> None:
        marker = tmp_path / "held"
        results = run_jobs(
            jobs_module.start_or_hold,
            [str(tmp_path), str(marker)],
            runner=Runner.RAY,
            ray_address=cluster.address,
        )
        next(results)
        wait_until(marker.exists)
        results.close()  # type: ignore[attr-defined]
        wait_until(lambda: not marker.exists())

    def test_a_node_that_dies_loses_nothing(
        self, jobs_module: ModuleType, cluster: Any, tmp_path: Path
    ) -> None:
        doomed = cluster.list_all_nodes()[-1]
        results: list[int] = []
        for result in run_jobs(
            jobs_module.say_where,
            [(str(tmp_path), number) for number in range(12)],
            runner=Runner.RAY,
            ray_address=cluster.address,
        ):
            results.append(result)
            if len(results) == 3:
                time.sleep(0.1)
                kill_machine(doomed, tmp_path)
        assert sorted(results) == list(range(12))
        runs = [each.name.split(".") for each in tmp_path.iterdir()]
        assert len({node for _, node, _ in runs}) == 2, "both nodes had work"
        assert len(runs) > 12, "the node died in the middle of a job"


def kill_machine(node: Any, folder: Path) -> None:
    """Kills a node's Ray daemon and the processes that left files in the folder, as a power cut would."""
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    for path in folder.glob(f"*.{node.node_id}.*"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.name.split(".")[2]), signal.SIGKILL)


def test_no_cluster_at_the_address_is_a_fault_of_the_call() -> None:
    with pytest.raises(ValueError, match="running Ray cluster"):
        list(run_jobs(str, [1], runner=Runner.RAY, ray_address="127.0.0.1:1"))


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
