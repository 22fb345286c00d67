"""Encrypted connections: the client checks the server, and the server the client where it asks for it."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from lumbar_tf.labels import Plane
from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions, ServerProtocol, TlsFiles, parse_address
from lumbar_tf.serving.remote import RemoteEnsemble, connect
from lumbar_tf.serving.transport import ModelChoice, ServingError, ServingFailure
from tests.serving.stand_in_grpc import GrpcStandIn, serve_grpc
from tests.serving.stand_in_models import FakeModel
from tests.serving.stand_in_rest import RestStandIn, serve_rest


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities, and a server and a client that the first vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not installed")
    folder = tmp_path_factory.mktemp("pem")

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for authority in ("ca", "stranger"):
        run(*f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority}".split(),
            "-keyout", f"{authority}.key", "-out", f"{authority}.pem")  # fmt: skip
    for name in ("server", "client"):
        run(*f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr".split())
        run(*f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2".split(),
            "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    return folder


@contextmanager
def _serve(wire: ServerProtocol, pem: Path) -> Iterator[Any]:
    """Serves over TLS and lets in only clients that `ca` vouches for."""
    if wire is ServerProtocol.REST:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem / "server.pem", pem / "server.key")
        context.load_verify_locations(pem / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        with serve_rest(RestStandIn(FakeModel()), tls=context) as stand_in:
            yield stand_in
        return
    credentials = grpc.ssl_server_credentials(
        [((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())],
        root_certificates=(pem / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    with serve_grpc(GrpcStandIn(FakeModel()), credentials=credentials) as stand_in:
        yield stand_in


def _reach(wire: ServerProtocol, port: int, tls: TlsFiles) -> RemoteEnsemble:
    scheme = "https" if wire is ServerProtocol.REST else "grpcs"
    options = ConnectionOptions(parse_address(f"{scheme}://localhost:{port}"), deadline_s=10.0, tls=tls)
    return connect(options, ModelChoice("lumbar"), RetryPolicy(attempts=2, first_wait_s=0.01))


def test_both_sides_prove_who_they_are(wire: ServerProtocol, pem: Path) -> None:
    with _serve(wire, pem) as stand_in:
        tls = TlsFiles(pem / "ca.pem", pem / "client.pem", pem / "client.key")
        remote = _reach(wire, stand_in.port, tls)
        assert remote.predict([{Plane.AXIAL_T2: b"axial"}])["probability"].shape == (1, 25, 3)
        remote.close()


@pytest.mark.parametrize("change", ["no certificate", "a stranger vouches for the server"])
def test_who_cannot_prove_it_gets_no_answer(wire: ServerProtocol, pem: Path, change: str) -> None:
    with _serve(wire, pem) as stand_in:
        tls = TlsFiles(pem / "ca.pem")
        if change != "no certificate":
            tls = TlsFiles(pem / "stranger.pem", pem / "client.pem", pem / "client.key")
        with pytest.raises(ServingError, match="localhost") as caught:
            _reach(wire, stand_in.port, tls)
        # A certificate stays as bad as it is; that the client has none may be seen as a broken connection.
        if change != "no certificate":
            assert caught.value.failure is ServingFailure.REFUSED
            assert caught.value.attempts == 1
        assert caught.value.failure in (ServingFailure.UNAVAILABLE, ServingFailure.REFUSED)


def test_a_plain_client_gets_no_answer(wire: ServerProtocol, pem: Path) -> None:
    with _serve(wire, pem) as stand_in:
        scheme = "http" if wire is ServerProtocol.REST else "grpc"
        options = ConnectionOptions(parse_address(f"{scheme}://localhost:{stand_in.port}"), deadline_s=5.0)
        with pytest.raises(ServingError):
            connect(options, ModelChoice("lumbar"), RetryPolicy(attempts=1))
