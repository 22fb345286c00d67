"""What carries a question to a model server and its answer back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.serving.address import Address, TlsFiles
from lumbar_tf.serving.errors import ServingError, ServingFailure

#: NumPy's type for each of the server's that an ensemble's signatures use.
DTYPES: dict[str, type[np.generic]] = {
    "DT_FLOAT": np.float32,
    "DT_BOOL": np.bool_,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_STRING": np.object_,
}


@dataclass(frozen=True)
class ModelChoice:
    """Which of a server's models is asked.

    Attributes:
        name: as the server's configuration names it.
        version: a number; the server's newest where neither it nor a label is given.
        label: a name that the server's configuration gives to a version.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version is not None else ""
        return f"{self.name}{version}" + (f" labelled {self.label}" if self.label else "")


@dataclass(frozen=True)
class ConnectionOptions:
    """How a server is asked.

    Attributes:
        address: where it is.
        deadline_s: seconds for one attempt, from the first byte sent to the last one read.
        has_gzip: whether questions are compressed.
        tls: files for `grpcs://` and `https://`.
        max_request_bytes: a larger question is not sent. A protobuf holds less than 2 GiB.
        max_answer_bytes: a larger answer is not read; a study's takes some kilobytes.
    """

    address: Address
    deadline_s: float = 60.0
    has_gzip: bool = False
    tls: TlsFiles = field(default_factory=TlsFiles)
    max_request_bytes: int = 1 << 30
    max_answer_bytes: int = 64 << 20

    def check_size(self, size_bytes: int) -> None:
        """Refuses a question that is too large to send.

        Raises:
            ServingError: it is.
        """
        if size_bytes > self.max_request_bytes:
            said = f"a question must have at most {self.max_request_bytes} bytes; this one has {size_bytes}"
            raise ServingError(ServingFailure.TOO_LARGE, said, address=str(self.address))


@dataclass(frozen=True)
class Signature:
    """A signature of a served model.

    Attributes:
        inputs: the server's type (`DT_STRING`) by name.
        outputs: likewise.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelMetadata:
    """What a server says of a model.

    Attributes:
        version: the version that it answers with now.
        signatures: by name.
    """

    version: int
    signatures: Mapping[str, Signature]


class Transport(Protocol):
    """One protocol's way; safe to use from several threads. Each call is one attempt."""

    def read_model(self, choice: ModelChoice) -> ModelMetadata:
        """Asks which version is served, and with which signatures.

        Raises:
            ServingError: there is no answer.
        """

    def predict(
        self, choice: ModelChoice, name: str, signature: Signature, inputs: Mapping[str, Sequence[bytes]]
    ) -> dict[str, NDArray[np.generic]]:
        """Asks a signature.

        Args:
            choice: the model.
            name: the signature's name.
            signature: it.
            inputs: strings [study] by name.

        Returns:
            The outputs by name, of the signature's types; strings as bytes.

        Raises:
            ServingError: there is no answer, or one that cannot be read.
        """

    def close(self) -> None:
        """Ends the connection."""
