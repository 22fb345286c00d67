"""Asking again, and how long to wait before."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lumbar_tf.serving.errors import ServingError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and when to ask again.

    Attributes:
        attempts: the first one included.
        first_wait_s: before the second attempt; doubles with each.
        max_wait_s: no wait is longer.
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
        """Returns how long to wait after an attempt that failed, seconds.

        Half of it is drawn, so that clients that failed together do not come back together.

        Args:
            attempt: 1 for the first.
            draw: from [0, 1).

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
    """Calls until there is an answer, the failure is not transient, or the attempts are used up.

    Raises:
        ServingError: the last one, with the number of attempts.
    """
    attempt = 1
    while True:
        try:
            return call()
        except ServingError as error:
            if attempt == policy.attempts or not error.failure.is_transient:
                raise ServingError(
                    error.failure, error.said, address=error.address, attempts=attempt
                ) from error
        sleep(policy.wait_s(attempt, draw()))
        attempt += 1
