"""Retries of failed requests to model servers and DICOMweb archives, with exponential backoff."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Response = TypeVar("Response")


class RemoteError(ValueError):
    """A request to another system failed.

    Attributes:
        attempts: number of times the request was sent; set by `call_with_retries`.
        retry_after_s: wait that the other system demands before the next attempt, seconds.
    """

    attempts: int = 1
    retry_after_s: float = 0.0

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        raise NotImplementedError


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts and the waits between them.

    Attributes:
        attempts: including the first.
        first_wait_s: wait before the second attempt; doubles after each further one.
        max_wait_s: upper bound of the waits.
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
        """Returns the wait after a failed attempt, in seconds.

        Half of the wait is random, so that clients that failed together do not return together.

        Args:
            attempt: number of the failed attempt, 1 for the first.
            draw: random number from [0, 1).

        >>> RetryPolicy(first_wait_s=1.0).wait_s(3, 0.5)
        3.0
        """
        return min(self.first_wait_s * 2 ** (attempt - 1), self.max_wait_s) * (0.5 + draw / 2)


def call_with_retries(
    call: Callable[[], Response],
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
) -> Response:
    """Calls a function until it succeeds, its failure is not transient, or all attempts are used up.

    A failure that demands a longer wait than `policy.max_wait_s` is raised at once.

    Args:
        call: sends one request.
        policy: number of attempts and waits.
        sleep: waits for a number of seconds; what it raises ends the retries.
        draw: returns a random number from [0, 1).

    Returns:
        The first result.

    Raises:
        RemoteError: the error of the last attempt, with the number of attempts.
    """
    attempt = 1
    while True:
        try:
            return call()
        except RemoteError as error:
            error.attempts = attempt
            # A longer wait is the caller's, who may do something else meanwhile.
            is_soon = error.retry_after_s <= policy.max_wait_s
            if attempt == policy.attempts or not error.is_transient or not is_soon:
                raise
            demanded_s = error.retry_after_s
        sleep(max(policy.wait_s(attempt, draw()), demanded_s))
        attempt += 1
