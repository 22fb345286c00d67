"""Both protocols against stand-ins for the server: same answers, named errors."""

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.labels import Plane
from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions, ServerProtocol, parse_address
from lumbar_tf.serving.remote import RemoteEnsemble, connect
from lumbar_tf.serving.training_data import TrainingData
from lumbar_tf.serving.transport import ModelChoice, ServingError, ServingFailure
from tests.serving.faults import Fault
from tests.serving.stand_in_models import FakeModel, Outputs, Signature
from tests.serving.stand_in_rest import RestStandIn

#: Bytes of every value, as pixels have.
PIXELS = bytes(range(256)) * 40
STUDIES: list[dict[Plane, bytes]] = [
    {plane: plane.value.encode() + PIXELS for plane in Plane},
    {Plane.SAGITTAL_T2: b"\0\xff alone"},
    {},
]
Start = Callable[..., Any]
Reach = Callable[..., RemoteEnsemble]


def _expected(model: FakeModel, study: dict[Plane, bytes]) -> Outputs:
    return model.answer(*(study.get(plane, b"") for plane in Plane))


@pytest.mark.parametrize("has_gzip", [False, True])
def test_a_batch_is_answered_bit_for_bit(start: Start, reach: Reach, has_gzip: bool) -> None:
    model = FakeModel()
    stand_in = start(model)
    remote = reach(stand_in, has_gzip=has_gzip)
    outputs = remote.predict(STUDIES)
    for place, study in enumerate(STUDIES):
        for name, expected in _expected(model, study).items():
            assert outputs[name].dtype == expected.dtype
            np.testing.assert_array_equal(outputs[name][place], expected)
    assert remote.members == model.members
    assert remote.description == model.description
    if isinstance(stand_in, RestStandIn):
        assert ("gzip" in stand_in.encodings) == has_gzip
    else:
        assert (stand_in.proxy.num_sent < len(PIXELS)) == has_gzip


def test_saliency_comes_bit_for_bit_where_it_is_wanted_and_there(start: Start, reach: Reach) -> None:
    model = FakeModel(has_saliency=True)
    remote = reach(start(model))
    explained = remote.predict(STUDIES, with_saliency=True)
    for place, study in enumerate(STUDIES):
        row = _expected(model, study)
        for name, expected in {**row, **model.explain(row)}.items():
            np.testing.assert_array_equal(explained[name][place], expected)
    assert "saliency" not in remote.predict(STUDIES)
    # An export of before has none, and answers without.
    assert "saliency" not in reach(start(FakeModel())).predict(STUDIES, with_saliency=True)


def test_a_signature_that_explains_in_another_way_is_refused(start: Start, reach: Reach) -> None:
    model = FakeModel(has_saliency=True)
    grade, explain = (model.signatures[name] for name in ("serving_default", "saliency"))
    model.signatures["saliency"] = Signature(explain.inputs, grade.outputs)
    with pytest.raises(ServingError, match="saliency must have the outputs"):
        reach(start(model))


def test_maps_of_another_shape_or_below_0_are_no_answer(start: Start, reach: Reach) -> None:
    class Odd(FakeModel):
        change = staticmethod(lambda maps: maps)

        def explain(self, row: Outputs) -> Outputs:
            given = super().explain(row)
            return {**given, "saliency": self.change(given["saliency"])}

    model = Odd(has_saliency=True)
    remote = reach(start(model), policy=RetryPolicy(attempts=1))
    for change, said in (
        (lambda maps: maps[0], "saliency must be of shape"),
        (lambda maps: maps[:, :24], "saliency must be of shape"),
        (lambda maps: maps - 1, "saliency must hold finite numbers of at least 0"),
    ):
        model.change = change
        with pytest.raises(ServingError, match=said) as caught:
            remote.predict(STUDIES, with_saliency=True)
        assert caught.value.failure is ServingFailure.MALFORMED


def test_the_version_that_answered_first_is_asked_from_then_on(start: Start, reach: Reach) -> None:
    model = FakeModel()
    stand_in = start(model, labels={"stable": 7})
    remotes = [reach(stand_in), reach(stand_in, choice=ModelChoice("lumbar", label="stable"))]
    for remote in remotes:
        assert remote.version == "7"
        remote.predict(STUDIES[:1])
    model.version = 8
    for remote in remotes:
        with pytest.raises(ServingError, match="not found") as caught:
            remote.predict(STUDIES[:1])
        assert caught.value.failure is ServingFailure.REFUSED
    assert reach(stand_in).version == "8"


