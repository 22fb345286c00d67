"""`python -m lumbar_tf.watch`: grades each study that arrives in a PACS or is sent here."""

import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

import lumbar_tf
from lumbar_tf.cli.command import CommaList, OnlyWith, run_command, write_options
from lumbar_tf.cli.console import ExitStatus, Summary
from lumbar_tf.interop.grading_options import GradingOptions, check_pacs_extra, protect_patient_data
from lumbar_tf.interop.interfaces import StopSignal
from lumbar_tf.interop.study_filter import QueryWindow, parse_study_filter

if TYPE_CHECKING:
    from lumbar_tf.interop.interfaces import ResultSink, StudySource

#: Not `__name__`, which is `__main__` here.
_LOG = logging.getLogger("lumbar_tf.watch")
_STATE_FOLDER = ".watch"
_DAY_S = 86_400.0
_DICOMWEB, _LISTEN = OnlyWith("dicomweb"), OnlyWith("listen")


class WatchOptions(GradingOptions):
    """Grades each lumbar MR study that arrives, and stores the results, until it is stopped.

    Studies come from a DICOMweb archive (--dicomweb) or are received by C-STORE (--listen). Both need the
    extra `pacs`. A study is graded again when images arrive late; the new report replaces the old one.

    SIGTERM and SIGINT end the watch after the current step with status 0; the next start resumes the work,
    also after a kill. With --once, status 1 means that a study failed or waits, or that the archive was not
    available. Research use, not a medical device.
    """

    listen: str | None = Field(
        None,
        description="Receive studies by C-STORE on HOST:PORT, or on a port of 127.0.0.1.",
    )
    out: Path = Field(
        Path("watched"), description="Folder for the results, one folder per study, and the journal."
    )
    every_s: PositiveFloat = Field(
        30.0,
        description="Time between two polls, seconds; also the wait before the second attempt, which doubles "
        "up to half an hour.",
    )
    settle_s: NonNegativeFloat = Field(
        120.0, description="A study is complete when no image has arrived for this time, seconds."
    )
    attempts: PositiveInt = Field(
        5,
        description="Number of failed attempts, of grading a study or storing its results, before it "
        "counts as failed. Attempts that fail because an archive or server is unavailable do not count.",
    )
    once: bool = Field(False, description="End when each study is finished or must wait for another attempt.")
    retry: bool = Field(False, description="Try the failed studies again.")
    days: Annotated[NonNegativeInt, _DICOMWEB] = Field(
        7, description="Only studies of the last so many days, by StudyDate; 0 for all."
    )
    match: Annotated[str | None, _DICOMWEB] = Field(
        None,
        description="Regular expression to find in StudyDescription, BodyPartExamined or SeriesDescription, "
        "instead of the built-in vocabulary of the lumbar spine. `.*` matches every MR study.",
    )
    ae_title: Annotated[str, _LISTEN] = Field("LUMBAR_TF", description="AE title of this program.")
    send_to: Annotated[str | None, _LISTEN] = Field(
        None,
        description="AET@HOST:PORT of the node that receives the DICOM files of --formats by C-STORE; "
        "without --formats, sr and sc, which it then adds.",
    )
    keep_days: Annotated[PositiveFloat, _LISTEN] = Field(
        7.0,
        description="Days for which the images of a graded study are kept, to grade them together with "
        "images that arrive late.",
    )
    calling: Annotated[CommaList, _LISTEN] = Field(
        (), description="Comma-separated AE titles of the nodes that may send; all by default."
    )

    after_interrupt: ClassVar[str] = "The next start resumes the work."

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.dicomweb is None) == (self.listen is None):
            raise ValueError("one of --dicomweb and --listen must be given")
        parse_study_filter(self.match)
        return self

    @property
    def has_sink(self) -> bool:
        """Whether the results are stored in an archive or sent to a node."""
        return self.store or self.send_to is not None


