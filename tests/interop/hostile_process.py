"""Program for the tests: a watch of an archive with little memory, whose model writes two small files.

python -m tests.interop.hostile_process URL FOLDER
"""

import logging
import os
import resource
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"

from lumbar_tf.interop.dicomweb import open_archive
from lumbar_tf.interop.dicomweb_connection import AnswerLimits, DicomwebConnection
from lumbar_tf.interop.study_filter import QueryWindow, parse_study_filter
from lumbar_tf.interop.watch_journal import ResultFile, WatchJournal, WatchState
from lumbar_tf.interop.watcher import PollingPolicy, Watch
from tests.interop.hostile_archive import LISTS, STUDIES, image

_DEADLINE_S = 90.0
_MAX_BYTES = 1 << 30


class Grader:
    """Grader that writes two files per study."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def folder(self, study_uid: str) -> Path:
        return self._out / study_uid

    def grade(self, study_uid: str, images: Path, replaced: object) -> tuple[ResultFile, ...]:
        self.folder(study_uid).mkdir(parents=True, exist_ok=True)
        results = [ResultFile(f"{study_uid}.8.{kind}", f"{kind}.dcm") for kind in (1, 2)]
        for result in results:
            data = image(study_uid, f"{study_uid}.8", result.sop_instance_uid)
            (self.folder(study_uid) / result.file).write_bytes(data)
        return tuple(results)


def main(url: str, folder: str) -> None:
    """Watches until each study is finished or waits."""
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stdout, format="%(message)s")
    logging.getLogger("lumbar_tf").setLevel(logging.INFO)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    out = Path(folder)
    journal = WatchJournal(out / ".watch")
    connection = DicomwebConnection(url, timeout_s=0.5, attempts=1, limits=AnswerLimits(pages=20))
    window = QueryWindow(parse_study_filter(".*"))
    with journal.locked(), open_archive(connection, window=window) as archive:
        policy = PollingPolicy(every_s=1000.0, settle_s=0.0)
        watch = Watch(archive, Grader(out), journal, policy, sink=archive)  # type: ignore[arg-type]
        end = time.monotonic() + _DEADLINE_S
        for _ in LISTS:
            assert not watch.poll()
        while not _is_finished(journal):
            assert time.monotonic() < end
            watch.poll()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"peak {peak_mib} MiB", flush=True)


def _is_finished(journal: WatchJournal) -> bool:
    """Returns whether each study was stored or has failed once."""
    entries = list(journal.entries([*journal.open_uids(), *journal.closed_uids()]))
    return len(entries) == len(STUDIES) + 1 and all(
        entry.state is WatchState.STORED or entry.waits or entry.attempts for entry in entries
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