def test_an_unknown_model_version_or_label_is_what_the_server_says_it_is(start: Start, reach: Reach) -> None:
    stand_in = start(FakeModel())
    for choice in (ModelChoice("other"), ModelChoice("lumbar", 3), ModelChoice("lumbar", label="canary")):
        with pytest.raises(ServingError, match=r"127\.0\.0\.1:\d+ \(refused, 1 attempt\)"):
            reach(stand_in, choice=choice)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"findings": ["knee"]}, "its findings must be"),
        ({"flags": ["no_sagittal_t1"]}, "its flags must be"),
        ({"record_schema_version": "3.0.0"}, "schema"),
        ({"members": "one"}, "its members must be"),
    ],
)
def test_a_model_of_another_layout_is_refused(
    start: Start, reach: Reach, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ServingError, match=said) as caught:
        reach(start(FakeModel(**change)))
    assert caught.value.failure is ServingFailure.REFUSED


def test_another_teams_model_is_refused(start: Start, reach: Reach) -> None:
    model = FakeModel()
    grade = model.signatures["serving_default"]
    del model.signatures["serving_default"]
    stand_in = start(model)
    with pytest.raises(ServingError, match="must have the signature serving_default"):
        reach(stand_in)
    model.signatures["serving_default"] = Signature(grade.inputs, {"logits": grade.outputs["members"]})
    with pytest.raises(ServingError, match="must have the outputs"):
        reach(stand_in)


def test_an_export_without_a_description_is_asked_too(start: Start, reach: Reach) -> None:
    model = FakeModel()
    del model.signatures["describe"]
    remote = reach(start(model))
    assert remote.members == ()
    assert remote.description == {}
    assert remote.training == TrainingData()
    assert remote.predict(STUDIES)["members"].shape == (3, 2, 25, 3)


def test_the_training_data_are_those_of_the_description(start: Start, reach: Reach) -> None:
    remote = reach(start(FakeModel(training={"data": "", "is_synthetic": True})))
    assert remote.training == TrainingData(is_synthetic=True)
    with pytest.raises(ServingError, match="not an ensemble of lumbar_tf: its training must"):
        reach(start(FakeModel(training={"data": "a\x1b[2J", "is_synthetic": False})))


