"""`python -m lumbar_tf.predict`: DICOM studies to findings."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

import lumbar_tf
from lumbar_tf.cli.command import run_command, write_options
from lumbar_tf.cli.console import ExitStatus, Figure, Summary
from lumbar_tf.cli.progress import progress_bar, show_activity
from lumbar_tf.dicom.sources.listing import shown_name
from lumbar_tf.dicom.uids import is_safe_id
from lumbar_tf.interop import dicomweb_options as pacs_options
from lumbar_tf.serving.address import TlsFiles, parse_address

if TYPE_CHECKING:
    from lumbar_tf.interop.dicomweb import DicomwebArchive

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


class PredictOptions(pacs_options.DicomwebOptions):
    """Grades one or many studies with an exported ensemble, loaded here or asked over the network.

    Flags:
        --study               What a PACS exports: a study's folder, a folder of studies (the competition's
                              too, as it is unzipped), nested folders, a DICOMDIR or a zip. With --dicomweb
                              a StudyInstanceUID.
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

    With --dicomweb, a DICOMweb archive such as https://pacs/dicom-web (the extra `pacs`):
        --store               Store the structured report and the sheet in the archive; implies --dicom.
        --dicomweb-user-file  File of one line, user:password.
        --dicomweb-token-file File of one line, a bearer token.
        --dicomweb-ca         PEM file of who vouches for the archive.
        --dicomweb-cert       PEM file of this client's certificate.
        --dicomweb-key        PEM file of its key.
        --dicomweb-timeout-s  Seconds without a byte before an attempt is given up (30).
        --dicomweb-attempts   Times that a request is sent where the failure may pass (4).

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

    after_interrupt: ClassVar[str] = (
        "No table was written. What --out holds of single studies (sheets, reports, dicom, fhir) is whole. "
        "Run the same command again: it grades all studies anew, and adds them to a --log again."
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        self.check_dicomweb()
        if self.dicomweb is not None and not is_safe_id(str(self.study)):
            raise ValueError("--study must be a StudyInstanceUID where --dicomweb is given")
        if self.store and self.pseudonym_key_file is not None:
            raise ValueError(
                "--store must not come with --pseudonym-key-file: the archive knows no pseudonym"
            )
        return self

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


def run_predict(options: PredictOptions) -> Summary:
    """Grades the studies and summarises the results."""
    if options.dicomweb is not None:
        pacs_options.check_extra()
    formats = {name for name in lumbar_tf.FORMATS if getattr(options, name)}
    if options.store:
        formats.add("dicom")
    lumbar_tf.check_formats(formats)
    # Only the study that was requested, whatever an archive sends.
    is_restricted = options.dicomweb is not None and options.pseudonym_key_file is None
    with _open_study(options) as (root, archive), _load_ensemble(options) as ensemble:
        predictions = ensemble.predict_studies(
            root,
            options.out,
            formats=formats,
            series_map=options.series_map,
            pseudonym_key_file=options.pseudonym_key_file,
            strict=options.strict,
            study_id=str(options.study) if is_restricted else None,
            log=options.log,
            max_in_flight=options.in_flight if options.server else 1,
            progress=lambda total: progress_bar("Grading", total),
        )
        num_stored = _store_results(archive, options) if archive is not None and options.store else None
    # The path may contain a patient's name.
    shown = Path(shown_name(options.study, options.study.parent))
    write_options(options.model_copy(update={"study": shown}), options.out)
    return _summarise(predictions, ensemble.source, num_stored, options)


def _summarise(
    predictions: "lumbar_tf.Predictions", source: str, num_stored: int | None, options: PredictOptions
) -> Summary:
    reasons = Counter(reject.reason.value for reject in predictions.rejects)
    paths = {"tables": options.out / "submission.csv", "results": options.out / "results.json"}
    if options.report:
        paths["reports"] = options.out / "reports"
    if reasons:
        paths["left out, and why"] = options.out / "rejects.csv"
    notes = []
    if predictions.unanswered:
        paths["without an answer"] = options.out / "unanswered.csv"
        first = predictions.unanswered[0]
        notes.append(f"Without an answer, the first: study {first.study_id}: {first.message}")
    figures: dict[str, Figure] = {
        "studies": len(predictions.study_ids),
        "model": source,
        "left out or noted": [f"{count} x {reason}" for reason, count in reasons.items()],
        "without an answer": len(predictions.unanswered),
    }
    if num_stored is not None:
        figures["results stored in the archive"] = num_stored
    return Summary(
        "Graded (research use, not a medical device)",
        figures,
        paths,
        notes,
        status=ExitStatus.DATA if predictions.unanswered else ExitStatus.DONE,
    )


@contextmanager
def _open_study(options: PredictOptions) -> Iterator[tuple[Path, "DicomwebArchive | None"]]:
    """Yields the path of the studies; from an archive they are fetched, and removed at the end."""
    if options.dicomweb is None:
        yield options.study, None
        return
    from lumbar_tf.interop.dicomweb import open_archive

    with (
        open_archive(options.connection()) as archive,
        archive.fetch(str(options.study)) as fetched,
    ):
        yield fetched.folder, archive


def _store_results(archive: "DicomwebArchive", options: PredictOptions) -> int:
    from lumbar_tf.interop.study_grading import find_results

    results = find_results(options.out, str(options.study))
    for result in results:
        archive.store(options.out / result.file)
    return len(results)


def _load_ensemble(options: PredictOptions) -> "lumbar_tf.Ensemble":
    """Loads the bundle, or connects to the server."""
    if options.server is None:
        with show_activity("Loading the model"):
            return lumbar_tf.load_ensemble(options.model or _DEFAULT_MODEL, explained=options.report)
    return lumbar_tf.load_ensemble(
        str(parse_address(options.server, is_secure=bool(options.tls))),
        model_name=options.server_model,
        model_version=options.server_version,
        model_label=options.server_label,
        deadline_s=options.deadline_s,
        attempts=options.attempts,
        gzip=options.gzip,
        tls_ca=options.tls_ca,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
    )


if __name__ == "__main__":
    run_command(PredictOptions, run_predict)
