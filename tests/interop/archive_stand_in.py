"""Small DICOMweb archive over HTTP with programmable failures."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

STUDY, SERIES = "1.2.1", "1.2.1.1"
MULTIPART = 'multipart/related; type="application/dicom"; boundary=line'


@dataclass(frozen=True)
class Reply:
    """HTTP response, sent after `stall_s` and without its last `cut` bytes."""

    status: int = 200
    body: bytes = b"[]"
    content_type: str = "application/dicom+json"
    stall_s: float = 0.0
    cut: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


#: Returns the response to a request, given the number of earlier ones; None for the archive's own response.
Plan = Callable[[Request, int], Reply | None]


def uid_value(**values: Any) -> dict[str, Any]:
    """Returns an object of the DICOM JSON model; tags are keywords (`t00080060="MR"`)."""
    return {tag[1:]: {"vr": "LO", "Value": [value]} for tag, value in values.items()}


def part(data: bytes) -> bytes:
    return b"--line\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--line--\r\n"


@dataclass(eq=False)
class ArchiveStandIn:
    """Archive with a study of one series with two images, and the stored instances."""

    plan: Plan = lambda request, place: None
    requests: list[Request] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=lambda: {"1.2.1.1.1": b"one" * 99, "1.2.1.1.2": b"two"})
    stored: list[bytes] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        planned = self.plan(request, len(self.requests) - 1)
        if planned is not None:
            return planned
        words = request.path.strip("/").split("/")[1:]
        if request.method == "POST":
            self.stored.append(request.body)
            return Reply(body=b"{}")
        if words[-1] in self.images:
            return Reply(body=part(self.images[words[-1]]), content_type=MULTIPART)
        if request.query.get("offset", "0") != "0":
            return Reply()
        found: list[dict[str, Any]] = []
        if words == ["studies"]:
            found = [uid_value(t0020000D=STUDY, t00201208=len(self.images) + len(self.held))]
        elif words == ["studies", STUDY, "series"]:
            found = [
                uid_value(t0020000E=SERIES, t00080060="MR", t00081030="LUMBAR", t00201209=len(self.images)),
                # Some archives ignore the key Modality.
                uid_value(t0020000E="1.2.1.9", t00080060="SR", t00201209=1),
            ]
        elif words == ["studies", STUDY, "series", SERIES, "instances"]:
            found = [uid_value(t00080018=uid) for uid in self.images]
        elif words == ["studies", STUDY, "instances"]:
            found = [uid_value(t00080018=uid) for uid in (*self.images, *self.held)]
        return Reply(body=json.dumps(found).encode())


@contextmanager
def serve_archive(archive: ArchiveStandIn, *, tls: ssl.SSLContext | None = None) -> Iterator[ArchiveStandIn]:
    """Serves the archive on a free port for the duration of a block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = archive.answer(
                Request(self.command, parts.path, dict(parse_qsl(parts.query)), dict(self.headers), body)
            )
            time.sleep(reply.stall_s)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            # Without this header a client may send its next request over a connection that is being closed.
            self.send_header("Connection", "close")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: len(reply.body) - reply.cut])

        def log_message(self, format: str, *arguments: Any) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Some tests close the connection early.
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    archive.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
