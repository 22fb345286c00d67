"""Interface of the gRPC and REST clients, and their errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.retry import RemoteError
from lumbar_tf.serving.connection import ConnectionOptions

_SHOWN_CHARACTERS = 500
#: NumPy type of each TensorFlow type that the signatures of an ensemble use.
DTYPES: dict[str, type[np.generic]] = {
    "DT_FLOAT": np.float32,
    "DT_BOOL": np.bool_,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_STRING": np.object_,
}


class ServingFailure(Enum):
    """Reason why a request has no valid response. The value appears in tables and messages."""

    #: Nothing listens at the address, the connection broke, or the server reports that it cannot serve now.
    UNAVAILABLE = "unavailable"
    #: No response within the deadline.
    DEADLINE = "deadline"
    #: The server has run out of a resource, such as space in its request queue.
    OVERLOADED = "overloaded"
    #: The response is cut off, unreadable or of the wrong shapes.
    MALFORMED = "malformed"
    #: The request or the response exceeds a size limit.
    TOO_LARGE = "too_large"
    #: The server rejected the request: no such model, invalid input, no permission, or an error in the model.
    REFUSED = "refused"
    #: The request was not sent because too many before it had failed.
    NOT_ASKED = "not_asked"

    @property
    def is_transient(self) -> bool:
        """Whether a later attempt may succeed.

        Grading has no side effects, so repeating a request is safe whatever happened to the first attempt.
        """
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {ServingFailure.UNAVAILABLE, ServingFailure.DEADLINE, ServingFailure.OVERLOADED, ServingFailure.MALFORMED}
)


class ServingError(RemoteError):
    """A request without a valid response.

    Attributes:
        failure: the reason.
        details: message of the server, or of the library that talks to it, on one line: printable, since a
            server may send anything, and of limited length.
        address: the server.
        attempts: number of attempts that were made.
        may_be_companions: whether the server rejected the input of the computation. It computes requests of
            several clients in one batch where batching is on, and rejects all of them for one of them.
    """

    def __init__(
        self,
        failure: ServingFailure,
        details: str,
        *,
        address: str,
        attempts: int = 1,
        may_be_companions: bool = False,
    ) -> None:
        """Composes the message from the attributes."""
        self.failure = failure
        self.details = _printable(details)
        self.may_be_companions = may_be_companions
        self.address = address
        self.attempts = attempts
        super().__init__(failure, self.details, address)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.failure.is_transient

    def __str__(self) -> str:
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"No response from {self.address} ({self.failure.value}, {times}): {self.details}"


def _printable(text: str) -> str:
    """Returns a text on one line, without control characters of terminals, of at most 500 characters."""
    line = " ".join(text[: 4 * _SHOWN_CHARACTERS].split())[:_SHOWN_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in line)


@dataclass(frozen=True)
class ModelChoice:
    """A model of a server.

    Attributes:
        name: its name in the server's configuration.
        version: version number; where neither it nor a label is given, the server takes the newest.
        label: label of a version in the server's configuration.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version is not None else ""
        return f"{self.name}{version}" + (f" labelled {self.label}" if self.label else "")


@dataclass(frozen=True)
class Signature:
    """A signature of a served model.

    Attributes:
        inputs: TensorFlow type (`DT_STRING`) by name.
        outputs: TensorFlow type by name.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelMetadata:
    """A server's description of a model.

    Attributes:
        version: the version that the server currently resolves the model choice to.
        signatures: by name.
    """

    version: int
    signatures: Mapping[str, Signature]


class Transport(Protocol):
    """Client of one protocol. Thread-safe. Each call is one attempt, without retries."""

    def read_model(self, choice: ModelChoice) -> ModelMetadata:
        """Requests the version and the signatures of a model.

        Raises:
            ServingError: there is no valid response.
        """

    def predict(
        self, choice: ModelChoice, name: str, signature: Signature, inputs: Mapping[str, Sequence[bytes]]
    ) -> dict[str, NDArray[np.generic]]:
        """Calls a signature of a model.

        Args:
            choice: the model.
            name: name of the signature.
            signature: its inputs and outputs.
            inputs: strings [study] by name.

        Returns:
            The outputs by name, of the signature's types; strings as bytes.

        Raises:
            ServingError: there is no valid response.
        """

    def close(self) -> None:
        """Closes the connection."""


def check_request_size(options: ConnectionOptions, size_bytes: int) -> None:
    """Raises `ServingError` if a request exceeds the size limit."""
    if size_bytes > options.max_request_bytes:
        details = (
            f"A request must have at most {options.max_request_bytes} bytes. Received: {size_bytes} bytes."
        )
        raise ServingError(ServingFailure.TOO_LARGE, details, address=str(options.address))
