"""What the watch needs of where studies come from and where results go to."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: More than this is no lumbar study; the largest that scanners make are some thousand images.
MAX_STUDY_INSTANCES = 20_000
MAX_STUDY_BYTES = 8 << 30

#: Says whether the program was asked to stop.
StopCheck = Callable[[], bool]


def never() -> bool:
    """A `StopCheck` of a program that only the system stops."""
    return False


@dataclass(frozen=True)
class FoundStudy:
    """A study, as a list shows it.

    Attributes:
        study_uid: StudyInstanceUID, fit to stand in a path.
        total: how many instances of any kind the study has; it changes whenever something is added.
            None where the archive does not say.
    """

    study_uid: str
    total: int | None


@dataclass(frozen=True)
class StudyOverview:
    """A study, looked at more closely.

    Attributes:
        num_images: instances in its series of modality MR, which our own results are not in.
        is_wanted: whether it is of the lumbar spine, by the rule that the source was made with.
    """

    num_images: int
    is_wanted: bool


@dataclass(frozen=True)
class FetchedStudy:
    """A study's images on this machine.

    Attributes:
        folder: holds nothing else.
        num_images: how many.
    """

    folder: Path
    num_images: int


class StudySource(Protocol):
    """Where studies come from. Failures are `PacsError` or OSError.

    Attributes:
        keeps_images: whether an image can be asked for again. Where not, `drop` is for good.
    """

    keeps_images: bool

    def find(self) -> Iterable[FoundStudy]:
        """Lists the studies that there may be something to do for."""

    def look(self, study_uid: str) -> StudyOverview:
        """Looks at one of them."""

    def fetch(self, study_uid: str, should_stop: StopCheck) -> AbstractContextManager[FetchedStudy]:
        """Lends a study's images.

        Raises:
            StoppedError: the program was asked to stop meanwhile.
        """

    def drop(self, study_uid: str) -> None:
        """Removes what this side still has of a study."""


class ResultSink(Protocol):
    """Where results go to. Failures are `PacsError`, or OSError where the file cannot be read."""

    def store(self, path: Path) -> None:
        """Stores a DICOM file, unless the other side says that it has it."""
