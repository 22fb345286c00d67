"""Options shared by the commands that grade studies, `predict` and `watch`."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lumbar_tf.cli.command import CommandOptions, OnlyWith, split_commas
from lumbar_tf.files import private_files
from lumbar_tf.interop.dicomweb_connection import (
    AuthenticationScheme,
    CredentialsFile,
    DicomwebConnection,
    parse_url,
)
from lumbar_tf.interop.output_formats import (
    DEFAULT_FORMATS,
    STORED_FORMATS,
    OutputFormat,
    check_extras,
    parse_formats,
)
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.serving.connection import TlsFiles, parse_address

#: Packages of the extra `pacs`.
_PACS_MODULES = ("dicomweb_client", "highdicom", "pynetdicom")
_SERVER, _DICOMWEB = OnlyWith("server"), OnlyWith("dicomweb")


def _parse_format_list(value: object) -> object:
    names = split_commas(value)
    return parse_formats(names) if isinstance(names, tuple) else names


#: The type of the option `--formats`.
FormatList = Annotated[tuple[OutputFormat, ...], BeforeValidator(_parse_format_list)]


class GradingOptions(CommandOptions):
    """Base of the options of a command that grades studies.

    It declares the model or model server, the output formats and the DICOMweb archive.
    """

    model: Path | None = Field(
        None,
        description="Exported version, or folder of exported versions, of which the newest is loaded. "
        "Default: models/lumbar, or the pretrained ensemble of the package if there is none.",
    )
    server: str | None = Field(
        None,
        description="Use the model of a TensorFlow Serving instead: HOST:PORT or grpc://HOST:PORT, grpcs:// "
        "for gRPC over TLS, http://HOST:PORT[/PATH] for REST, https:// for REST over TLS.",
    )
    require_signature: Path | None = Field(
        None,
        description="PEM file of an Ed25519 public key: a bundle that was not exported with the private key "
        "(lumbar_tf.export --sign-key-file) is refused. Needs the extra `signing`.",
    )
    force_self_test: bool = Field(
        False,
        description="Run the bundle's self-test even if it was passed before with the same packages and "
        "processor.",
    )
    formats: FormatList = Field(
        DEFAULT_FORMATS,
        description="Comma-separated kinds of files to write for each study; --formats= writes tables only. "
        "sheets: PNG sheets. report: HTML reports. For the archive that the study came from, in dicom/: sr, "
        "a structured report; gsps, presentation states that draw points and crops over the slices; pdf, the "
        "sheet as a document; sc, the sheet as an image. fhir: FHIR R4 reports with observations. Files in "
        "dicom/ repeat the patient's name, ID and birth date from the images; those in fhir/ contain the "
        "patient's ID and the StudyInstanceUID.",
    )
    language: Language = Field(
        Language.ENGLISH,
        description="Language of the impression, the findings in a few sentences: en, de, fr or es.",
    )
    log: Path | None = Field(
        None,
        description="Folder of a log for lumbar_tf.monitor, to which one row per study is appended: numbers "
        "and the hour, and no ID but a pseudonym.",
    )
    server_model: Annotated[str, _SERVER] = Field(
        "lumbar", min_length=1, description="Name of the model in the server's configuration."
    )
    server_version: Annotated[NonNegativeInt | None, _SERVER] = Field(
        None, description="Version number of the model; the server's newest by default."
    )
    server_label: Annotated[str | None, _SERVER] = Field(
        None, min_length=1, description="Label of a version, such as stable, instead of its number."
    )
    deadline_s: Annotated[PositiveFloat, _SERVER] = Field(
        60.0, description="Time limit of one request, seconds."
    )
    gzip: Annotated[bool, _SERVER] = Field(False, description="Compress the requests.")
    tls_ca: Annotated[Path | None, _SERVER] = Field(
        None,
        description="PEM file with the CA certificates that verify the server's certificate; HOST:PORT then "
        "means TLS.",
    )
    tls_cert: Annotated[Path | None, _SERVER] = Field(
        None, description="PEM file with the client certificate for the server."
    )
    tls_key: Annotated[Path | None, _SERVER] = Field(
        None, description="PEM file with the private key of --tls-cert."
    )
    dicomweb: str | None = Field(
        None,
        description="URL of a DICOMweb archive that the studies are fetched from, such as "
        "https://pacs/dicom-web. Needs the extra `pacs`.",
    )
    store: Annotated[bool, _DICOMWEB] = Field(
        False,
        description="Store the DICOM files of --formats in the archive; without --formats, sr and sc, which "
        "it then adds.",
    )
    dicomweb_user_file: Annotated[Path | None, _DICOMWEB] = Field(
        None, description="File with one line, user:password."
    )
    dicomweb_token_file: Annotated[Path | None, _DICOMWEB] = Field(
        None, description="File with one line, a bearer token."
    )
    dicomweb_ca: Annotated[Path | None, _DICOMWEB] = Field(
        None, description="PEM file with the CA certificates that verify the archive's certificate."
    )
    dicomweb_cert: Annotated[Path | None, _DICOMWEB] = Field(
        None, description="PEM file with the client certificate for the archive."
    )
    dicomweb_key: Annotated[Path | None, _DICOMWEB] = Field(
        None, description="PEM file with the private key of --dicomweb-cert."
    )
    dicomweb_timeout_s: Annotated[PositiveFloat, _DICOMWEB] = Field(
        30.0, description="Time without data after which a request fails, seconds."
    )
    dicomweb_attempts: Annotated[PositiveInt, _DICOMWEB] = Field(
        4, description="Maximum number of times that a request is sent; only transient failures are retried."
    )

    @model_validator(mode="after")
    def _check_dicomweb(self) -> Self:
        if self.dicomweb is None:
            return self
        if self.dicomweb_user_file and self.dicomweb_token_file:
            raise ValueError("--dicomweb-user-file and --dicomweb-token-file must not be given together")
        connection = self.dicomweb_connection()
        if connection.tls and not connection.url.startswith("https:"):
            raise ValueError("--dicomweb-ca, -cert and -key must come with an https:// URL")
        return self

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if self.server is None:
            return self
        if self.model is not None:
            raise ValueError("--model and --server must not be given together")
        if self.require_signature is not None:
            raise ValueError("--require-signature must not come with --server: it is about a bundle's files")
        if self.force_self_test:
            raise ValueError("--force-self-test must not come with --server: it is about a bundle's graph")
        if self.server_version is not None and self.server_label is not None:
            raise ValueError("--server-version and --server-label must not be given together")
        address = parse_address(self.server, is_secure=bool(self.tls))
        if self.tls and not address.is_secure:
            raise ValueError(f"--tls-... must come with HOST:PORT, grpcs:// or https://, not with {address}")
        return self

    @model_validator(mode="after")
    def _check_sink(self) -> Self:
        if self.has_sink and not any(each.is_dicom for each in self.chosen_formats()):
            kinds = ", ".join(each.value for each in OutputFormat if each.is_dicom)
            raise ValueError(f"--formats must have one of {kinds} where results are stored or sent")
        return self

    @property
    def tls(self) -> TlsFiles:
        """Files of the TLS connection to the model server."""
        return TlsFiles(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def has_sink(self) -> bool:
        """Whether the results are stored in an archive."""
        return self.store

    @property
    def shows_saliency(self) -> bool:
        """Whether a format shows saliency maps."""
        return any(each.spec.shows_saliency for each in self.formats)

    def chosen_formats(self) -> tuple[OutputFormat, ...]:
        """Returns the output formats; without `--formats` also those that are stored by default.

        Raises:
            ValueError: the package that a format needs is not installed.
        """
        is_default = "formats" not in self.model_fields_set
        chosen = (*self.formats, *STORED_FORMATS) if self.has_sink and is_default else self.formats
        check_extras(chosen)
        return chosen

    def model_arguments(self) -> dict[str, Any]:
        """Returns the arguments of `lumbar_tf.load_ensemble`."""
        if self.server is None:
            source = {} if self.model is None else {"source": self.model}
            return {
                **source,
                "require_signature": self.require_signature,
                "force_self_test": self.force_self_test,
            }
        return {
            "source": str(parse_address(self.server, is_secure=bool(self.tls))),
            "model_name": self.server_model,
            "model_version": self.server_version,
            "model_label": self.server_label,
            "deadline_s": self.deadline_s,
            "gzip": self.gzip,
            "tls_ca": self.tls_ca,
            "tls_cert": self.tls_cert,
            "tls_key": self.tls_key,
        }

    def dicomweb_connection(self) -> DicomwebConnection:
        """Returns the connection to the archive; only where `dicomweb` is given."""
        credentials = None
        if self.dicomweb_user_file:
            credentials = CredentialsFile(self.dicomweb_user_file, AuthenticationScheme.BASIC)
        elif self.dicomweb_token_file:
            credentials = CredentialsFile(self.dicomweb_token_file, AuthenticationScheme.BEARER)
        return DicomwebConnection(
            url=parse_url(self.dicomweb or ""),
            credentials=credentials,
            tls=TlsFiles(self.dicomweb_ca, self.dicomweb_cert, self.dicomweb_key),
            timeout_s=self.dicomweb_timeout_s,
            attempts=self.dicomweb_attempts,
        )


@contextmanager
def protect_patient_data() -> Iterator[None]:
    """Creates files for their owner only in a block, and suppresses pydicom's warnings, which quote headers.

    They are suppressed for all threads, since inner blocks of the same kind are not safe in several threads.
    """
    # Here, not above: importing pydicom takes half a second, which --help must not wait for.
    from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings

    with private_files(), suppress_pydicom_warnings():
        yield


def check_pacs_extra() -> None:
    """Verifies that the packages of the extra `pacs` are installed.

    Raises:
        ValueError: one of them is missing.
    """
    missing = [name for name in _PACS_MODULES if find_spec(name) is None]
    if missing:
        raise ValueError(
            "Access to a PACS needs the extra `pacs`: pip install 'lumbar_tf[pacs]'. "
            f"Received: an environment without {', '.join(missing)}."
        )
