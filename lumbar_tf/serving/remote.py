"""An ensemble behind a model server, which answers as one that was loaded here."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import Plane
from lumbar_tf.serving.address import Wire
from lumbar_tf.serving.contract import (
    DESCRIBE,
    EXPLAIN,
    GRADE,
    check_answer,
    find_explaining,
    find_signature,
    parse_description,
)
from lumbar_tf.serving.errors import ServingError, ServingFailure
from lumbar_tf.serving.retry import RetryPolicy, call_with_retries
from lumbar_tf.serving.transport import ConnectionOptions, ModelChoice, Transport

Answer = TypeVar("Answer")


class RemoteEnsemble:
    """A served model; safe to ask from several threads.

    The version that the server answers with at first is asked from then on: a run never mixes two.

    Attributes:
        version: that version.
        source: server, model and version, for people.
        members: names of the members, the second axis of the output `members`; empty where an export of old
            does not tell.
        description: what the export says of itself; empty likewise.
    """

    def __init__(
        self, transport: Transport, options: ConnectionOptions, choice: ModelChoice, policy: RetryPolicy
    ) -> None:
        """Asks the server what it serves.

        Raises:
            ServingError: there is no answer, or the model is no ensemble of ours.
        """
        self._transport, self._options, self._policy = transport, options, policy
        model = self._retry(lambda: transport.read_model(choice))
        self._choice = replace(choice, version=model.version, label=None)
        self.version = str(model.version)
        self.source = f"{options.address} {self._choice}"
        self._signature = self._understand(lambda: find_signature(model))
        self._explaining = self._understand(lambda: find_explaining(model))
        described = model.signatures.get(DESCRIBE)
        self.members: tuple[str, ...] = ()
        self.description: Mapping[str, Any] = {}
        if described is None:  # exported before there was one
            return
        outputs = self._retry(lambda: transport.predict(self._choice, DESCRIBE, described, {"study": [b""]}))
        content: dict[str, Any] = self._understand(
            lambda: parse_description(bytes(outputs["description"][0]).decode("utf-8"))
        )
        self.description = content
        self.members = tuple(content["members"])

    def answer(
        self, studies: Sequence[Mapping[Plane, bytes]], *, explained: bool = False
    ) -> dict[str, NDArray[np.generic]]:
        """Grades studies.

        Args:
            studies: each study's serialized Examples by plane; a plane left out is missing.
            explained: with saliency, where the model gives it.

        Returns:
            The signature's outputs; see `ServableEnsemble.serve` and `explain`.

        Raises:
            ServingError: there is no answer.
        """
        name, signature = GRADE, self._signature
        if explained and self._explaining is not None:
            name, signature = EXPLAIN, self._explaining
        inputs = {plane.value: [study.get(plane, b"") for study in studies] for plane in Plane}

        def ask() -> dict[str, NDArray[np.generic]]:
            outputs = self._transport.predict(self._choice, name, signature, inputs)
            try:
                check_answer(outputs, num_studies=len(studies), num_members=len(self.members) or None)
            except ValueError as error:
                raise self._error(ServingFailure.MALFORMED, str(error)) from error
            return outputs

        return self._retry(ask)

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def _retry(self, call: Callable[[], Answer]) -> Answer:
        return call_with_retries(call, self._policy)

    def _understand(self, read: Callable[[], Answer]) -> Answer:
        """Reads what the server says of its model; asking again would not change it."""
        try:
            return read()
        except (ValueError, KeyError, IndexError) as error:
            said = f"{self._choice} is no ensemble of this kind: {error}"
            raise self._error(ServingFailure.REFUSED, said) from error

    def _error(self, failure: ServingFailure, said: str) -> ServingError:
        return ServingError(failure, said, address=str(self._options.address))


def connect(options: ConnectionOptions, choice: ModelChoice, policy: RetryPolicy) -> RemoteEnsemble:
    """Connects to a served ensemble.

    Raises:
        ServingError: it does not answer.
        ValueError: gRPC is not installed.
        OSError: a TLS file cannot be read.
    """
    return RemoteEnsemble(_open_transport(options), options, choice, policy)


def _open_transport(options: ConnectionOptions) -> Transport:
    """Returns the transport that an address asks for. Nothing is sent yet.

    Raises:
        ValueError: gRPC without the extra `serving`.
        OSError: a TLS file cannot be read.
    """
    if options.address.wire is Wire.REST:
        from lumbar_tf.serving.rest_transport import RestTransport

        return RestTransport(options)
    # A lost connection is told as an error; gRPC's own log says it once more. A caller's choice stands.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        # Loads TensorFlow, whose protobufs the service's messages hold.
        from lumbar_tf.serving.grpc_transport import GrpcTransport
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(("tensorflow_serving", "grpc")):
            raise
        raise ValueError(
            "gRPC needs the extra `serving` (tensorflow-serving-api); http://HOST:PORT does without. "
            f"Received: {options.address}, and {error.name} is not installed."
        ) from None
    return GrpcTransport(options)
