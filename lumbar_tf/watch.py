"""`python -m lumbar_tf.watch`: grades what arrives in a PACS, or is sent here, once each."""

import logging
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lumbar_tf.cli.command import CommaList, run_command, write_options
from lumbar_tf.cli.console import ExitStatus, Summary
from lumbar_tf.interop import dicomweb_options as pacs_options
from lumbar_tf.interop.stop_signal import StopSignal
from lumbar_tf.interop.study_filter import QueryWindow, parse_study_filter
from lumbar_tf.serving.address import TlsFiles, parse_address

if TYPE_CHECKING:
    from lumbar_tf.interop.interfaces import ResultSink, StudySource

#: Not `__name__`, which is `__main__` here.
_LOG = logging.getLogger("lumbar_tf.watch")
_DEFAULT_MODEL = Path("models/lumbar")
_STATE_FOLDER = ".watch"
_DICOMWEB_FLAGS = ("days", "match")
_LISTEN_FLAGS = ("ae_title", "send_to", "calling")
_SERVER_FLAGS = ("server_model", "deadline_s", "tls_ca", "tls_cert", "tls_key")


class WatchOptions(pacs_options.DicomwebOptions):
    """Grades each lumbar MR study that arrives once, and stores the results; until it is stopped.

    Flags:
        --dicomweb            Ask this DICOMweb archive for studies, such as https://pacs/dicom-web.
        --listen              Or take what is sent by C-STORE: HOST:PORT, or a port of 127.0.0.1.
        --out                 Where the answers go, a folder a study, and what became of each (watched).
        --model               An exported version, or the folder of versions: the newest is taken
                              (models/lumbar). It is loaded once.
        --server              Ask a TensorFlow Serving instead, as `predict` does.
        --every-s             Seconds between two looks (30), and before the second attempt; doubles then, up
                              to half an hour.
        --settle-s            A study is complete when no image has come for so many seconds (120).
        --attempts            Of grading a study, and of storing its results (5). Those that fail because
                              an archive or server is away do not count.
        --once                End when every study that is there has come to its end or must wait.
        --retry               Begin again with the studies that have failed.
        --nosheets            Draw no PNG sheets.
        --noreport            Write no HTML reports.
        --dicom               Write the DICOM results also where nobody takes them.
        --fhir                Write a FHIR R4 report a study.
        --log                 As in `predict`: a row a study for lumbar_tf.monitor.

    With --dicomweb:
        --store               Store the structured report and the sheet in the archive.
        --days                Only studies of so many days back, by StudyDate (7); 0 for all.
        --match               Grade studies whose StudyDescription, BodyPartExamined or SeriesDescription
                              this regular expression is found in, instead of those that name the lumbar
                              spine. `.*` takes every MR study.
        --dicomweb-user-file, --dicomweb-token-file, --dicomweb-ca, --dicomweb-cert, --dicomweb-key,
        --dicomweb-timeout-s, --dicomweb-attempts    As in `predict`.

    With --listen:
        --ae-title            What we are called (LUMBAR_TF).
        --send-to             AET@HOST:PORT that gets the structured report and the sheet by C-STORE.
        --calling             AE titles that may send, with commas; all by default.

    With --server:
        --server-model        The model's name in the server's configuration (lumbar).
        --deadline-s          Seconds for one attempt (60).
        --tls-ca, --tls-cert, --tls-key    As in `predict`.

    SIGTERM and SIGINT end it after the present step, with status 0; what is not done is taken up at the next
    start, also after a kill. With --once status 1 says that a study failed or waits, or that the archive did
    not answer. Research use, not a medical device.
    """

    listen: str | None = None
    out: Path = Path("watched")
    model: Path | None = None
    server: str | None = None
    every_s: PositiveFloat = 30.0
    settle_s: NonNegativeFloat = 120.0
    attempts: PositiveInt = 5
    once: bool = False
    retry: bool = False
    sheets: bool = True
    report: bool = True
    dicom: bool = False
    fhir: bool = False
    log: Path | None = None
    days: NonNegativeInt = 7
    match: str | None = None
    ae_title: str = "LUMBAR_TF"
    send_to: str | None = None
    calling: CommaList = ()
    server_model: str = Field("lumbar", min_length=1)
    deadline_s: PositiveFloat = 60.0
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    after_interrupt: ClassVar[str] = "What is not done is taken up when it is started again."

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.dicomweb is None) == (self.listen is None):
            raise ValueError("one of --dicomweb and --listen must be given")
        self.check_dicomweb()
        self._refuse_strays("--dicomweb", self.dicomweb, _DICOMWEB_FLAGS)
        self._refuse_strays("--listen", self.listen, _LISTEN_FLAGS)
        self._refuse_strays("--server", self.server, _SERVER_FLAGS)
        if self.model is not None and self.server is not None:
            raise ValueError("--model and --server must not be given together")
        if self.server is not None:
            parse_address(self.server, is_secure=bool(self.tls))
        parse_study_filter(self.match)
        return self

    def _refuse_strays(self, flag: str, value: object, names: tuple[str, ...]) -> None:
        strays = [f"--{name.replace('_', '-')}" for name in names if name in self.model_fields_set]
        if value is None and strays:
            raise ValueError(f"{', '.join(strays)} must come with {flag}")

    @property
    def tls(self) -> TlsFiles:
        """The files of the encrypted connection to the model server."""
        return TlsFiles(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def has_sink(self) -> bool:
        """Whether somebody takes the results."""
        return self.store or self.send_to is not None


def watch(options: WatchOptions) -> Summary:
    """Watches, until it is stopped."""
    pacs_options.check_extra()
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.interop.polling_policy import PollingPolicy
    from lumbar_tf.interop.result_formats import OUTPUT_FORMATS, find_formats
    from lumbar_tf.interop.study_grading import StudyGrader
    from lumbar_tf.interop.watch_journal import WatchJournal
    from lumbar_tf.interop.watcher import Watch
    from lumbar_tf.monitoring.log import AnswerLog

    _begin_log()
    stop = StopSignal()
    worklist = WatchJournal(options.out / _STATE_FOLDER)
    with ExitStack() as stack:
        stack.enter_context(worklist.locked())
        write_options(options, options.out)
        ensemble, name = stack.enter_context(_open_ensemble(options))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.handle)
        source, sink = stack.enter_context(_open_ends(options, stop))
        formats = {name for name in OUTPUT_FORMATS if getattr(options, name)}
        if options.has_sink:
            formats.add("dicom")
        find_formats(formats)
        grader = StudyGrader(
            ensemble,
            options.out,
            formats=tuple(formats),
            log=AnswerLog(options.log) if options.log else None,
        )
        pace = PollingPolicy(options.every_s, options.settle_s, options.attempts)
        work = Watch(source, grader, worklist, pace, sink=sink, stop=stop)
        _LOG.info("watching with %s -> %s", name, options.out)
        work.reopen(with_failed=options.retry)
        is_done = work.run(is_once=options.once)
    _LOG.info("stopped" if stop.is_asked else "ended")
    return Summary(
        "Watch ended (research use, not a medical device)",
        {state.value.replace("_", " "): count for state, count in worklist.count().items()},
        {"answers": options.out},
        status=ExitStatus.DONE if is_done or stop.is_asked else ExitStatus.DATA,
    )


