"""A Ray cluster on this machine whose nodes can be killed, as a power cut would."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Ray takes 15 s to miss a machine; here 1.5 s have to do.
_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


@contextlib.contextmanager
def start_cluster(*, num_nodes: int) -> Iterator[Any]:
    """A head without CPUs and machines with one each, until the block ends.

    What jobs import must be on `PYTHONPATH` before: every process inherits it from here.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": _HEALTH_CHECKS},
    )
    try:
        for _ in range(num_nodes):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def killed_once(node: Any, is_time: Callable[[], bool]) -> Iterator[None]:
    """Kills a node as soon as it is time, and insists on having done so before the block ends."""
    killed, is_over = threading.Event(), threading.Event()

    def watch() -> None:
        while not (is_over.is_set() or killed.is_set()):
            if is_time():
                _kill(node)
                killed.set()
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
        assert killed.is_set(), "the node must have died before the jobs were done"
    finally:
        is_over.set()
        watcher.join()


def has_open_file(node: Any, folder: Path) -> bool:
    """Whether one of a node's processes has a file open below a folder: it works there."""
    for process in _children(_daemon(node)):
        with contextlib.suppress(OSError):  # it ended while we looked
            for each in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):  # it was closed while we looked
                    if str(each.readlink()).startswith(f"{folder}/"):
                        return True
    return False


def _daemon(node: Any) -> int:
    """The node's Ray daemon."""
    return node.all_processes["raylet"][0].process.pid


def _kill(node: Any) -> None:
    """Kills the daemon and the processes that it started."""
    daemon = _daemon(node)
    for process in (daemon, *_children(daemon)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found
