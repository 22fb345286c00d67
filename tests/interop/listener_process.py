"""Program for the tests: a watch with a listener, and a model that answers at once.

python -m tests.interop.listener_process FOLDER PORT AET@HOST:PORT
"""

import signal
import sys
from pathlib import Path

from lumbar_tf.interop.dimse import Node, StoreScu, parse_node
from lumbar_tf.interop.incoming_studies import IncomingStudies
from lumbar_tf.interop.interfaces import StopSignal
from lumbar_tf.interop.output_formats import STORED_FORMATS
from lumbar_tf.interop.storage_scp import listen
from lumbar_tf.interop.study_grading import StudyGrader
from lumbar_tf.interop.watch_journal import WatchJournal
from lumbar_tf.interop.watcher import PollingPolicy, Watch
from tests.prediction.test_pipeline import FakeEnsemble


def main(folder: str, port: str, node: str) -> None:
    """Watches until SIGTERM."""
    out, stop = Path(folder), StopSignal()
    journal = WatchJournal(out / ".watch")
    signal.signal(signal.SIGTERM, stop.handle)
    sink = StoreScu(parse_node(node, has_title=True), ae_title="LUMBAR_TF", timeout_s=5.0)
    studies = IncomingStudies(out / ".watch", min_free_bytes=0)
    with journal.locked(), listen(Node("127.0.0.1", int(port)), studies, ae_title="LUMBAR_TF"):
        grader = StudyGrader(FakeEnsemble(), out, formats=STORED_FORMATS)
        watch = Watch(studies, grader, journal, PollingPolicy(0.1, 0.4, 50), sink=sink, stop=stop)
        watch.reopen(with_failed=False)
        watch.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
