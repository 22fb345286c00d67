"""Where a DICOMweb archive is, who asks it, and how long."""

import base64
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from lumbar_tf.interop.pacs_errors import PacsError, PacsFault
from lumbar_tf.serving.address import TlsFiles

_MAX_SECRET_BYTES = 64 << 10


class UrlScheme(Enum):
    """How a secret is sent; the value is HTTP's name for it (RFC 7617, RFC 6750)."""

    BASIC = "Basic"
    BEARER = "Bearer"


@dataclass(frozen=True)
class SecretFile:
    """A file that holds a secret. It is read for each request, so that a new token counts at once.

    Attributes:
        path: one line: `user:password`, or a token.
        scheme: which of the two.
    """

    path: Path
    scheme: UrlScheme

    def header(self) -> str:
        """Returns the value of the header Authorization.

        Raises:
            OSError: the file cannot be read.
            PacsError: it does not hold one line of this kind. What it holds is never shown.
        """
        with self.path.open("rb") as file:
            secret = file.read(_MAX_SECRET_BYTES).strip()
        is_basic = self.scheme is UrlScheme.BASIC
        if not secret or b"\n" in secret or b"\r" in secret or (is_basic and b":" not in secret):
            kind = "user:password" if is_basic else "a token"
            raise PacsError(PacsFault.DENIED, f"{self.path} must hold one line, {kind}")
        text = base64.b64encode(secret).decode("ascii") if is_basic else secret.decode("latin-1")
        return f"{self.scheme.value} {text}"


@dataclass(frozen=True)
class DicomwebConnection:
    """How a DICOMweb archive is asked.

    Attributes:
        url: what comes before `/studies`.
        secret: who asks; None for nobody.
        tls: files for `https://`.
        timeout_s: seconds without a byte before an attempt is given up.
        attempts: times that a request is sent where the failure may pass.
    """

    url: str
    secret: SecretFile | None = None
    tls: TlsFiles = field(default_factory=TlsFiles)
    timeout_s: float = 30.0
    attempts: int = 4


def parse_url(text: str) -> str:
    """Checks an archive's URL and returns it without a slash at its end.

    >>> parse_url("https://pacs.example/dicom-web/")
    'https://pacs.example/dicom-web'

    Raises:
        ValueError: it is no URL of a DICOMweb service, or holds a user or password, which are not repeated.
    """
    if "@" in text:
        raise ValueError(
            "--dicomweb must hold no user and no password: give a file with --dicomweb-user-file. "
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