def test_an_export_from_before_there_were_intervals_is_asked_too(
    start: Start, reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = FakeModel.answer

    def without(model: FakeModel, *examples: bytes) -> dict[str, np.ndarray]:
        return {name: value for name, value in answer(model, *examples).items() if name != "interval"}

    monkeypatch.setattr(FakeModel, "answer", without)
    model = FakeModel()
    del model.signatures["serving_default"].outputs["interval"]
    assert "interval" not in reach(start(model)).predict(STUDIES)


def test_an_interval_that_is_no_number_is_refused(start: Start, reach: Reach) -> None:
    model = FakeModel()
    model.signatures["serving_default"].outputs["interval"] = tf.string
    with pytest.raises(ServingError, match="must return interval as DT_FLOAT"):
        reach(start(model))


def test_a_question_that_is_too_large_is_not_sent(start: Start, reach: Reach) -> None:
    stand_in = start(FakeModel())
    remote = reach(stand_in, max_request_bytes=5000)
    with pytest.raises(ServingError, match="at most 5000 bytes") as caught:
        remote.predict(STUDIES[:1])
    assert (caught.value.failure, caught.value.attempts) == (ServingFailure.TOO_LARGE, 1)
    assert not stand_in.attempts.counts
    remote.predict(STUDIES[1:])


def test_answers_and_questions_over_grpcs_four_mebibytes_pass(start: Start, reach: Reach) -> None:
    model = FakeModel()
    large = {Plane.SAGITTAL_T1: PIXELS * 800}
    remote = reach(start(model))
    outputs = remote.predict([large])
    np.testing.assert_array_equal(outputs["probability"][0], _expected(model, large)["probability"])
    assert len(PIXELS) * 800 > 4 << 20


@pytest.mark.parametrize(
    ("fault", "failure", "attempts"),
    [
        (Fault.UNAVAILABLE, ServingFailure.UNAVAILABLE, 3),
        (Fault.EXHAUSTED, ServingFailure.OVERLOADED, 3),
        (Fault.RESET, ServingFailure.UNAVAILABLE, 3),
        (Fault.TRUNCATED, ServingFailure.MALFORMED, 3),
        (Fault.TIMEOUT, ServingFailure.DEADLINE, 3),
        (Fault.OVERSIZED, ServingFailure.TOO_LARGE, 1),
        (Fault.REFUSED, ServingFailure.REFUSED, 1),
    ],
)
def test_what_may_pass_is_asked_again_and_the_rest_is_not(
    start: Start, reach: Reach, fault: Fault, failure: ServingFailure, attempts: int
) -> None:
    stand_in = start(FakeModel(), plan=lambda study, attempt: fault, stall_s=0.6)
    remote = reach(
        stand_in,
        policy=RetryPolicy(attempts=3, first_wait_s=0.05, max_wait_s=0.1),
        deadline_s=0.5,
        max_response_bytes=1 << 18,
    )
    with pytest.raises(ServingError) as caught:
        remote.predict(STUDIES[:1])
    error = caught.value
    assert (error.failure, error.attempts) == (failure, attempts)
    assert f"127.0.0.1:{stand_in.client_port} ({failure.value}" in str(error)
    if fault in (Fault.UNAVAILABLE, Fault.EXHAUSTED, Fault.REFUSED):
        said = {
            Fault.UNAVAILABLE: "The batch scheduling queue is full",
            Fault.EXHAUSTED: "OOM when allocating tensor",
            Fault.REFUSED: "Could not parse example input",
        }
        assert said[fault] in error.details


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"probability": np.zeros((25, 3), np.float32)}, "probabilities that sum to 1"),
        ({"competition": np.full((25, 3), np.nan, np.float32)}, "probabilities that sum to 1"),
        ({"landmarks": np.zeros((24, 3), np.float32)}, r"landmarks must be of shape \[1, 25, 3\]"),
        ({"prediction_set": np.zeros((25, 2), bool)}, r"prediction_set must be of shape \[1, 25, 3\]"),
        ({"prediction_set": np.tile([True, False, True], (25, 1))}, "sets of grades without a gap"),
        ({"interval": np.zeros((25, 3), np.float32)}, r"interval must be of shape \[1, 25, 3, 2\]"),
        ({"interval": np.full((25, 3, 2), 2.0, np.float32)}, "bounds around the output probability"),
        ({"interval": np.full((25, 3, 2), [0.0, np.nan], np.float32)}, "bounds around the output"),
    ],
)
def test_what_is_no_answer_becomes_no_finding(
    start: Start, reach: Reach, change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = FakeModel.answer
    monkeypatch.setattr(FakeModel, "answer", lambda self, *examples: {**answer(self, *examples), **change})
    remote = reach(start(FakeModel()), policy=RetryPolicy(attempts=2, first_wait_s=0.0))
    with pytest.raises(ServingError, match=said) as caught:
        remote.predict(STUDIES[:1])
    assert (caught.value.failure, caught.value.attempts) == (ServingFailure.MALFORMED, 2)


def test_more_members_than_the_description_names_are_no_answer(start: Start, reach: Reach) -> None:
    remote = reach(start(FakeModel(members=["alone"])), policy=RetryPolicy(attempts=1))
    with pytest.raises(ServingError, match=r"members must be of shape \[1, 1, 25, 3\]"):
        remote.predict(STUDIES[:1])


def test_nobody_listening_is_unavailable_at_once(wire: ServerProtocol) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    scheme = "http" if wire is ServerProtocol.REST else "grpc"
    options = ConnectionOptions(parse_address(f"{scheme}://127.0.0.1:{port}"))
    with pytest.raises(ServingError, match="refused") as caught:
        connect(options, ModelChoice("lumbar"), RetryPolicy(attempts=2, first_wait_s=0.01))
    assert (caught.value.failure, caught.value.attempts) == (ServingFailure.UNAVAILABLE, 2)
    assert caught.value.address == f"{scheme}://127.0.0.1:{port}"


@pytest.mark.parametrize("wire", [ServerProtocol.REST], ids=["rest"])
def test_a_proxys_path_and_a_page_of_its_own_are_understood(start: Start, reach: Reach) -> None:
    model = FakeModel()
    stand_in = start(model, prefix="/spine")
    remote = reach(stand_in, path="/spine/")
    np.testing.assert_array_equal(
        remote.predict(STUDIES[:1])["flags"][0], _expected(model, STUDIES[0])["flags"]
    )
    with pytest.raises(ServingError, match="HTTP 404"):
        reach(stand_in)
