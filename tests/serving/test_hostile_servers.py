"""A server that answers anything: each answer is a named failure of its study, in time and printable."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from lumbar_tf.labels import Flag, Plane
from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions, parse_address
from lumbar_tf.serving.contract import check_outputs, parse_description
from lumbar_tf.serving.remote import RemoteEnsemble
from lumbar_tf.serving.rest_transport import RestTransport
from lumbar_tf.serving.transport import (
    ModelChoice,
    ModelMetadata,
    ServingError,
    ServingFailure,
    Signature,
)

CHOICE = ModelChoice("lumbar")
OUTPUTS = {
    "probability": "DT_FLOAT",
    "competition": "DT_FLOAT",
    "members": "DT_FLOAT",
    "landmarks": "DT_FLOAT",
    "flags": "DT_BOOL",
}
SIGNATURE = Signature({plane.value: "DT_STRING" for plane in Plane}, OUTPUTS)


@contextmanager
def _server(respond: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serves connections with a function until the block ends; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def handle(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(1 << 20)
                respond(connection)
                # Closing with unread bytes would reset the connection before the client has read all.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    pass
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def _transport(port: int, deadline_s: float = 10.0) -> RestTransport:
    address = parse_address(f"http://127.0.0.1:{port}")
    return RestTransport(ConnectionOptions(address=address, deadline_s=deadline_s))


def _body(text: str, status: str = "200 OK") -> Callable[[socket.socket], None]:
    data = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + data)


def _sound() -> dict[str, Any]:
    thirds = [[[1 / 3, 1 / 3, 1 / 3]] * 25]
    return {
        "probability": thirds,
        "competition": thirds,
        "members": [thirds],
        "landmarks": [[[1.0, 2.0, 3.0]] * 25],
        "flags": [[[False] * len(Flag)] * 25],
    }


BODIES = {
    "a number of 400 digits": json.dumps({"outputs": {**_sound(), "landmarks": 10**400}}),
    "a number of 5,000 digits": '{"outputs": ' + "9" * 5000 + "}",
    "lists in lists": '{"outputs": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "flags as texts": json.dumps({"outputs": {**_sound(), "flags": [[["false"] * len(Flag)] * 25]}}),
    "numbers as texts": json.dumps({"outputs": {**_sound(), "probability": [[["0.5"] * 3] * 25]}}),
    "objects for numbers": json.dumps({"outputs": {**_sound(), "members": [{"a": 1}]}}),
    "ragged lists": json.dumps({"outputs": {**_sound(), "members": [[1.0], [1.0, 2.0]]}}),
    "no outputs": "{}",
    "a list": "[]",
    "outputs as a text": '{"outputs": "none"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_an_answer_of_other_types_is_malformed(name: str) -> None:
    with _server(_body(BODIES[name])) as port, pytest.raises(ServingError) as caught:
        _transport(port).predict(CHOICE, "serving_default", SIGNATURE, {"axial_t2": [b"x"]})
    assert caught.value.failure is ServingFailure.MALFORMED


METADATA = {
    "a version of 400 digits": {"version": 10**400},
    "a negative version": {"version": "-1"},
    "a version that is a list": {"version": []},
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_other_types_are_malformed(name: str) -> None:
    content = {"model_spec": METADATA[name], "metadata": {"signature_def": {"signature_def": {}}}}
    with _server(_body(json.dumps(content))) as port, pytest.raises(ServingError) as caught:
        _transport(port).read_model(CHOICE)
    assert caught.value.failure is ServingFailure.MALFORMED


@pytest.mark.parametrize(
    "signatures", [[], {"serving_default": 3}, {"serving_default": {"inputs": [], "outputs": 1}}]
)
def test_signatures_of_other_types_are_malformed(signatures: object) -> None:
    content = {
        "model_spec": {"version": "1"},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }
    with _server(_body(json.dumps(content))) as port, pytest.raises(ServingError) as caught:
        _transport(port).read_model(CHOICE)
    assert caught.value.failure is ServingFailure.MALFORMED


def _drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def _continue_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


def _drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("respond", [_drip_headers, _continue_for_ever, _drip_body])
def test_the_deadline_holds_for_every_part_of_a_response(
    respond: Callable[[socket.socket], None],
) -> None:
    with _server(respond) as port:
        started = time.monotonic()
        with pytest.raises(ServingError) as caught:
            _transport(port, deadline_s=1.0).read_model(CHOICE)
        assert time.monotonic() - started < 5.0
    assert caught.value.failure is ServingFailure.DEADLINE


def test_the_text_of_an_error_is_printable_and_short() -> None:
    text = json.dumps({"error": "no\x1b]0;title\x07\x1b[2J \u202edetrevni\r\n" + "x" * 10_000})
    with _server(_body(text, "400 Bad Request")) as port, pytest.raises(ServingError) as caught:
        _transport(port).read_model(CHOICE)
    assert caught.value.failure is ServingFailure.REFUSED
    assert str(caught.value).isprintable() and len(caught.value.details) <= 500


def _arrays(**changes: Any) -> dict[str, Any]:
    return {name: np.array(values) for name, values in {**_sound(), **changes}.items()}


def test_sound_outputs_and_missing_ones_are_accepted() -> None:
    check_outputs(_arrays(), num_studies=1)
    nan = np.full((1, 25, 3), np.nan)
    check_outputs(_arrays(landmarks=nan, members=nan[np.newaxis]), num_studies=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("landmarks", np.inf),
        ("landmarks", 1e30),
        ("landmarks", np.nan),
        ("members", np.inf),
        ("members", -0.1),
        ("members", 2.0),
        ("members", np.nan),
    ],
)
def test_one_number_that_is_none_is_refused(name: str, value: float) -> None:
    """A point or prediction is NaN as a whole where it is missing, never in part."""
    outputs = _arrays()
    outputs[name] = outputs[name].astype(float)
    outputs[name].flat[0] = value
    with pytest.raises(ValueError, match=f"the output {name} must hold numbers"):
        check_outputs(outputs, num_studies=1)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "9" * 5000])
def test_a_description_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_description(text)


class _Batching:
    """A server that computes the requests of a moment together, and refuses all of them for a bad one."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.asked: list[bytes] = []

    def read_model(self, choice: ModelChoice) -> ModelMetadata:
        return ModelMetadata(1, {"serving_default": SIGNATURE})

    def predict(self, choice: Any, name: str, signature: Any, inputs: Any) -> dict[str, Any]:
        study = inputs["axial_t2"][0]
        is_first = study not in self.asked
        self.asked.append(study)
        if is_first:
            self.barrier.wait(10.0)
        if is_first or study == b"bad":
            raise ServingError(ServingFailure.REFUSED, "a bad record", address="a", may_be_companions=True)
        return _arrays()

    def close(self) -> None:
        pass


