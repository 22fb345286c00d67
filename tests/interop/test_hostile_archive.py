"""Watch of a hostile archive: a named failure each, the watch alive, the next study graded."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumbar_tf.interop.dicomweb import open_archive
from lumbar_tf.interop.dicomweb_connection import DicomwebConnection
from lumbar_tf.interop.interfaces import StoppedError
from lumbar_tf.interop.watch_journal import WatchJournal, WatchState
from tests.interop.hostile_archive import (
    LISTS,
    SOUND_STUDY,
    STUDIES,
    HostileArchive,
    drip,
    head,
    serve_hostile_archive,
    study_uid,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostileArchive, Path, str]]:
    """A watch of the archive that had 1 GiB of address space, its folder and what it logged."""
    out = tmp_path_factory.mktemp("hostile")
    with serve_hostile_archive() as archive:
        words = [sys.executable, "-m", "tests.interop.hostile_process", archive.url, str(out)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield archive, out, done.stdout + done.stderr


def test_every_hostile_list_is_a_named_failure(watched: tuple[HostileArchive, Path, str]) -> None:
    assert len(LISTS) + len(STUDIES) >= 35
    faults = re.findall(r"no studies listed: .*\((\w+)\); next", watched[2])
    assert dict(zip(LISTS, faults, strict=True)) == {name: fault for name, (_, fault) in LISTS.items()}


@pytest.mark.parametrize("number", range(len(STUDIES)), ids=list(STUDIES))
def test_a_hostile_study_fails_by_name(watched: tuple[HostileArchive, Path, str], number: int) -> None:
    _, _, fault = list(STUDIES.values())[number]
    entry = WatchJournal(watched[1] / ".watch").read(study_uid(number))
    assert entry is not None
    if fault:
        assert entry.state is not WatchState.STORED and entry.reason.endswith(f"({fault})")
        assert entry.attempts or entry.waits
    else:
        assert entry.state is WatchState.STORED


def test_the_sound_study_is_graded_and_nothing_of_the_archive_is_logged(
    watched: tuple[HostileArchive, Path, str],
) -> None:
    archive, out, log = watched
    entry = WatchJournal(out / ".watch").read(SOUND_STUDY)
    assert entry is not None and entry.state is WatchState.STORED
    assert archive.stored.count(SOUND_STUDY) == 2
    assert "Doe" not in log and "Traceback" not in log
    assert all("Doe" not in path.read_text() for path in (out / ".watch").rglob("*.json"))
    # The archive demanded to wait for 20 minutes before the next attempt.
    busy = WatchJournal(out / ".watch").read(study_uid(list(STUDIES).index("store asks to wait")))
    assert busy is not None and busy.next_attempt > time.time() + 600


def test_a_request_ends_when_the_program_is_stopped() -> None:
    with serve_hostile_archive() as archive:
        archive.lists = [drip(head() + b"[")]
        began = time.monotonic()
        connection = DicomwebConnection(archive.url, timeout_s=20.0)
        with (
            open_archive(connection, should_stop=lambda: time.monotonic() - began > 0.5) as client,
            pytest.raises(StoppedError),
        ):
            list(client.find())
        assert time.monotonic() - began < 5
