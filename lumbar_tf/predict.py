"""`python -m lumbar_tf.predict`: DICOM studies to findings."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lumbar_tf.cli import CommandOptions, run_command, write_options
from lumbar_tf.progress import progress_bar
from lumbar_tf.serving.address import TlsFiles, parse_address

if TYPE_CHECKING:
    from lumbar_tf.reporting.prediction import Ensemble

_UNANSWERED = 1
_DEFAULT_MODEL = Path("models/lumbar")
#: Say how a server is asked, so they mean nothing without one.
_SERVER_FLAGS = (
    "server_model",
    "server_version",
    "server_label",
    "deadline_s",
    "attempts",
    "in_flight",
    "gzip",
    "tls_ca",
    "tls_cert",
    "tls_key",
)


class PredictOptions(CommandOptions):
    """Grades one or many studies with an exported ensemble, loaded here or asked over the network.

    Flags:
        --study               What a PACS exports: a study's folder, a folder of studies (the competition's
                              too, as it is unzipped), nested folders, a DICOMDIR or a zip.
        --model               An exported version, or the folder of versions: the newest is taken
                              (models/lumbar).
        --server              Ask a TensorFlow Serving instead: HOST:PORT or grpc://HOST:PORT, grpcs:// for
                              gRPC over TLS, http://HOST:PORT[/PATH] for REST, https:// for REST over TLS.
        --out                 Where the answers go (predictions).
        --log                 Append a row a study to the log in this folder, for lumbar_tf.monitor: numbers
                              and the hour, no id but a pseudonym.
        --series-map          A CSV study_id,series_id,series_description that overrides what tables and
                              headers say; `none` leaves a series out.
        --pseudonym-key-file  Replace ids by hashes keyed with this file.
        --strict              Make the first fault in the input, and the first study that the server does
                              not answer, fatal.
        --nosheets            Draw no PNG sheets.
        --noreport            Write no HTML reports.
        --dicom               Write dicom/<study>.sr.dcm, a structured report, and dicom/<study>.sc.dcm, the
                              sheet as an image, for the archive that the study came from. They repeat the
                              patient's name, id and birth date from its headers (its pseudonym with a key).
        --fhir                Write fhir/<study>.json, a FHIR R4 report with its observations. It holds the
                              patient's id and the study's UID (their pseudonyms with a key).

    With --server:
        --server-model        The model's name in the server's configuration (lumbar).
        --server-version      Its version, a number; the server's newest by default.
        --server-label        A version's label, such as stable, instead of its number.
        --deadline-s          Seconds for one attempt (60).
        --attempts            Times that a study is asked about, where the failure may pass (5).
        --in-flight           Studies asked about at a time: gives a server that batches a batch (4).
        --gzip                Compress what is sent.
        --tls-ca              PEM file of who vouches for the server; HOST:PORT then means TLS.
        --tls-cert            PEM file of this client's certificate.
        --tls-key             PEM file of its key.

    Writes submission.csv (the competition's format and head), probability.csv (calibrated probabilities),
    intervals.csv (the same with the bounds that another such ensemble would keep to in 95%), members.csv
    (each member alone), results.json (both heads, with intervals, landmarks and flags), series.csv (which
    series were taken), rejects.csv (what was left out, and why), sheets/<study>.png and reports/<study>.html
    (findings with the slices they came from); unanswered.csv where a server did not answer for a study, and
    then the exit status is 1. Research use, not a medical device.
    """

    study: Path
    model: Path | None = None
    server: str | None = None
    out: Path = Path("predictions")
    log: Path | None = None
    series_map: Path | None = None
    pseudonym_key_file: Path | None = None
    strict: bool = False
    sheets: bool = True
    report: bool = True
    dicom: bool = False
    fhir: bool = False
    server_model: str = Field("lumbar", min_length=1)
    server_version: NonNegativeInt | None = None
    server_label: str | None = Field(None, min_length=1)
    deadline_s: PositiveFloat = 60.0
    attempts: PositiveInt = 5
    in_flight: PositiveInt = 4
    gzip: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.server is None:
            strays = [name for name in _SERVER_FLAGS if name in self.model_fields_set]
            if strays:
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in strays)
                raise ValueError(f"{flags} must come with --server")
            return self
        if self.model is not None:
            raise ValueError("--model and --server must not be given together")
        if self.server_version is not None and self.server_label is not None:
            raise ValueError("--server-version and --server-label must not be given together")
        address = parse_address(self.server, is_secure=bool(self.tls))
        if self.tls and not address.is_secure:
            raise ValueError(f"--tls-... must come with HOST:PORT, grpcs:// or https://, not with {address}")
        return self

    @property
    def tls(self) -> TlsFiles:
        """The files of the encrypted connection."""
        return TlsFiles(self.tls_ca, self.tls_cert, self.tls_key)


def predict(options: PredictOptions) -> int:
    """Grades and says where the answers are."""
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.data.pseudonyms import read_key
    from lumbar_tf.imaging.sources.listing import shown_name
    from lumbar_tf.monitoring.log import AnswerLog
    from lumbar_tf.reporting.hospital_formats import HospitalFormats
    from lumbar_tf.reporting.prediction import UNANSWERED_NAME, predict_source

    key = read_key(options.pseudonym_key_file) if options.pseudonym_key_file else None
    formats = HospitalFormats(dicom=options.dicom, fhir=options.fhir)
    formats.check()
    with _open_ensemble(options) as (ensemble, source):
        prediction = predict_source(
            options.study,
            ensemble,
            options.out,
            series_map=options.series_map,
            key=key,
            is_strict=options.strict,
            max_sheets=None if options.sheets else 0,
            has_reports=options.report,
            max_in_flight=options.in_flight if options.server else 1,
            log=AnswerLog(options.log) if options.log else None,
            formats=formats,
            progress=lambda total: progress_bar("Grading", total),
        )
    # The path may hold a name that is not ours to keep.
    shown = Path(shown_name(options.study, options.study.parent))
    write_options(options.model_copy(update={"study": shown}), options.out)
    print(f"{len(prediction.results)} studies graded with {source} -> {options.out}")
    for reason, count in Counter(each.reason.value for each in prediction.rejects).items():
        print(f"  {reason}: {count}")
    if not prediction.unanswered:
        return 0
    print(f"  without an answer: {len(prediction.unanswered)} studies, see {options.out / UNANSWERED_NAME}")
    print(f"  the first: study {prediction.unanswered[0].study_id}: {prediction.unanswered[0].message}")
    return _UNANSWERED


@contextmanager
def _open_ensemble(options: PredictOptions) -> Iterator[tuple["Ensemble", Any]]:
    """Loads the model or connects to the server; yields it and what it is called."""
    if options.server is None:
        from lumbar_tf.bundle.self_test import open_bundle

        loaded = open_bundle(options.model or _DEFAULT_MODEL, explained=options.report)
        yield loaded, loaded.path
        return
    from lumbar_tf.serving.remote import connect
    from lumbar_tf.serving.retry import RetryPolicy
    from lumbar_tf.serving.transport import ConnectionOptions, ModelChoice

    connection = ConnectionOptions(
        address=parse_address(options.server, is_secure=bool(options.tls)),
        deadline_s=options.deadline_s,
        has_gzip=options.gzip,
        tls=options.tls,
    )
    choice = ModelChoice(options.server_model, options.server_version, options.server_label)
    remote = connect(connection, choice, RetryPolicy(attempts=options.attempts))
    try:
        yield remote, remote.source
    finally:
        remote.close()


if __name__ == "__main__":
    run_command(PredictOptions, predict)