def test_a_study_that_was_refused_for_its_companion_is_asked_again_alone() -> None:
    server = _Batching()
    options = ConnectionOptions(parse_address("grpc://localhost:1"))
    remote = RemoteEnsemble(server, options, CHOICE, RetryPolicy(attempts=3, first_wait_s=0.0))
    answers: dict[bytes, object] = {}

    def ask(study: bytes) -> None:
        try:
            answers[study] = remote.predict([{Plane.AXIAL_T2: study}])
        except ServingError as error:
            answers[study] = error.failure

    threads = [threading.Thread(target=ask, args=(study,)) for study in (b"good", b"bad")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert isinstance(answers[b"good"], dict)
    assert answers[b"bad"] is ServingFailure.REFUSED
    assert sorted(server.asked) == [b"bad", b"bad", b"good", b"good"]


@pytest.mark.parametrize("failure", [ServingFailure.REFUSED, ServingFailure.TOO_LARGE])
def test_what_no_companion_can_cause_is_not_asked_again(failure: ServingFailure) -> None:
    class Refusing(_Batching):
        def predict(self, choice: Any, name: str, signature: Any, inputs: Any) -> dict[str, Any]:
            self.asked.append(b"")
            raise ServingError(failure, "no permission", address="a")

    server = Refusing()
    options = ConnectionOptions(parse_address("grpc://localhost:1"))
    remote = RemoteEnsemble(server, options, CHOICE, RetryPolicy(attempts=3, first_wait_s=0.0))
    with pytest.raises(ServingError):
        remote.predict([{}])
    assert len(server.asked) == 1