def _begin_log() -> None:
    """Prints what this package logs. Others' loggers can quote headers, so they are silent."""
    logging.basicConfig(
        level=logging.CRITICAL, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    logging.getLogger("lumbar_tf").setLevel(logging.INFO)


@contextmanager
def _open_ends(
    options: WatchOptions, stop: StopSignal
) -> Iterator[tuple["StudySource", "ResultSink | None"]]:
    """Yields where studies come from and where results go."""
    state = options.out / _STATE_FOLDER
    if options.dicomweb is not None:
        from lumbar_tf.interop.dicomweb import open_archive

        # What a kill left of a fetched study.
        shutil.rmtree(state / "fetched", ignore_errors=True)
        window = QueryWindow(parse_study_filter(options.match), options.days or None)
        with open_archive(
            options.connection(), window=window, scratch=state / "fetched", stop=stop
        ) as archive:
            yield archive, archive if options.store else None
        return
    from lumbar_tf.interop.incoming_studies import IncomingStudies
    from lumbar_tf.interop.storage_scp import listen
    from lumbar_tf.interop.storage_scu import StoreScu, check_ae_title, parse_node

    place = options.listen or ""
    node = parse_node(place if ":" in place else f"127.0.0.1:{place}", has_title=False)
    title = check_ae_title(options.ae_title)
    calling = [check_ae_title(each) for each in options.calling]
    sink = None
    if options.send_to is not None:
        sink = StoreScu(parse_node(options.send_to, has_title=True), ae_title=title)
    studies = IncomingStudies(state)
    with listen(node, studies, ae_title=title, calling=calling) as port:
        _LOG.info("%s listens on %s port %d", title, node.host, port)
        yield studies, sink


@contextmanager
def _open_ensemble(options: WatchOptions) -> Iterator[tuple[Any, Any]]:
    """Loads the model or connects to the server; yields it and what it is called."""
    from lumbar_tf.bundle.loading import ServerTarget, connect_ensemble

    if options.server is None:
        with connect_ensemble(options.model or _DEFAULT_MODEL, explained=options.report) as opened:
            yield opened
        return
    from lumbar_tf.serving.retry import RetryPolicy
    from lumbar_tf.serving.transport import ConnectionOptions, ModelChoice

    connection = ConnectionOptions(
        address=parse_address(options.server, is_secure=bool(options.tls)),
        deadline_s=options.deadline_s,
        tls=options.tls,
    )
    choice = ModelChoice(options.server_model)
    with connect_ensemble(ServerTarget(connection, choice, RetryPolicy())) as opened:
        yield opened


if __name__ == "__main__":
    run_command(WatchOptions, watch)
