"""Interfaces between the watch and a PACS: study source, result sink, failures and stop signal."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Protocol

from lumbar_tf.retry import RemoteError

#: Upper limits of a study; the largest lumbar studies that scanners make have some thousand images.
MAX_STUDY_INSTANCES = 20_000
MAX_STUDY_BYTES = 8 << 30
_STOP_POLL_S = 0.2

#: Returns whether the program was asked to stop.
StopCheck = Callable[[], bool]


def never() -> bool:
    """A `StopCheck` that never stops."""
    return False


class PacsFault(Enum):
    """Kind of a failed request to a PACS. The value appears in the watch journal and in messages."""

    #: No listener, a broken connection, or a PACS that reports that it cannot serve now.
    UNAVAILABLE = "unavailable"
    #: No response in time.
    TIMEOUT = "timeout"
    #: Too many requests.
    OVERLOADED = "overloaded"
    #: Missing or wrong credentials, or missing permission.
    DENIED = "denied"
    #: No such study or image.
    ABSENT = "absent"
    #: The PACS refused the request or failed internally.
    REFUSED = "refused"
    #: The response has another type, is truncated or cannot be read.
    MALFORMED = "malformed"
    #: The response exceeds a limit.
    TOO_LARGE = "too_large"

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later without intervention."""
        return self in _TRANSIENT


_TRANSIENT = frozenset({PacsFault.UNAVAILABLE, PacsFault.TIMEOUT, PacsFault.OVERLOADED})


class PacsError(RemoteError):
    """A request to a PACS failed.

    Attributes:
        fault: kind of the failure.
        message: description without the kind.
    """

    def __init__(self, fault: PacsFault, message: str) -> None:
        """Creates the error; `message` contains no secret, and no header value but UIDs."""
        self.fault = fault
        self.message = " ".join(message.split())
        super().__init__(f"{self.message} ({fault.value})")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later without intervention."""
        return self.fault.is_transient


class StoppedError(Exception):
    """The program was asked to stop while it waited."""


class StopSignal:
    """Flag that a signal handler sets once; a `StopCheck`.

    Not a `threading.Event`: the thread that a signal interrupts may hold the event's lock.

    Attributes:
        is_set: whether the program was asked to stop.
    """

    def __init__(self) -> None:
        """Creates an unset flag."""
        self.is_set = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: the first one sets the flag, the second one ends the program immediately.

        Raises:
            KeyboardInterrupt: this is the second signal.
        """
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True

    def __call__(self) -> bool:
        """Returns `is_set`."""
        return self.is_set


def wait_unless_stopped(seconds: float, should_stop: StopCheck) -> None:
    """Waits.

    Raises:
        StoppedError: the program was asked to stop before the time was over.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if should_stop():
            raise StoppedError
        time.sleep(min(left, _STOP_POLL_S))


@dataclass(frozen=True)
class FoundStudy:
    """Entry of a list of studies.

    Attributes:
        study_uid: StudyInstanceUID, safe as a file name.
        total: number of instances of any modality; changes with each added instance. None if the archive
            does not return it.
        num_new: number of images that were received since the study was last fetched; 0 for an archive.
    """

    study_uid: str
    total: int | None
    num_new: int = 0


@dataclass(frozen=True)
class StudyOverview:
    """Series-level properties of a study.

    Attributes:
        num_images: number of instances in its MR series, which exclude the package's own results.
        is_wanted: whether the study matches the source's `StudyFilter`.
    """

    num_images: int
    is_wanted: bool


@dataclass(frozen=True)
class FetchedStudy:
    """Local copy of a study's images.

    Attributes:
        folder: folder that contains the images and nothing else.
        num_images: number of images.
    """

    folder: Path
    num_images: int


class StudySource(Protocol):
    """Source of studies. Its methods raise `PacsError` or OSError.

    Attributes:
        keeps_images: whether images can be fetched again. If not, `discard` is final, and `num_new` of a
            study counts its late images.
    """

    keeps_images: bool

    def find(self) -> Iterable[FoundStudy]:
        """Lists the studies that may have to be graded."""

    def inspect(self, study_uid: str) -> StudyOverview:
        """Counts the images of a study and applies the filter."""

    def fetch(self, study_uid: str, should_stop: StopCheck) -> AbstractContextManager[FetchedStudy]:
        """Provides a study's images as local files for the duration of a block.

        Raises:
            StoppedError: the program was asked to stop meanwhile.
        """

    def is_arriving(self, study_uid: str) -> bool:
        """Returns whether a sender of the study's images is still connected."""

    def kept_since(self, time_s: float) -> Iterable[str]:
        """Lists the studies whose fetched images are kept since before a time, seconds since 1970."""

    def discard(self, study_uid: str) -> None:
        """Removes the fetched images of a study; images that arrived later stay."""


class ResultSink(Protocol):
    """Receiver of results. Its methods raise `PacsError`, or OSError if the file cannot be read."""

    def store(self, path: Path) -> None:
        """Stores a DICOM file unless the receiver reports that it has it."""
