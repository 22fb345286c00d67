"""Connection parameters of a DICOMweb archive: URL, credentials, TLS files, timeout and attempts."""

import base64
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from lumbar_tf.files import decode_secret
from lumbar_tf.interop.interfaces import PacsError, PacsFault
from lumbar_tf.serving.connection import TlsFiles

_MAX_CREDENTIALS_BYTES = 64 << 10


class AuthenticationScheme(Enum):
    """HTTP authentication scheme; the value is its name in HTTP (RFC 7617, RFC 6750)."""

    BASIC = "Basic"
    BEARER = "Bearer"


@dataclass(frozen=True)
class CredentialsFile:
    """File with credentials. It is read for each request, so that a renewed token takes effect at once.

    Attributes:
        path: file of one line, `user:password` or a bearer token.
        scheme: which of the two the line contains.
    """

    path: Path
    scheme: AuthenticationScheme

    def header(self) -> str:
        """Returns the value of the header Authorization.

        Raises:
            OSError: the file cannot be read.
            PacsError: the file does not contain one line of this kind. The message never shows its content.
        """
        with self.path.open("rb") as file:
            secret = decode_secret(file.read(_MAX_CREDENTIALS_BYTES))
        is_basic = self.scheme is AuthenticationScheme.BASIC
        if not secret or b"\n" in secret or b"\r" in secret or (is_basic and b":" not in secret):
            kind = "user:password" if is_basic else "a token"
            raise PacsError(PacsFault.DENIED, f"{self.path} must contain one line, {kind}")
        text = base64.b64encode(secret).decode("ascii") if is_basic else secret.decode("latin-1")
        return f"{self.scheme.value} {text}"


@dataclass(frozen=True)
class AnswerLimits:
    """Limits of what an archive may answer.

    Attributes:
        answer_bytes: size of an answer that is no image; a page of 500 studies has some hundred KB.
        min_bytes_per_s: a request ends after twice the timeout plus the time for its bytes at this rate.
        pages: number of pages of a list.
        list_s: time for a list, or for the inspection of a study, seconds.
        study_s: time to fetch a study, seconds.
    """

    answer_bytes: int = 16 << 20
    min_bytes_per_s: float = 16 << 10
    pages: int = 2_000
    list_s: float = 600.0
    study_s: float = 3600.0


@dataclass(frozen=True)
class DicomwebConnection:
    """Connection parameters of a DICOMweb archive.

    Attributes:
        url: base URL, the part before `/studies`.
        credentials: file with the credentials; None for anonymous access.
        tls: PEM files for `https://`.
        timeout_s: time without data after which a request fails, seconds.
        attempts: maximum number of times that a request is sent; only transient failures are retried.
        limits: limits of the answers.
    """

    url: str
    credentials: CredentialsFile | None = None
    tls: TlsFiles = field(default_factory=TlsFiles)
    timeout_s: float = 30.0
    attempts: int = 4
    limits: AnswerLimits = field(default_factory=AnswerLimits)


def parse_url(text: str) -> str:
    """Returns the base URL of an archive without a trailing slash.

    >>> parse_url("https://pacs.example/dicom-web/")
    'https://pacs.example/dicom-web'

    Raises:
        ValueError: the text is not the URL of a DICOMweb service, or contains a user or password. The message
            does not repeat these.
    """
    if "@" in text:
        raise ValueError(
            "--dicomweb must not contain a user or password: use a file with --dicomweb-user-file. "
            "Received: a URL with an @."
        )
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            "--dicomweb must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH, without a query. "
            f"Received: {text!r}."
        )
    return text.rstrip("/")