def watch(options: WatchOptions) -> Summary:
    """Watches the source of the studies until the watch is stopped."""
    check_pacs_extra()
    # Imported here because TensorFlow takes seconds to import, which --help must not wait for.
    from lumbar_tf.interop.study_grading import StudyGrader
    from lumbar_tf.interop.watch_journal import WatchJournal
    from lumbar_tf.interop.watcher import PollingPolicy, Watch
    from lumbar_tf.monitoring.log import AnswerLog

    formats = options.chosen_formats()
    _configure_logging()
    stop = StopSignal()
    journal = WatchJournal(options.out / _STATE_FOLDER)
    with ExitStack() as stack:
        stack.enter_context(protect_patient_data())
        stack.enter_context(journal.locked())
        write_options(options, options.out)
        ensemble = stack.enter_context(
            lumbar_tf.load_ensemble(with_saliency=options.shows_saliency, **options.model_arguments())
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.handle)
        source, sink = stack.enter_context(_open_source(options, stop))
        grader = StudyGrader(
            ensemble.model,
            options.out,
            formats=formats,
            log=AnswerLog(options.log) if options.log else None,
            language=options.language,
        )
        policy = PollingPolicy(
            options.every_s, options.settle_s, options.attempts, keep_s=options.keep_days * _DAY_S
        )
        work = Watch(source, grader, journal, policy, sink=sink, stop=stop)
        _LOG.info("watching with %s -> %s", ensemble.source, options.out)
        _LOG.info("%s", ensemble.training_note)
        work.reopen(with_failed=options.retry)
        is_done = work.run(is_once=options.once)
    _LOG.info("stopped" if stop.is_set else "ended")
    return Summary(
        "Watch ended (research use, not a medical device)",
        {
            **{state.value.replace("_", " "): count for state, count in journal.count().items()},
            "training data": ensemble.training_note,
        },
        {"answers": options.out},
        status=ExitStatus.DONE if is_done or stop.is_set else ExitStatus.DATA,
    )


def _configure_logging() -> None:
    """Prints the log of this package only: messages of other packages may quote headers."""
    logging.basicConfig(
        level=logging.CRITICAL, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    logging.getLogger("lumbar_tf").setLevel(logging.INFO)
    # The traceback of a thread of pynetdicom could quote what a sender has sent.
    threading.excepthook = lambda failure: _LOG.warning("a thread ended: %s", failure.exc_type.__name__)


@contextmanager
def _open_source(
    options: WatchOptions, stop: StopSignal
) -> Iterator[tuple["StudySource", "ResultSink | None"]]:
    """Yields the source of the studies and the sink of the results."""
    state = options.out / _STATE_FOLDER
    if options.dicomweb is not None:
        from lumbar_tf.interop.dicomweb import open_archive

        # Images that a killed watch left.
        shutil.rmtree(state / "fetched", ignore_errors=True)
        window = QueryWindow(parse_study_filter(options.match), options.days or None)
        with open_archive(
            options.dicomweb_connection(), window=window, scratch=state / "fetched", should_stop=stop
        ) as archive:
            yield archive, archive if options.store else None
        return
    from lumbar_tf.interop.dimse import StoreScu, check_ae_title, parse_node
    from lumbar_tf.interop.incoming_studies import IncomingStudies
    from lumbar_tf.interop.storage_scp import listen

    address = options.listen or ""
    node = parse_node(address if ":" in address else f"127.0.0.1:{address}", has_title=False)
    title = check_ae_title(options.ae_title)
    calling = [check_ae_title(name) for name in options.calling]
    sink = None
    if options.send_to is not None:
        sink = StoreScu(parse_node(options.send_to, has_title=True), ae_title=title)
    studies = IncomingStudies(state)
    with listen(node, studies, ae_title=title, calling=calling) as port:
        _LOG.info("%s listens on %s port %d", title, node.host, port)
        yield studies, sink


if __name__ == "__main__":
    run_command(WatchOptions, watch)
