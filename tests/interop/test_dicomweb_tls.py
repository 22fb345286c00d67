"""An encrypted archive: it is checked, and so is the client where it asks for a certificate."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumbar_tf.interop.dicomweb import open_archive
from lumbar_tf.interop.dicomweb_connection import DicomwebConnection
from lumbar_tf.interop.interfaces import PacsError, PacsFault
from lumbar_tf.serving.connection import TlsFiles
from tests.interop.archive_stand_in import STUDY, ArchiveStandIn, serve_archive
from tests.serving import test_tls

#: The certificates that the model server's tests are made with.
pem = test_tls.pem


@pytest.fixture
def url(pem: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / "server.pem", pem / "server.key")
    context.load_verify_locations(pem / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with serve_archive(ArchiveStandIn(), tls=context) as archive:
        yield archive.url


def _find(url: str, tls: TlsFiles) -> list[str]:
    with open_archive(DicomwebConnection(url, tls=tls, timeout_s=5.0, attempts=1)) as archive:
        return [each.study_uid for each in archive.find()]


@pytest.mark.parametrize("bundle", [None, "stranger.pem"])
def test_who_is_vouched_for_is_let_in(
    url: str, pem: Path, bundle: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # requests would rather have this one than what the session was told.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if bundle is not None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem / bundle))
    assert _find(url, TlsFiles(pem / "ca.pem", pem / "client.pem", pem / "client.key")) == [STUDY]


@pytest.mark.parametrize("ca", ["stranger.pem", None])
def test_an_archive_that_nobody_vouches_for_is_not_asked(url: str, pem: Path, ca: str | None) -> None:
    tls = TlsFiles(pem / ca if ca else None, pem / "client.pem", pem / "client.key")
    with pytest.raises(PacsError, match="certificate verify failed") as caught:
        _find(url, tls)
    assert caught.value.fault is PacsFault.REFUSED


def test_a_client_without_a_certificate_is_told_so(url: str, pem: Path) -> None:
    with pytest.raises(PacsError):
        _find(url, TlsFiles(pem / "ca.pem"))
