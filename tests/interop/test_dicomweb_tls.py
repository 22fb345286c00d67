"""TLS connections to a DICOMweb archive with server and client certificates."""

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

#: Certificates of the model server's tests.
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
        return [study.study_uid for study in archive.find()]


@pytest.mark.parametrize("bundle", [None, "stranger.pem"])
def test_certificates_of_the_given_ca_are_accepted(
    url: str, pem: Path, bundle: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # requests prefers this file to the CA file of the session.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if bundle is not None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem / bundle))
    assert _find(url, TlsFiles(pem / "ca.pem", pem / "client.pem", pem / "client.key")) == [STUDY]


@pytest.mark.parametrize("ca", ["stranger.pem", None])
def test_an_archive_with_a_certificate_of_another_ca_is_refused(url: str, pem: Path, ca: str | None) -> None:
    tls = TlsFiles(pem / ca if ca else None, pem / "client.pem", pem / "client.key")
    with pytest.raises(PacsError, match="certificate verify failed") as caught:
        _find(url, tls)
    assert caught.value.fault is PacsFault.REFUSED


def test_a_connection_without_a_client_certificate_fails(url: str, pem: Path) -> None:
    with pytest.raises(PacsError):
        _find(url, TlsFiles(pem / "ca.pem"))
