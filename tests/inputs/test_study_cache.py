from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from lumbar_tf.inputs import study_cache
from lumbar_tf.inputs.study_cache import available_memory_bytes, is_cache_chosen
from lumbar_tf.records.positions import RecordPosition

MB = 1 << 20
#: Two hundred records of 2 MB.
POSITIONS = [RecordPosition(Path("a"), 0, 2 * MB, "a", True)] * 200


def _read(decoded_bytes: int) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    return lambda place: {
        "pixels": tf.zeros([decoded_bytes], tf.uint8),
        "study_id": tf.strings.as_string(place),
    }


@pytest.mark.parametrize(
    ("available_mb", "decoded_mb", "is_kept"),
    [
        (4000, 100, True),  # 1,600 MB at the most, in any case
        (2000, 2, True),  # 500 MB of 1,000
        (2000, 5, False),  # 1,250 MB of 1,000
        (0, 0, False),
    ],
)
def test_studies_are_kept_if_they_fit_into_half_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, available_mb: int, decoded_mb: int, is_kept: bool
) -> None:
    monkeypatch.setattr(study_cache, "available_memory_bytes", lambda: available_mb * MB)
    # Other tests may have limited the threads.
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    assert is_cache_chosen("auto", POSITIONS, _read(decoded_mb * MB)) is is_kept


def test_a_process_with_a_tenth_of_the_threads_has_a_tenth_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study_cache, "available_memory_bytes", lambda: 10_000 * MB)
    monkeypatch.setattr(study_cache.os, "cpu_count", lambda: 20)
    for threads, is_kept in ((2, False), (4, True), (0, True)):
        monkeypatch.setattr(
            tf.config.threading, "get_intra_op_parallelism_threads", lambda threads=threads: threads
        )
        # 750 MB of 500, of 1,000 and of 5,000.
        assert is_cache_chosen("auto", POSITIONS, _read(3 * MB)) is is_kept


def test_a_setting_is_followed_without_reading() -> None:
    def fail(place: tf.Tensor) -> dict[str, tf.Tensor]:
        raise AssertionError

    assert is_cache_chosen(True, POSITIONS, fail)
    assert not is_cache_chosen(False, POSITIONS, fail)
    assert not is_cache_chosen("auto", [], fail)


def test_available_memory_is_at_most_the_machines() -> None:
    (line,) = (
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    )
    assert 50 * MB < available_memory_bytes() <= int(line.split()[1]) * 1024
