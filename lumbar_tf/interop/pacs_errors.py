"""What can go wrong between this program and an archive."""

from enum import Enum

from lumbar_tf.serving.errors import RemoteError


class PacsFault(Enum):
    """Why an archive did not do what it was asked. The value is what states and messages name."""

    #: Nobody listens, the connection broke, or the archive said that it cannot serve now.
    UNAVAILABLE = "unavailable"
    #: No answer in time.
    TIMEOUT = "timeout"
    #: Too many requests.
    OVERLOADED = "overloaded"
    #: No user, the wrong one, or one without this right.
    DENIED = "denied"
    #: The archive has no such study or image.
    ABSENT = "absent"
    #: The archive refused, or failed inside.
    REFUSED = "refused"
    #: What came is no answer: of another type, cut off, not readable.
    MALFORMED = "malformed"
    #: More than is read.
    TOO_LARGE = "too_large"

    @property
    def is_transient(self) -> bool:
        """Whether the same request may be answered later, without anybody mending anything."""
        return self in _TRANSIENT


_TRANSIENT = frozenset({PacsFault.UNAVAILABLE, PacsFault.TIMEOUT, PacsFault.OVERLOADED})


class PacsError(RemoteError):
    """An archive did not do what it was asked.

    Attributes:
        fault: what kind.
    """

    def __init__(self, fault: PacsFault, said: str) -> None:
        """Takes what is known; `said` holds no value of a header but UIDs, and no secret."""
        self.fault = fault
        super().__init__(f"{' '.join(said.split())} ({fault.value})")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.fault.is_transient


class StoppedError(Exception):
    """The program was asked to stop while it waited."""
