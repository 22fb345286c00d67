from collections.abc import Callable

import pytest

from lumbar_tf.retry import RetryPolicy, call_with_retries
from lumbar_tf.serving.transport import ServingError, ServingFailure

POLICY = RetryPolicy(attempts=4, first_wait_s=1.0, max_wait_s=3.0)


def _failing(*failures: ServingFailure) -> Callable[[], str]:
    left = list(failures)

    def call() -> str:
        if left:
            raise ServingError(left.pop(0), "details", address="grpc://here:1")
        return "answer"

    return call


def test_waits_double_up_to_the_longest_and_are_half_drawn() -> None:
    assert [POLICY.wait_s(attempt, 1.0) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, 3.0]
    assert [POLICY.wait_s(attempt, 0.0) for attempt in (1, 2, 3)] == [0.5, 1.0, 1.5]


def test_an_answer_after_failures_that_pass() -> None:
    waits: list[float] = []
    call = _failing(ServingFailure.UNAVAILABLE, ServingFailure.DEADLINE, ServingFailure.MALFORMED)
    assert call_with_retries(call, POLICY, sleep=waits.append, draw=lambda: 1.0) == "answer"
    assert waits == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("failures", "attempts"),
    [
        ([ServingFailure.OVERLOADED] * 9, 4),
        ([ServingFailure.REFUSED], 1),
        ([ServingFailure.TOO_LARGE], 1),
        ([ServingFailure.UNAVAILABLE, ServingFailure.REFUSED], 2),
    ],
)
def test_the_last_failure_is_raised_with_the_number_of_attempts(
    failures: list[ServingFailure], attempts: int
) -> None:
    with pytest.raises(ServingError, match=r"No response from grpc://here:1 .*: details") as caught:
        call_with_retries(_failing(*failures), POLICY, sleep=lambda seconds: None)
    assert (caught.value.failure, caught.value.attempts) == (failures[attempts - 1], attempts)


def test_what_is_no_serving_error_passes_through() -> None:
    def call() -> str:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        call_with_retries(call, POLICY)


def test_a_policy_without_an_attempt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 attempt"):
        RetryPolicy(attempts=0)


def test_a_short_wait_that_is_demanded_is_kept_and_a_long_one_is_left_to_the_caller() -> None:
    waits: list[float] = []
    left = [2.5, 60.0]

    def call() -> str:
        error = ServingError(ServingFailure.OVERLOADED, "details", address="grpc://here:1")
        error.retry_after_s = left.pop(0)
        raise error

    with pytest.raises(ServingError) as caught:
        call_with_retries(call, POLICY, sleep=waits.append, draw=lambda: 1.0)
    assert waits == [2.5] and caught.value.attempts == 2
