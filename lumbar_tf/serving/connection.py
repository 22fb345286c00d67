"""Address and connection options of a model server."""

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class ServerProtocol(Enum):
    """A protocol of TensorFlow Serving; the value is the default port of the server's Docker image."""

    GRPC = 8500
    REST = 8501


_SCHEMES = {
    "": (ServerProtocol.GRPC, False),
    "grpc": (ServerProtocol.GRPC, False),
    "grpcs": (ServerProtocol.GRPC, True),
    "http": (ServerProtocol.REST, False),
    "https": (ServerProtocol.REST, True),
}
_ADDRESS = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:\[\]@\s?#]+)(?::(?P<port>[0-9]+))?(?P<path>/[^\s?#]*)?"
)
_MAX_PORT = 65535
_HTTPS_PORT = 443


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for an encrypted connection.

    Attributes:
        ca: certificates of the authorities that are trusted to sign the server's certificate; None takes
            the system's (REST) or gRPC's own.
        cert: the client's certificate, for servers that require one.
        key: the private key of `cert`.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError(
                "A client's certificate and its private key must be given together. Received: one of them."
            )

    def __bool__(self) -> bool:
        return any((self.ca, self.cert, self.key))


@dataclass(frozen=True)
class ServerAddress:
    """The address of a model server.

    Attributes:
        protocol: gRPC or REST.
        host: host name or IP address; IPv6 in brackets.
        port: port number.
        is_secure: whether the connection is encrypted (TLS).
        path: prefix of `/v1/models` where a proxy stands in front of REST; "" or `/...` without a trailing
            slash.
    """

    protocol: ServerProtocol
    host: str
    port: int
    is_secure: bool = False
    path: str = ""

    @property
    def target(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        scheme = "grpc" if self.protocol is ServerProtocol.GRPC else "http"
        return f"{scheme}{'s' if self.is_secure else ''}://{self.target}{self.path}"


def parse_address(text: str, *, is_secure: bool = False) -> ServerAddress:
    """Parses the address of a model server.

    Args:
        text: `HOST:PORT` or `grpc://HOST:PORT` (gRPC), `grpcs://` (gRPC over TLS), `http://HOST:PORT[/PATH]`
            (REST) or `https://`. The default port is that of TensorFlow Serving's Docker image, 8500 for
            gRPC and 8501 for REST; for `https://` it is 443, because the server itself has no TLS over REST
            and a proxy provides it.
        is_secure: whether `HOST:PORT` without a scheme means TLS.

    Raises:
        ValueError: the address has none of these forms.

    >>> str(parse_address("localhost:9000")), str(parse_address("http://grader/spine/"))
    ('grpc://localhost:9000', 'http://grader:8501/spine')
    """
    match = _ADDRESS.fullmatch(text)
    scheme = (match["scheme"] or "") if match else "?"
    if match is None or scheme not in _SCHEMES or (match["port"] and not 0 < int(match["port"]) <= _MAX_PORT):
        raise ValueError(
            "A server must be HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT, http://HOST:PORT or "
            f"https://HOST:PORT. Received: {text!r}."
        )
    protocol, is_tls = _SCHEMES[scheme]
    is_tls = is_tls or (not scheme and is_secure)
    path = (match["path"] or "").rstrip("/")
    if protocol is ServerProtocol.GRPC and path:
        raise ValueError(f"Only http:// and https:// addresses can have a path. Received: {text!r}.")
    default = _HTTPS_PORT if protocol is ServerProtocol.REST and is_tls else protocol.value
    return ServerAddress(protocol, match["host"], int(match["port"] or default), is_tls, path)


@dataclass(frozen=True)
class ConnectionOptions:
    """Options of a connection to a model server.

    Attributes:
        address: the server.
        deadline_s: seconds for one attempt, from the first byte sent to the last byte received.
        has_gzip: whether requests are compressed.
        tls: PEM files for `grpcs://` and `https://`.
        max_request_bytes: larger requests are not sent. A protobuf message holds less than 2 GiB.
        max_response_bytes: larger responses are not read. The response for a study has some kilobytes.
    """

    address: ServerAddress
    deadline_s: float = 60.0
    has_gzip: bool = False
    tls: TlsFiles = field(default_factory=TlsFiles)
    max_request_bytes: int = 1 << 30
    max_response_bytes: int = 64 << 20
