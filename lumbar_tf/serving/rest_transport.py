"""Client of TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest)."""

import base64
import contextlib
import gzip
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.serving.connection import ConnectionOptions
from lumbar_tf.serving.transport import (
    DTYPES,
    ModelChoice,
    ModelMetadata,
    ServingError,
    ServingFailure,
    Signature,
    check_request_size,
)

#: 408, 504: the server's or a proxy's deadline; 429: RESOURCE_EXHAUSTED; 502, 503: UNAVAILABLE
#: (ToHTTPStatusCode in the server's http_server.cc). 413: a proxy's limit.
_FAILURES = {
    408: ServingFailure.DEADLINE,
    504: ServingFailure.DEADLINE,
    429: ServingFailure.OVERLOADED,
    502: ServingFailure.UNAVAILABLE,
    503: ServingFailure.UNAVAILABLE,
    413: ServingFailure.TOO_LARGE,
}
#: The model rejected the input, or the computation failed.
_INPUT_STATUSES = frozenset({400, 500})
#: Errors of reading JSON of other types and sizes than expected.
_WRONG_CONTENT = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
_JSON_TYPES: dict[str, frozenset[type]] = {
    "DT_FLOAT": frozenset({float, int}),
    "DT_BOOL": frozenset({bool}),
    "DT_INT32": frozenset({int}),
    "DT_INT64": frozenset({int}),
    "DT_STRING": frozenset({str}),
}
_OK = 200
_READ_BYTES = 1 << 16
#: The server decompresses at most 100 MiB (tensorflow/serving#4136); larger bodies are sent uncompressed.
_MAX_GZIP_BYTES = 104_857_600
#: Slower levels compress pixels hardly better.
_GZIP_LEVEL = 1
_SHOWN_CHARACTERS = 500


