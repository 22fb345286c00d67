"""A stand-in for TensorFlow Serving's REST side: its paths, its JSON, its errors."""

import base64
import gzip
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import numpy as np
from google.protobuf import json_format

from tests.serving.faults import Attempts, Fault, Plan, no_faults, reset
from tests.serving.stand_in_models import Model, signature_map


@dataclass(eq=False)
class RestStandIn:
    """Answers for one model; see `stand_in_grpc.GrpcStandIn`."""

    model: Model
    plan: Plan = no_faults
    stall_s: float = 2.0
    oversize: int = 1 << 20
    name: str = "lumbar"
    prefix: str = ""
    labels: dict[str, int] = field(default_factory=dict)
    attempts: Attempts = field(default_factory=Attempts)
    encodings: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def client_port(self) -> int:
        return self.port

    def metadata(self) -> dict[str, Any]:
        """As ToJsonString in the server's http_rest_api_util.cc writes it."""
        signatures = json_format.MessageToDict(
            signature_map(self.model),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        spec = {"name": self.name, "signature_name": "", "version": str(self.model.version)}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    def predict(self, question: dict[str, Any]) -> tuple[bytes, Fault]:
        """Returns the answer and what is to go wrong with it."""
        inputs = {
            name: [base64.b64decode(value["b64"], validate=True) for value in values]
            for name, values in question["inputs"].items()
        }
        fault = Fault.NONE
        if question["signature_name"] != "describe":
            study = b"|".join(values[0] for _, values in sorted(inputs.items()))
            fault = self.plan(study, self.attempts.next(study))
        outputs = self.model.run(question["signature_name"], inputs)
        written = {name: _write(value) for name, value in outputs.items()}
        body = f'"outputs": {next(iter(written.values()))}'
        if len(written) > 1:
            body = '"outputs": {' + ", ".join(f'"{name}": {text}' for name, text in written.items()) + "}"
        return ("{" + body + "}").encode(), fault


def _write(value: Any) -> str:
    """Writes a tensor as WriteDecimal in the server's json_tensor.cc: digits that give the float again."""
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(_write(element) for element in value) + "]"
    if isinstance(value, bytes):
        return json.dumps(value.decode())
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    if np.isnan(value):
        return "NaN"
    text = f"{float(value):.6g}"
    text = text if np.float32(text) == value else f"{float(value):.9g}"
    return text if any(letter in text for letter in ".en") else f"{text}.0"


def _handler(stand_in: RestStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self._version("/metadata") != stand_in.model.version:
                self._fail(404, f"Could not find any versions of model {self.path}")
                return
            self._send(200, json.dumps(stand_in.metadata()).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding", "")
            stand_in.encodings.add(encoding)
            if self._version(":predict") != stand_in.model.version:
                self._fail(404, "Servable not found for request: Specific(lumbar, 1)")
                return
            question = json.loads(gzip.decompress(body) if encoding == "gzip" else body)
            text, fault = stand_in.predict(question)
            if fault is Fault.UNAVAILABLE:
                self._fail(503, "The batch scheduling queue is full")
            elif fault is Fault.EXHAUSTED:
                self._fail(429, "OOM when allocating tensor")
            elif fault is Fault.REFUSED:
                self._fail(400, "Could not parse example input")
            elif fault is Fault.RESET:
                reset(self.connection)
            elif fault is Fault.TRUNCATED:
                self._send(200, text, cut=len(text) // 2)
            elif fault is Fault.OVERSIZED:
                self._send(200, text + b" " * stand_in.oversize)
            else:
                if fault is Fault.TIMEOUT:
                    time.sleep(stand_in.stall_s)
                self._send(200, text)

        def _version(self, ending: str) -> int | None:
            """Returns the version that the path asks for, None for another path or model."""
            path = f"{stand_in.prefix}/v1/models/{stand_in.name}"
            if not self.path.startswith(path) or not self.path.endswith(ending):
                return None
            which = self.path[len(path) : -len(ending)]
            if which.startswith("/labels/"):
                return stand_in.labels.get(unquote(which.removeprefix("/labels/")))
            return int(which.removeprefix("/versions/")) if which else stand_in.model.version

        def _fail(self, status: int, said: str) -> None:
            self._send(status, json.dumps({"error": said}).encode())

        def _send(self, status: int, body: bytes, cut: int = 0) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - cut])
            self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True  # the client has gone, as it may

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                self.close_connection = True

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        except OSError:
            request.close()


@contextmanager
def serve_rest(stand_in: RestStandIn, *, tls: ssl.SSLContext | None = None) -> Iterator[RestStandIn]:
    """Listens on a port of this machine for as long as the block runs."""
    server = _Server(("127.0.0.1", 0), _handler(stand_in))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    stand_in.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
