"""TensorFlow Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest."""

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

from lumbar_tf.serving.errors import ServingError, ServingFailure
from lumbar_tf.serving.transport import DTYPES, ConnectionOptions, ModelChoice, ModelMetadata, Signature

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
#: The server unpacks no more than 100 MB (tensorflow/serving#4136): a larger body is sent as it is.
_MAX_GZIP_BYTES = 100_000_000
#: Pixels shrink to about the same size with the slower levels.
_GZIP_LEVEL = 1
_SHOWN_CHARACTERS = 500


class RestTransport:
    """A connection for each question, so that threads share nothing; see `transport.Transport`."""

    def __init__(self, options: ConnectionOptions) -> None:
        """Reads the TLS files; nothing is sent yet."""
        self._options = options
        self._tls: ssl.SSLContext | None = None
        if options.address.is_secure:
            self._tls = ssl.create_default_context(cafile=options.tls.ca)
            if options.tls.cert:
                self._tls.load_cert_chain(options.tls.cert, options.tls.key)

    def read_model(self, choice: ModelChoice) -> ModelMetadata:
        """See `transport.Transport.read_model`."""
        content = self._ask("GET", f"{_model_path(choice)}/metadata")
        try:
            # Once for the field's name in `metadata`, once for the one of its message.
            found = content["metadata"]["signature_def"]["signature_def"]
            return ModelMetadata(
                version=int(content["model_spec"]["version"]),
                signatures={
                    name: Signature(_types(each["inputs"]), _types(each["outputs"]))
                    for name, each in found.items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._error(ServingFailure.MALFORMED, f"its metadata cannot be read: {error!r}") from error

    def predict(
        self, choice: ModelChoice, name: str, signature: Signature, inputs: Mapping[str, Sequence[bytes]]
    ) -> dict[str, NDArray[np.generic]]:
        """See `transport.Transport.predict`."""
        question = {
            "signature_name": name,
            "inputs": {
                key: [{"b64": base64.b64encode(each).decode("ascii")} for each in values]
                for key, values in inputs.items()
            },
        }
        body = json.dumps(question).encode("ascii")
        self._options.check_size(len(body))
        content = self._ask("POST", f"{_model_path(choice)}:predict", body)
        try:
            outputs = content["outputs"]
            if len(signature.outputs) == 1:  # a lone output comes without its name
                outputs = {next(iter(signature.outputs)): outputs}
            return {
                key: _array(outputs[key], dtype) for key, dtype in signature.outputs.items() if key in outputs
            }
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(ServingFailure.MALFORMED, f"its outputs cannot be read: {error!r}") from error

    def close(self) -> None:
        """Has nothing to end."""

    def _error(self, failure: ServingFailure, said: str) -> ServingError:
        return ServingError(failure, said, address=str(self._options.address))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Returns the JSON object that one request is answered with."""
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
            said = f"no answer within {self._options.deadline_s:g} s"
            raise self._error(ServingFailure.DEADLINE, said) from error
        except http.client.IncompleteRead as error:
            raise self._error(ServingFailure.MALFORMED, f"its answer is cut off: {error}") from error
        except ssl.SSLCertVerificationError as error:
            raise self._error(ServingFailure.REFUSED, f"its certificate is not trusted: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            said = f"the connection failed: {type(error).__name__}: {error}"
            raise self._error(ServingFailure.UNAVAILABLE, said) from error
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
        """Sends a request and reads its whole answer before the deadline."""
        connection.connect()
        # Held here: the connection lets go of it where the answer ends with the connection.
        socket = connection.sock
        socket.settimeout(_left(deadline))
        # A proxy that takes no such body says so and closes before it has read all: what it says is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self._options.address.path + path, body, headers)
        socket.settimeout(_left(deadline))
        response = connection.getresponse()
        text = bytearray()
        while response.length != 0 and not response.isclosed():
            # Each read has what is left: an answer that drips in must not take for ever.
            socket.settimeout(_left(deadline))
            block = response.read1(_READ_BYTES)
            if not block:
                break
            text += block
            if len(text) > self._options.max_answer_bytes:
                rule = f"an answer must have at most {self._options.max_answer_bytes} bytes"
                raise self._error(ServingFailure.TOO_LARGE, f"{rule}; this one has more")
        # `read1` takes the connection's end for the answer's.
        if response.length:
            raise http.client.IncompleteRead(bytes(text[:_SHOWN_CHARACTERS]), response.length)
        return response.status, bytes(text)

    def _read(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if status != _OK:
            said = content.get("error") if isinstance(content, dict) else None
            shown = str(said or text.decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]
            raise self._error(_FAILURES.get(status, ServingFailure.REFUSED), f"HTTP {status}: {shown}")
        if not isinstance(content, dict):
            raise self._error(ServingFailure.MALFORMED, f"its answer is no JSON object ({len(text)} bytes)")
        return content


def _left(deadline: float) -> float:
    """Returns the seconds to a deadline.

    Raises:
        TimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _model_path(choice: ModelChoice) -> str:
    path = f"/v1/models/{quote(choice.name, safe='')}"
    if choice.version is not None:
        return f"{path}/versions/{choice.version}"
    return path if choice.label is None else f"{path}/labels/{quote(choice.label, safe='')}"


def _types(tensors: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(each["dtype"]) for name, each in tensors.items()}


def _array(values: Any, dtype: str) -> NDArray[np.generic]:
    """Returns an output: nine digits, as the server writes a float32, give the same float32 again."""
    if dtype == "DT_STRING":
        return np.array([each.encode("utf-8") for each in values], np.object_)
    return np.array(values, DTYPES[dtype])
