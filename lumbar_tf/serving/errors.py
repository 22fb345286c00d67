"""What can go wrong between a question and its answer."""

from enum import Enum


class ServingFailure(Enum):
    """Why there is no answer. The value is what tables and messages name."""

    #: Nobody listens, the connection broke, or the server said that it cannot serve now.
    UNAVAILABLE = "unavailable"
    #: No answer within the deadline.
    DEADLINE = "deadline"
    #: The server is out of some resource, such as places in its queue.
    OVERLOADED = "overloaded"
    #: What came is no answer: cut off, of other shapes, or not readable.
    MALFORMED = "malformed"
    #: The question or the answer is larger than a side takes.
    TOO_LARGE = "too_large"
    #: The server refused: no such model, a wrong input, no permission, or an error of the model.
    REFUSED = "refused"
    #: Others remained without an answer, so this one was not asked.
    NOT_ASKED = "not_asked"

    @property
    def is_transient(self) -> bool:
        """Whether the same question may be answered later.

        Grading has no side effect, so asking again is safe whatever became of the first question.
        """
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {ServingFailure.UNAVAILABLE, ServingFailure.DEADLINE, ServingFailure.OVERLOADED, ServingFailure.MALFORMED}
)


class ServingError(ValueError):
    """A question without an answer.

    Attributes:
        failure: what kind.
        said: what the server, or the library that talks to it, said.
        address: where it was asked.
        attempts: how often.
    """

    def __init__(self, failure: ServingFailure, said: str, *, address: str, attempts: int = 1) -> None:
        """Takes what is known; the message is made of it."""
        self.failure = failure
        self.said = " ".join(said.split())
        self.address = address
        self.attempts = attempts
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(f"{address} gave no answer ({failure.value}, asked {times}): {self.said}")
