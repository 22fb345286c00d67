"""The options of every command that asks a DICOMweb archive."""

from importlib.util import find_spec
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from lumbar_tf.cli.command import CommandOptions
from lumbar_tf.interop.dicomweb_connection import DicomwebConnection, SecretFile, UrlScheme, parse_url
from lumbar_tf.serving.address import TlsFiles

#: Say how an archive is asked, so they mean nothing without one.
DICOMWEB_FLAGS = (
    "store",
    "dicomweb_user_file",
    "dicomweb_token_file",
    "dicomweb_ca",
    "dicomweb_cert",
    "dicomweb_key",
    "dicomweb_timeout_s",
    "dicomweb_attempts",
)
_MODULES = ("dicomweb_client", "highdicom", "pynetdicom")


class DicomwebOptions(CommandOptions):
    """Base of the options of commands that can ask a DICOMweb archive."""

    dicomweb: str | None = None
    store: bool = False
    dicomweb_user_file: Path | None = None
    dicomweb_token_file: Path | None = None
    dicomweb_ca: Path | None = None
    dicomweb_cert: Path | None = None
    dicomweb_key: Path | None = None
    dicomweb_timeout_s: PositiveFloat = 30.0
    dicomweb_attempts: PositiveInt = 4

    def check_dicomweb(self) -> None:
        """Refuses what does not go together.

        Raises:
            ValueError: it does not.
        """
        if self.dicomweb is None:
            strays = [name for name in DICOMWEB_FLAGS if name in self.model_fields_set]
            if strays:
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in strays)
                raise ValueError(f"{flags} must come with --dicomweb")
            return
        if self.dicomweb_user_file and self.dicomweb_token_file:
            raise ValueError("--dicomweb-user-file and --dicomweb-token-file must not be given together")
        url = self.connection().url
        if self.connection().tls and not url.startswith("https:"):
            raise ValueError("--dicomweb-ca, -cert and -key must come with an https:// URL")

    def connection(self) -> DicomwebConnection:
        """Returns how the archive is asked; only where `dicomweb` is given."""
        secret = None
        if self.dicomweb_user_file:
            secret = SecretFile(self.dicomweb_user_file, UrlScheme.BASIC)
        elif self.dicomweb_token_file:
            secret = SecretFile(self.dicomweb_token_file, UrlScheme.BEARER)
        return DicomwebConnection(
            url=parse_url(self.dicomweb or ""),
            secret=secret,
            tls=TlsFiles(self.dicomweb_ca, self.dicomweb_cert, self.dicomweb_key),
            timeout_s=self.dicomweb_timeout_s,
            attempts=self.dicomweb_attempts,
        )


def check_extra() -> None:
    """Refuses to go on without the packages that talk to archives.

    Raises:
        ValueError: one of them is missing.
    """
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise ValueError(
            "Talking to a PACS needs the extra `pacs`: pip install 'lumbar_tf[pacs]'. "
            f"Received: an environment without {', '.join(missing)}."
        )
