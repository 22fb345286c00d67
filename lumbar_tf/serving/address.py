"""Where a model server is, and how to talk to it."""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Wire(Enum):
    """A protocol of TensorFlow Serving; the value is the port that its image listens on."""

    GRPC = 8500
    REST = 8501


_SCHEMES = {
    "": (Wire.GRPC, False),
    "grpc": (Wire.GRPC, False),
    "grpcs": (Wire.GRPC, True),
    "http": (Wire.REST, False),
    "https": (Wire.REST, True),
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
        ca: certificates of those who may vouch for the server; the system's (gRPC: its own) by default.
        cert: this client's certificate, where the server asks for one.
        key: its private key.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError(
                "A client's certificate and its key must be given together. Received: one of them."
            )

    def __bool__(self) -> bool:
        return any((self.ca, self.cert, self.key))


@dataclass(frozen=True)
class Address:
    """A model server.

    Attributes:
        wire: how it is asked.
        host: name or number; IPv6 in brackets.
        port: its port.
        is_secure: whether the connection is encrypted.
        path: before `/v1/models` where a proxy stands in front of REST; "" or `/...` without a last slash.
    """

    wire: Wire
    host: str
    port: int
    is_secure: bool = False
    path: str = ""

    @property
    def target(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        scheme = "grpc" if self.wire is Wire.GRPC else "http"
        return f"{scheme}{'s' if self.is_secure else ''}://{self.target}{self.path}"


def parse_address(text: str, *, is_secure: bool = False) -> Address:
    """Reads an address.

    Args:
        text: `HOST:PORT` or `grpc://HOST:PORT` (gRPC), `grpcs://` (gRPC over TLS), `http://HOST:PORT[/PATH]`
            (REST) or `https://`. Without a port it is the one that TF Serving's image listens on, 8500 for
            gRPC and 8501 for REST; 443 for `https://`, which a proxy speaks and the server does not.
        is_secure: whether `HOST:PORT` without a scheme means TLS.

    >>> str(parse_address("localhost:9000")), str(parse_address("http://grader/spine/"))
    ('grpc://localhost:9000', 'http://grader:8501/spine')

    Raises:
        ValueError: it is none of these.
    """
    match = _ADDRESS.fullmatch(text)
    scheme = (match["scheme"] or "") if match else "?"
    if match is None or scheme not in _SCHEMES or (match["port"] and not 0 < int(match["port"]) <= _MAX_PORT):
        raise ValueError(
            "A server must be HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT, http://HOST:PORT or "
            f"https://HOST:PORT. Received: {text!r}."
        )
    wire, is_tls = _SCHEMES[scheme]
    is_tls = is_tls or (not scheme and is_secure)
    path = (match["path"] or "").rstrip("/")
    if wire is Wire.GRPC and path:
        raise ValueError(f"Only http:// and https:// take a path. Received: {text!r}.")
    default = _HTTPS_PORT if wire is Wire.REST and is_tls else wire.value
    return Address(wire, match["host"], int(match["port"] or default), is_tls, path)
