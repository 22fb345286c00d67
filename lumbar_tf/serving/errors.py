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


class RemoteError(ValueError):
    """A request to another system failed.

    Attributes:
        attempts: number of times the request was sent; set by `retry.call_with_retries`.
    """

    attempts: int = 1

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        raise NotImplementedError


class ServingError(RemoteError):
    """A model server returned no result.

    Attributes:
        failure: kind of the failure.
        said: message of the server or of the client library.
        address: address of the server.
        attempts: number of times the request was sent.
    """

    def __init__(self, failure: ServingFailure, said: str, *, address: str, attempts: int = 1) -> None:
        """Creates the error; the message is composed of the arguments."""
        self.failure = failure
        self.said = " ".join(said.split())
        self.address = address
        self.attempts = attempts
        super().__init__(failure, self.said, address)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.failure.is_transient

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return f"{self.address} gave no answer ({self.failure.value}, asked {times}): {self.said}"
