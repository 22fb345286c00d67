"""Choice of whether decoded studies stay in memory between epochs."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import tensorflow as tf

from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.records.positions import RecordPosition

#: Share of the available memory that decoded studies may take.
_MEMORY_SHARE = 0.5
#: Decoded slices of a study take less than this many times its record: 1 for raw slices; PNG halves them.
_LARGEST_RATIO = 4
#: Studies that are decoded to estimate the size of all, and the factor for the difference.
_SAMPLED_STUDIES, _MARGIN = 8, 1.25

_MEMINFO = Path("/proc/meminfo")
#: Limit and use of the memory of a container, by versions 2 and 1 of Linux' control groups.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def is_cache_chosen(
    cache: bool | str, positions: Sequence[RecordPosition], read: Callable[[tf.Tensor], Record]
) -> bool:
    """Returns whether decoded studies are to be kept in memory.

    Args:
        cache: True, False or `auto`, which keeps them if they fit into half of the available memory, or into
            this process's share of it if it is limited to a share of the CPU threads.
        positions: the records.
        read: reads and decodes the record of a place in `positions`.
    """
    if cache != "auto" or not positions:
        return cache is True
    budget = available_memory_bytes() * _thread_share() * _MEMORY_SHARE
    if sum(position.size_bytes for position in positions) * _LARGEST_RATIO < budget:
        return True
    count = min(len(positions), _SAMPLED_STUDIES)
    places = np.linspace(0, len(positions) - 1, count).astype(np.int64)
    records = list(tf.data.Dataset.from_tensor_slices(places).map(read))
    sample_bytes = sum(
        tensor.numpy().nbytes for tensor in tf.nest.flatten(records) if tensor.dtype != tf.string
    )
    return sample_bytes / count * len(positions) * _MARGIN < budget


def available_memory_bytes() -> int:
    """Returns the memory that this process can still take without swapping; 0 if the system does not say.

    On Linux the smaller one of what the machine and what the container has left.
    """
    with suppress(OSError, ValueError, IndexError):
        (line,) = (line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        available = int(line.split()[1]) << 10
        for limit, used in _CGROUPS:
            with suppress(OSError, ValueError):  # no such group, or the limit "max"
                available = min(available, max(int(limit.read_text()) - int(used.read_text()), 0))
        return available
    return 0


def _thread_share() -> float:
    """Returns this process's share of the CPU threads, as `TrainingJob.threads` limits it."""
    threads, cores = tf.config.threading.get_intra_op_parallelism_threads(), os.cpu_count() or 1
    return min(threads / cores, 1.0) if threads else 1.0
