"""Ensemble behind a model server, with the interface of a locally loaded one."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import Plane
from lumbar_tf.retry import RetryPolicy, call_with_retries
from lumbar_tf.serving.connection import ConnectionOptions, ServerProtocol
from lumbar_tf.serving.contract import (
    DESCRIBE,
    GRADE,
    SALIENCY,
    check_outputs,
    find_grading_signature,
    find_saliency_signature,
    parse_description,
)
from lumbar_tf.serving.training_data import TrainingData, parse_training
from lumbar_tf.serving.transport import ModelChoice, ServingError, ServingFailure, Transport

Item = TypeVar("Item")
Response = TypeVar("Response")


class RemoteEnsemble:
    """A served model. Thread-safe.

    All requests go to the version that the server offers at construction: no run mixes two versions.

    Attributes:
        version: that version.
        source: server, model and version, for messages.
        members: names of the members, the second axis of the output `members`; empty for old exports,
            which have no description.
        description: the export's `ensemble.json`; empty for old exports.
        training: the studies that it was trained on; undocumented for old exports.
    """

    def __init__(
        self, transport: Transport, options: ConnectionOptions, choice: ModelChoice, policy: RetryPolicy
    ) -> None:
        """Requests the model's version, signatures and description.

        Raises:
            ServingError: there is no valid response, or the model is not an ensemble of this package.
        """
        self._transport, self._options, self._policy = transport, options, policy
        self._turns = _Turns()
        model = self._retry(lambda: transport.read_model(choice))
        self._choice = replace(choice, version=model.version, label=None)
        self.version = str(model.version)
        self.source = f"{options.address} {self._choice}"
        self._grading = self._validate(lambda: find_grading_signature(model))
        self._saliency = self._validate(lambda: find_saliency_signature(model))
        describe = model.signatures.get(DESCRIBE)
        self.members: tuple[str, ...] = ()
        self.description: Mapping[str, Any] = {}
        self.training = TrainingData()
        if describe is None:  # an old export
            return
        outputs = self._retry(lambda: transport.predict(self._choice, DESCRIBE, describe, {"study": [b""]}))
        content: dict[str, Any] = self._validate(lambda: parse_description(_description_text(outputs)))
        self.description = content
        self.members = tuple(content["members"])
        self.training = parse_training(content)

    def predict(
        self, studies: Sequence[Mapping[Plane, bytes]], *, with_saliency: bool = False
    ) -> dict[str, NDArray[np.generic]]:
        """Grades studies.

        Args:
            studies: the serialized Examples of each study by plane; a plane left out is missing.
            with_saliency: request saliency as well, if the model provides it.

        Returns:
            The signature's outputs; see `ServableEnsemble.serve` and `serve_with_saliency`.

        Raises:
            ServingError: there is no valid response.
        """
        name, signature = GRADE, self._grading
        if with_saliency and self._saliency is not None:
            name, signature = SALIENCY, self._saliency
        inputs = {plane.value: [study.get(plane, b"") for study in studies] for plane in Plane}

        def request() -> dict[str, NDArray[np.generic]]:
            outputs = self._transport.predict(self._choice, name, signature, inputs)
            try:
                check_outputs(outputs, num_studies=len(studies), num_members=len(self.members) or None)
            except ValueError as error:
                raise self._error(ServingFailure.MALFORMED, str(error)) from error
            return outputs

        try:
            with self._turns.shared():
                return self._retry(request)
        except ServingError as error:
            if not error.may_be_companions or error.failure is not ServingFailure.REFUSED:
                raise
        # The server may have rejected a batch because of another study in it.
        with self._turns.alone():
            return self._retry(request)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _retry(self, call: Callable[[], Response]) -> Response:
        return call_with_retries(call, self._policy)

    def _validate(self, read: Callable[[], Response]) -> Response:
        """Returns a part of the model's metadata; errors are permanent, as a retry would read the same."""
        try:
            return read()
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            details = f"{self._choice} is not an ensemble of lumbar_tf: {error}"
            raise self._error(ServingFailure.REFUSED, details) from error

    def _error(self, failure: ServingFailure, details: str) -> ServingError:
        return ServingError(failure, details, address=str(self._options.address))


def _description_text(outputs: Mapping[str, NDArray[np.generic]]) -> str:
    values = outputs["description"]
    if values.dtype != np.object_ or values.shape != (1,) or not isinstance(values[0], bytes):
        raise ValueError("the output description must be one string.")
    return values[0].decode("utf-8")


class _Turns:
    """Calls that run at the same time, and calls that run alone, after those that have begun."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._running = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A block that runs beside others."""
        with self._condition:
            self._condition.wait_for(lambda: not self._is_alone and not self._waiting)
            self._running += 1
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block that runs while no other does."""
        with self._condition:
            self._waiting += 1
            self._condition.wait_for(lambda: not self._is_alone and not self._running)
            self._waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._condition:
                self._is_alone = False
                self._condition.notify_all()


def connect(options: ConnectionOptions, choice: ModelChoice, policy: RetryPolicy) -> RemoteEnsemble:
    """Connects to a served ensemble.

    Raises:
        ServingError: there is no valid response.
        ValueError: gRPC is not installed.
        OSError: a TLS file cannot be read.
    """
    return RemoteEnsemble(_open_transport(options), options, choice, policy)


def _open_transport(options: ConnectionOptions) -> Transport:
    """Returns the transport for an address, before anything is sent.

    Raises:
        ValueError: the address needs gRPC, and the extra `serving` is not installed.
        OSError: a TLS file cannot be read.
    """
    if options.address.protocol is ServerProtocol.REST:
        from lumbar_tf.serving.rest_transport import RestTransport

        return RestTransport(options)
    # A lost connection raises an error; gRPC would log it as well. A value set by the user takes precedence.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        # Imports TensorFlow, because the messages of the service contain its protobufs.
        from lumbar_tf.serving.grpc_transport import GrpcTransport
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(("tensorflow_serving", "grpc")):
            raise
        raise ValueError(
            "gRPC needs the extra `serving` (tensorflow-serving-api); http://HOST:PORT does not. "
            f"Received: {options.address}, and {error.name} is not installed."
        ) from None
    return GrpcTransport(options)


def predict_in_order(
    items: Iterable[Item], predict: Callable[[Item], Response], *, max_in_flight: int = 1
) -> Iterator[tuple[Item, Response]]:
    """Calls a function for each item, several at a time, and yields items and results in order.

    Items are drawn as calls finish, so at most `max_in_flight` items are in memory, plus the one that is
    being drawn. With `max_in_flight=1` everything runs in the caller's thread.

    Args:
        items: drawn in the caller's thread.
        predict: called once per item, in worker threads. An exception is raised here in the item's turn and
            ends the iteration.
        max_in_flight: number of calls at a time, at least 1.
    """
    if max_in_flight < 1:
        raise ValueError(f"`max_in_flight` must be at least 1. Received: {max_in_flight}.")
    if max_in_flight == 1:
        for item in items:
            yield item, predict(item)
        return
    waiting: deque[tuple[Item, Future[Response]]] = deque()
    pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="predict")
    try:
        for item in items:
            if len(waiting) == max_in_flight:
                first, future = waiting.popleft()
                yield first, future.result()
            waiting.append((item, pool.submit(predict, item)))
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        # Reached as well when the caller stops early: pending calls are cancelled.
        pool.shutdown(wait=True, cancel_futures=True)
