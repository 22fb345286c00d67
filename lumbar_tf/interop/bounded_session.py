"""HTTP session of the DICOMweb client, whose requests end after a time and whose answers have limits.

requests and urllib3 limit the time between two pieces of data only: an archive that sends one byte each
second, or interim responses without end, would hold a thread for good. The limits are therefore enforced on
the socket: all its waits end at the deadline of the request, and it receives little more than the body that
its reader has taken. An answer may not be compressed, because its size would then say nothing.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import create_urllib3_context

from lumbar_tf.interop.dicomweb_connection import AnswerLimits, CredentialsFile, DicomwebConnection
from lumbar_tf.interop.interfaces import PacsFault, StopCheck, StoppedError, never

Result = TypeVar("Result")

_BLOCK_BYTES = 64 << 10
#: Time between two checks of the stop signal, seconds.
_SLICE_S = 0.2
#: Headers, interim responses and chunk headers that the socket receives at most ahead of the body.
_MAX_OVERHEAD_BYTES = 4 << 20
_REDIRECTS = range(300, 400)


class AnswerLimitError(Exception):
    """An answer of the archive exceeds a limit, or is of a kind that is not accepted.

    Attributes:
        fault: kind of the failure.
    """

    def __init__(self, fault: PacsFault, message: str) -> None:
        """Creates the error; `message` contains no text of the answer."""
        self.fault = fault
        super().__init__(message)


class _Budget:
    """Time and bytes of the request that a session is sending."""

    def __init__(self, timeout_s: float, limits: AnswerLimits, should_stop: StopCheck) -> None:
        self._timeout_s, self._limits, self._should_stop = timeout_s, limits, should_stop
        self.start(0)

    def start(self, num_sent: int) -> None:
        """Begins a request with a body of a number of bytes."""
        self._began = time.monotonic()
        self._num_sent = num_sent
        self._num_received = self._num_taken = 0

    def wait(self, connection: socket.socket, operation: Callable[[], Result]) -> Result:
        """Runs an operation of a socket until it succeeds, or until a limit is reached."""
        idle_end = time.monotonic() + self._timeout_s
        while True:
            if self._should_stop():
                raise StoppedError
            left_s = min(idle_end, self._end()) - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            connection.settimeout(min(left_s, _SLICE_S))
            try:
                return operation()
            except TimeoutError:
                continue

    def receive(self, num_bytes: int) -> None:
        """Counts bytes that arrived.

        Raises:
            AnswerLimitError: too many of them belong to no body.
        """
        self._num_received += num_bytes
        if self._num_received > 2 * self._num_taken + _MAX_OVERHEAD_BYTES:
            message = f"more than {_MAX_OVERHEAD_BYTES} bytes of headers"
            raise AnswerLimitError(PacsFault.TOO_LARGE, message)

    def take(self, num_bytes: int, *, is_limited: bool) -> None:
        """Counts bytes of the body.

        Raises:
            AnswerLimitError: the body is too large.
        """
        self._num_taken += num_bytes
        if is_limited and self._num_taken > self._limits.answer_bytes:
            message = f"the answer has more than {self._limits.answer_bytes} bytes"
            raise AnswerLimitError(PacsFault.TOO_LARGE, message)

    def _end(self) -> float:
        """Returns the deadline, which bytes in both directions extend."""
        num_bytes = self._num_sent + self._num_received
        return self._began + 2 * self._timeout_s + num_bytes / self._limits.min_bytes_per_s


class _BoundedIo:
    """Methods of a socket that http.client calls, within the budget."""

    budget: _Budget

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receives bytes."""
        receive: Callable[..., int] = super().recv_into  # type: ignore[misc]
        num_bytes = self.budget.wait(self, lambda: receive(buffer, nbytes or 0, flags))  # type: ignore[arg-type]
        self.budget.receive(num_bytes)
        return num_bytes

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Sends bytes."""
        send: Callable[..., int] = super().send  # type: ignore[misc]
        left = memoryview(data).cast("B")
        while left:
            part = left
            left = left[self.budget.wait(self, lambda: send(part)) :]  # type: ignore[arg-type]  # noqa: B023


class _BoundedSocket(_BoundedIo, socket.socket):
    pass


class _BoundedTlsSocket(_BoundedIo, ssl.SSLSocket):
    pass


def _bound(connected: Any, budget: _Budget) -> Any:
    """Returns a connected socket with a budget."""
    if not isinstance(connected, _BoundedTlsSocket):
        kind = (connected.family, connected.type, connected.proto)
        connected = _BoundedSocket(*kind, fileno=connected.detach())
    connected.budget = budget
    return connected


class _Adapter(HTTPAdapter):
    """Adapter whose connections have the session's budget."""

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        """Creates the pools of direct connections."""
        super().init_poolmanager(*arguments, **keywords, ssl_context=_tls_context())
        self._bound_pools(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns the pools of connections over a proxy."""
        manager = super().proxy_manager_for(*arguments, **keywords, ssl_context=_tls_context())
        self._bound_pools(manager)
        return manager

    def send(self, request: requests.PreparedRequest, stream: bool = False, **keywords: Any) -> Any:  # type: ignore[override]
        """Sends a request. The reader of a streamed answer limits its size."""
        body = request.body
        self._budget.start(len(body) if isinstance(body, bytes) else self._budget_of_chunks(request))
        response = super().send(request, stream=stream, **keywords)
        response.raw = _BoundedBody(response.raw, self._budget, is_limited=not stream)
        return response

    @staticmethod
    def _budget_of_chunks(request: requests.PreparedRequest) -> int:
        """Returns the bytes for which time is given to a body of unknown length: a result's picture."""
        return _MAX_OVERHEAD_BYTES if request.body is not None else 0

    def _bound_pools(self, manager: PoolManager) -> None:
        budget = self._budget

        class Connection(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                self.sock = _bound(self.sock, budget)

        class TlsConnection(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                self.sock = _bound(self.sock, budget)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = TlsConnection

        manager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}


def _tls_context() -> ssl.SSLContext:
    context = create_urllib3_context()
    context.sslsocket_class = _BoundedTlsSocket
    return context


class _BoundedBody:
    """Body of a response; everything but its content is that of urllib3's response."""

    def __init__(self, response: Any, budget: _Budget, *, is_limited: bool) -> None:
        self._response, self._budget, self._is_limited = response, budget, is_limited

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def stream(self, amt: int = _BLOCK_BYTES, decode_content: bool | None = None) -> Iterator[bytes]:
        """Yields the content in blocks, as it was sent."""
        for block in self._response.stream(min(amt, _BLOCK_BYTES), decode_content=False):
            self._budget.take(len(block), is_limited=self._is_limited)
            yield block


class _FileAuth(requests.auth.AuthBase):
    """Authentication with credentials that are read for each request."""

    def __init__(self, credentials: CredentialsFile) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._credentials.header()
        return request


class _NoAuth(requests.auth.AuthBase):
    """No authentication: without it, requests sends the credentials that ~/.netrc has for the host."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    def merge_environment_settings(self, *arguments: Any, **keywords: Any) -> Any:
        """Keeps the session's own CA file, which requests would override with REQUESTS_CA_BUNDLE."""
        settings = super().merge_environment_settings(*arguments, **keywords)
        if isinstance(self.verify, str):
            settings["verify"] = self.verify
        return settings


def open_session(connection: DicomwebConnection, *, should_stop: StopCheck = never) -> requests.Session:
    """Returns an HTTP session with the credentials, TLS files and limits of a connection; sends nothing.

    It is for one thread at a time. Requests raise `AnswerLimitError` and `StoppedError` besides the errors of
    requests.

    Raises:
        OSError: a file of the connection cannot be read.
        PacsError: the credentials file is malformed.
    """
    session = _Session()
    adapter = _Adapter(_Budget(connection.timeout_s, connection.limits, should_stop))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers["Accept-Encoding"] = "identity"
    session.hooks["response"] = [_check_answer]
    tls = connection.tls
    for path in (tls.ca, tls.cert, tls.key):
        if path is not None:
            path.open("rb").close()
    if tls.ca is not None:
        session.verify = str(tls.ca)
    if tls.cert is not None and tls.key is not None:
        session.cert = (str(tls.cert), str(tls.key))
    session.auth = _NoAuth()
    if connection.credentials is not None:
        connection.credentials.header()
        session.auth = _FileAuth(connection.credentials)
    return session


def _check_answer(response: requests.Response, *arguments: Any, **keywords: Any) -> None:
    """Refuses redirects, compressed answers and errors before their bodies are read.

    A redirect means a wrong URL, and no other host may receive patient data or credentials. The body of a
    status 409 may name the results that were not stored.
    """
    if response.status_code in _REDIRECTS:
        response.close()
        raise AnswerLimitError(PacsFault.REFUSED, "the archive redirects; check the URL")
    headers: Mapping[str, str] = response.headers
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        response.close()
        raise AnswerLimitError(PacsFault.MALFORMED, "the answer is compressed, which was not requested")
    if not response.ok and response.status_code != HTTPStatus.CONFLICT:
        response.close()
        response.raise_for_status()
