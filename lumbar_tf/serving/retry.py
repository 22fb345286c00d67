"""Retries of requests to model servers and DICOMweb archives."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lumbar_tf.serving.errors import RemoteError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts and the waits between them.

    Attributes:
        attempts: maximum number of attempts, the first one included.
        first_wait_s: wait before the second attempt, seconds; doubles with each further attempt.
        max_wait_s: longest wait, seconds.
    """

    attempts: int = 5
    first_wait_s: float = 0.5
    max_wait_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.first_wait_s <= self.max_wait_s:
            raise ValueError(
                "A retry policy must have at least 1 attempt and 0 <= first_wait_s <= max_wait_s. "
                f"Received: {self}."
            )

    def wait_s(self, attempt: int, draw: float) -> float:
        """Returns the wait after a failed attempt, seconds.

        Half of it is random, so that clients that failed together do not retry together.

        Args:
            attempt: number of the failed attempt, from 1.
            draw: uniform random number in [0, 1).

        >>> RetryPolicy(first_wait_s=1.0).wait_s(3, 0.5)
        3.0
        """
        return min(self.first_wait_s * 2 ** (attempt - 1), self.max_wait_s) * (0.5 + draw / 2)


def call_with_retries(
    call: Callable[[], Answer],
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
) -> Answer:
    """Calls until a result is returned, the failure is not transient, or the attempts are used up.

    Args:
        call: sends one request.
        policy: number of attempts and waits.
        sleep: waits so many seconds; may raise to stop.
        draw: returns the random number of `RetryPolicy.wait_s`.

    Raises:
        RemoteError: the last one, with the number of attempts.
    """
    attempt = 1
    while True:
        try:
            return call()
        except RemoteError as error:
            error.attempts = attempt
            if attempt == policy.attempts or not error.is_transient:
                raise
        sleep(policy.wait_s(attempt, draw()))
        attempt += 1
