"""Client of TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest)."""

import base64
import contextlib
import gzip
import http.client
import json
import ssl
import time
from collections.abc import Mapping, Sequence
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
_OK = 200
_READ_BYTES = 1 << 16
#: The server decompresses at most 100 MB (tensorflow/serving#4136); larger bodies are sent uncompressed.
_MAX_GZIP_BYTES = 100_000_000
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
                version=int(content["model_spec"]["version"]),
                signatures={
                    name: Signature(_types(definition["inputs"]), _types(definition["outputs"]))
                    for name, definition in found.items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
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
            return {
                key: _array(outputs[key], dtype) for key, dtype in signature.outputs.items() if key in outputs
            }
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(ServingFailure.MALFORMED, f"The outputs cannot be read: {error!r}") from error

    def close(self) -> None:
        """Does nothing: no connection outlives a request."""

    def _error(self, failure: ServingFailure, details: str) -> ServingError:
        return ServingError(failure, details, address=str(self._options.address))

    def _request(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Returns the JSON object of the response to one request."""
        deadline = time.monotonic() + self._options.deadline_s
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if self._options.has_gzip and len(body) <= _MAX_GZIP_BYTES:
                body, headers["Content-Encoding"] = gzip.compress(body, _GZIP_LEVEL), "gzip"
        connection = self._connect()
        try:
            status, text = self._exchange(connection, deadline, method, path, body, headers)
        except TimeoutError as error:
            details = f"No response within {self._options.deadline_s:g} s."
            raise self._error(ServingFailure.DEADLINE, details) from error
        except http.client.IncompleteRead as error:
            raise self._error(ServingFailure.MALFORMED, f"The response is cut off: {error}") from error
        except ssl.SSLCertVerificationError as error:
            raise self._error(ServingFailure.REFUSED, f"The certificate is not trusted: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            details = f"The connection failed: {type(error).__name__}: {error}"
            raise self._error(ServingFailure.UNAVAILABLE, details) from error
        finally:
            connection.close()
        return self._read(status, text)

    def _connect(self) -> http.client.HTTPConnection:
        address = self._options.address
        host, timeout = address.host.strip("[]"), self._options.deadline_s
        if self._tls is None:
            return http.client.HTTPConnection(host, address.port, timeout=timeout)
        return http.client.HTTPSConnection(host, address.port, timeout=timeout, context=self._tls)

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
        connection.connect()
        # The connection drops its own reference where the end of the connection ends the response.
        socket = connection.sock
        socket.settimeout(_remaining_s(deadline))
        # A proxy that rejects a body may respond and close before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self._options.address.path + path, body, headers)
        socket.settimeout(_remaining_s(deadline))
        response = connection.getresponse()
        text = bytearray()
        while response.length != 0 and not response.isclosed():
            # The timeout of each read is the remaining time, so that slow responses end at the deadline, too.
            socket.settimeout(_remaining_s(deadline))
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
        return response.status, bytes(text)

    def _read(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if status != _OK:
            message = content.get("error") if isinstance(content, dict) else None
            shown = str(message or text.decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]
            raise self._error(_FAILURES.get(status, ServingFailure.REFUSED), f"HTTP {status}: {shown}")
        if not isinstance(content, dict):
            raise self._error(
                ServingFailure.MALFORMED, f"The response is not a JSON object ({len(text)} bytes)."
            )
        return content


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


def _array(values: Any, dtype: str) -> NDArray[np.generic]:
    """Converts an output; the nine digits that the server writes of a float32 restore it exactly."""
    if dtype == "DT_STRING":
        return np.array([value.encode("utf-8") for value in values], np.object_)
    return np.array(values, DTYPES[dtype])