class RestTransport:
    """A new connection for every request, so threads share no state; implements `transport.Transport`."""

    def __init__(self, options: ConnectionOptions) -> None:
        """Reads the TLS files; sends nothing."""
        self._options = options
        self._tls: ssl.SSLContext | None = None
        if options.address.is_secure:
            self._tls = ssl.create_default_context(cafile=options.tls.ca)
            if options.tls.cert:
                self._tls.load_cert_chain(options.tls.cert, options.tls.key)

    def read_model(self, choice: ModelChoice) -> ModelMetadata:
        """See `transport.Transport.read_model`."""
        content = self._request("GET", f"{_model_path(choice)}/metadata")
        try:
            # The first key is the metadata field, the second the field of its message.
            found = content["metadata"]["signature_def"]["signature_def"]
            return ModelMetadata(
                version=_version(content["model_spec"]["version"]),
                signatures={
                    name: Signature(_types(definition["inputs"]), _types(definition["outputs"]))
                    for name, definition in found.items()
                },
            )
        except _WRONG_CONTENT as error:
            raise self._error(ServingFailure.MALFORMED, f"The metadata cannot be read: {error!r}") from error

    def predict(
        self, choice: ModelChoice, name: str, signature: Signature, inputs: Mapping[str, Sequence[bytes]]
    ) -> dict[str, NDArray[np.generic]]:
        """See `transport.Transport.predict`."""
        content = {
            "signature_name": name,
            "inputs": {
                key: [{"b64": base64.b64encode(value).decode("ascii")} for value in values]
                for key, values in inputs.items()
            },
        }
        body = json.dumps(content).encode("ascii")
        check_request_size(self._options, len(body))
        response = self._request("POST", f"{_model_path(choice)}:predict", body)
        try:
            outputs = response["outputs"]
            if len(signature.outputs) == 1:  # the API omits the name of a single output
                outputs = {next(iter(signature.outputs)): outputs}
            if not isinstance(outputs, dict):
                raise TypeError("the outputs must be an object")
            return {
                key: _array(outputs[key], dtype) for key, dtype in signature.outputs.items() if key in outputs
            }
        except _WRONG_CONTENT as error:
            raise self._error(ServingFailure.MALFORMED, f"The outputs cannot be read: {error!r}") from error

    def close(self) -> None:
        """Does nothing: no connection outlives a request."""

    def _error(
        self, failure: ServingFailure, details: str, *, may_be_companions: bool = False
    ) -> ServingError:
        address = str(self._options.address)
        return ServingError(failure, details, address=address, may_be_companions=may_be_companions)

    def _request(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Returns the JSON object of the response to one request."""
        deadline = time.monotonic() + self._options.deadline_s
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if self._options.has_gzip and len(body) <= _MAX_GZIP_BYTES:
                body, headers["Content-Encoding"] = gzip.compress(body, _GZIP_LEVEL), "gzip"
        connection = self._connection()
        try:
            status, text = self._exchange(connection, deadline, method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error, is_late=time.monotonic() >= deadline) from error
        finally:
            connection.close()
        return self._read(status, text)

    def _failure(self, error: Exception, *, is_late: bool) -> ServingError:
        """Returns the error for a failed exchange; at the deadline the connection is closed."""
        if is_late or isinstance(error, TimeoutError):
            details = f"No response within {self._options.deadline_s:g} s."
            return self._error(ServingFailure.DEADLINE, details)
        if isinstance(error, http.client.IncompleteRead):
            return self._error(ServingFailure.MALFORMED, f"The response is cut off: {error}")
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._error(ServingFailure.REFUSED, f"The certificate is not trusted: {error}")
        details = f"The connection failed: {type(error).__name__}: {error}"
        return self._error(ServingFailure.UNAVAILABLE, details)

    def _connection(self) -> http.client.HTTPConnection:
        """Returns a connection that is not open yet."""
        address = self._options.address
        return http.client.HTTPConnection(address.host.strip("[]"), address.port)

    def _open(self, connection: http.client.HTTPConnection, deadline: float) -> socket.socket:
        """Connects; a TLS handshake follows later, under the deadline."""
        address = (connection.host, connection.port)
        plain = socket.create_connection(address, timeout=_remaining_s(deadline))
        connection.sock = plain
        if self._tls is not None:
            connection.sock = self._tls.wrap_socket(
                plain, server_hostname=connection.host, do_handshake_on_connect=False
            )
        opened: socket.socket = connection.sock
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        deadline: float,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> tuple[int, bytes]:
        """Sends a request and reads the whole response before the deadline."""
        # The connection drops its own reference where the end of the connection ends the response.
        opened = self._open(connection, deadline)
        with _closed_at(deadline, opened):
            if isinstance(opened, ssl.SSLSocket):
                opened.do_handshake()
            # A proxy that rejects a body may respond and close before it has read all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._options.address.path + path, body, headers)
            response = connection.getresponse()
            text = self._read_body(response)
            # A response without a length ends where the connection does.
            _remaining_s(deadline)
        return response.status, text

    def _read_body(self, response: http.client.HTTPResponse) -> bytes:
        text = bytearray()
        while response.length != 0 and not response.isclosed():
            block = response.read1(_READ_BYTES)
            if not block:
                break
            text += block
            if len(text) > self._options.max_response_bytes:
                rule = f"A response must have at most {self._options.max_response_bytes} bytes."
                raise self._error(ServingFailure.TOO_LARGE, f"{rule} Received: more.")
        # `read1` does not distinguish the end of the connection from the end of the response.
        if response.length:
            raise http.client.IncompleteRead(bytes(text[:_SHOWN_CHARACTERS]), response.length)
        return bytes(text)

    def _read(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            content = json.loads(text)
        except (RecursionError, ValueError):
            content = None
        if status != _OK:
            message = content.get("error") if isinstance(content, dict) else None
            shown = str(message or text.decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]
            failure = _FAILURES.get(status, ServingFailure.REFUSED)
            is_about_input = status in _INPUT_STATUSES
            raise self._error(failure, f"HTTP {status}: {shown}", may_be_companions=is_about_input)
        if not isinstance(content, dict):
            raise self._error(
                ServingFailure.MALFORMED, f"The response is not a JSON object ({len(text)} bytes)."
            )
        return content


@contextlib.contextmanager
def _closed_at(deadline: float, opened: socket.socket) -> Iterator[None]:
    """Closes a connection at a deadline unless the block ends before.

    A timeout of the socket limits the wait for each byte only: headers that arrive byte by byte, or endless
    100 Continue responses, would last for ever.
    """

    def cut() -> None:
        with contextlib.suppress(OSError):
            # The method of the class: that of a TLS socket sends and waits.
            socket.socket.shutdown(opened, socket.SHUT_RDWR)

    remaining = _remaining_s(deadline)
    opened.settimeout(remaining)
    timer = threading.Timer(remaining, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _remaining_s(deadline: float) -> float:
    """Returns the seconds until a deadline.

    Raises:
        TimeoutError: it has passed.
    """
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _model_path(choice: ModelChoice) -> str:
    path = f"/v1/models/{quote(choice.name, safe='')}"
    if choice.version is not None:
        return f"{path}/versions/{choice.version}"
    return path if choice.label is None else f"{path}/labels/{quote(choice.label, safe='')}"


def _types(tensors: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(info["dtype"]) for name, info in tensors.items()}


def _version(value: Any) -> int:
    version = int(value)
    if not 0 <= version < 1 << 63:
        raise ValueError("a version must be a number from 0 to 2**63 - 1")
    return version


def _array(values: Any, dtype: str) -> NDArray[np.generic]:
    """Converts an output; the nine digits that the server writes of a float32 restore it exactly.

    Raises:
        ValueError: the values are ragged or of another type; NumPy would convert texts to numbers and truths.
        OverflowError: a number is too large.
    """
    cells = np.array(values, np.object_)
    received = {type(value) for value in cells.flat}
    if not received <= _JSON_TYPES[dtype]:
        names = ", ".join(sorted(kind.__name__ for kind in received))
        raise ValueError(f"values must be of the type {dtype}. Received: {names}.")
    if dtype == "DT_STRING":
        encoded = [str(value).encode("utf-8") for value in cells.flat]
        return np.array(encoded, np.object_).reshape(cells.shape)
    with np.errstate(over="ignore"):  # infinity is refused where it has no meaning
        return cells.astype(DTYPES[dtype])
