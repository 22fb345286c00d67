"""The Ray runner, on clusters of this machine."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.runners import JobError, Runner, run_jobs
from lumbar_tf.synthetic.cohort import CohortOptions, write_cohort
from tests.runners.ray_cluster import has_open_file, killed_once, start_cluster
from tests.runners.runner_jobs import named, wait_until

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def jobs_module() -> Iterator[ModuleType]:
    """Jobs that Ray's processes can import too: they inherit PYTHONPATH from the cluster's start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tests" / "runners"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "tests" / "runners"), str(REPOSITORY)]))
        yield importlib.import_module("runner_jobs")


def test_a_local_cluster_runs_every_job_and_is_gone_afterwards(jobs_module: ModuleType) -> None:
    results = run_jobs(jobs_module.square, range(6), workers=2, runner=Runner.RAY)
    assert sorted(results) == [0, 1, 4, 9, 16, 25]
    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


_LISTENING = """
import psutil
from lumbar_tf.runners import Runner, run_jobs
from tests.runners.runner_jobs import square

results = run_jobs(square, range(2), workers=1, runner=Runner.RAY)
next(results)
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
ids = {process.pid for process in processes}
for connection in psutil.net_connections("tcp"):
    if connection.status == psutil.CONN_LISTEN and connection.pid in ids:
        print("LISTENS", connection.laddr.ip)
list(results)
"""


def test_a_local_cluster_listens_on_the_loopback_interface_only() -> None:
    """In a process of its own, because Ray decides when it is imported."""
    pytest.importorskip("psutil", reason="lists the open ports")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _LISTENING],
        check=True,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": path},
    )
    hosts = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("LISTENS ")}
    assert hosts and hosts <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


class TestTwoNodes:
    """A head without CPUs and two machines with one each."""

    @pytest.fixture(scope="class")
    def cluster(self, jobs_module: ModuleType) -> Iterator[Any]:
        with start_cluster(num_nodes=2) as cluster:
            yield cluster

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
        assert list(results) == [], "no result comes after the end"
        assert not marker.exists(), "the job does not start again"

    def test_a_node_that_dies_loses_nothing(
        self, jobs_module: ModuleType, cluster: Any, tmp_path: Path
    ) -> None:
        doomed = cluster.add_node(num_cpus=1)
        results: list[int] = []
        with killed_once(doomed, lambda: any(tmp_path.glob(f"*.{doomed.node_id}.*"))):
            for result in run_jobs(
                jobs_module.say_where,
                [(str(tmp_path), number) for number in range(24)],
                runner=Runner.RAY,
                ray_address=cluster.address,
            ):
                results.append(result)
        assert sorted(results) == list(range(24))
        runs = [each.name.split(".") for each in tmp_path.iterdir()]
        assert len({node for _, node, _ in runs}) > 1, "another node had work"
        assert len(runs) > 24, "the node died in the middle of a job"

    def test_a_build_that_loses_a_node_writes_the_same_bytes(self, cluster: Any, tmp_path: Path) -> None:
        write_cohort(tmp_path / "cohort", CohortOptions(num_studies=8, seed=3))
        options = BuildOptions(studies_per_shard=2, num_folds=2, fold_seed=0)

        def build(name: str, **where: Any) -> dict[str, bytes]:
            out = tmp_path / name
            run_build_task(BuildTask(sources=[tmp_path / "cohort"], out=out, options=options), **where)
            return {
                str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
            }

        doomed = cluster.add_node(num_cpus=1)
        with killed_once(doomed, lambda: has_open_file(doomed, tmp_path / "ray")):
            on_cluster = build("ray", runner=Runner.RAY, ray_address=cluster.address)
        assert on_cluster == build("local")


def test_no_cluster_at_the_address_is_a_fault_of_the_call() -> None:
    with pytest.raises(ValueError, match="running Ray cluster"):
        list(run_jobs(str, [1], runner=Runner.RAY, ray_address="127.0.0.1:1"))
