"""200 questions from 8 threads while connections break, the server stalls, refuses, and answers nonsense."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from lumbar_tf.labels import Plane
from lumbar_tf.serving.remote import predict_in_order
from lumbar_tf.serving.transport import ServingError, ServingFailure
from tests.serving.faults import Fault
from tests.serving.stand_in_models import FakeModel, Outputs

NUM_STUDIES, NUM_THREADS = 200, 8
#: By the study's number modulo 10: what goes wrong at the first attempt, or (last two) at each.
ONCE = {0: Fault.UNAVAILABLE, 1: Fault.RESET, 2: Fault.TRUNCATED, 3: Fault.EXHAUSTED, 4: Fault.TIMEOUT}
ALWAYS = {5: Fault.OVERSIZED, 6: Fault.UNAVAILABLE}
NAMED = {5: ServingFailure.TOO_LARGE, 6: ServingFailure.UNAVAILABLE}


def _plan(study: bytes, attempt: int) -> Fault:
    kind = int(study.split(b"#")[1]) % 10
    if kind in ALWAYS:
        return ALWAYS[kind]
    return ONCE.get(kind, Fault.NONE) if attempt == 1 else Fault.NONE


def test_every_study_ends_once_with_its_own_answer_or_a_named_error(
    start: Callable[..., Any], reach: Callable[..., Any]
) -> None:
    model = FakeModel()
    stand_in = start(model, plan=_plan, stall_s=0.7)
    remote = reach(stand_in, deadline_s=0.4, max_response_bytes=1 << 18)
    studies = [{Plane.AXIAL_T2: f"study #{number}# ".encode() * 50} for number in range(NUM_STUDIES)]

    def ask(study: dict[Plane, bytes]) -> dict[str, np.ndarray] | ServingError:
        try:
            return remote.predict([study])
        except ServingError as error:
            return error

    ended = list(predict_in_order(iter(studies), ask, max_in_flight=NUM_THREADS))
    assert [study for study, _ in ended] == studies
    kinds: Counter[str] = Counter()
    for number, (study, answer) in enumerate(ended):
        if isinstance(answer, ServingError):
            # A study that is asked well may be unlucky with resets of others' making, eight times over.
            expected = NAMED.get(number % 10, ServingFailure.UNAVAILABLE)
            assert answer.failure is expected, f"study {number}: {answer}"
            assert answer.details and answer.address
            kinds[answer.failure.value] += 1
            continue
        assert number % 10 not in NAMED
        right: Outputs = model.answer(*(study.get(plane, b"") for plane in Plane))
        for name, value in right.items():
            np.testing.assert_array_equal(answer[name][0], value)
        kinds["right"] += 1
    assert kinds["right"] + sum(kinds[failure.value] for failure in ServingFailure) == NUM_STUDIES
    # The faults were there, and those that pass did not stop anybody.
    assert kinds["too_large"] == 20
    assert kinds["right"] >= NUM_STUDIES - 40 - 3
    asked = stand_in.attempts.counts
    assert len(asked) == NUM_STUDIES
    assert all(count > 1 for study, count in asked.items() if int(study.split(b"#")[1]) % 10 in ONCE)
