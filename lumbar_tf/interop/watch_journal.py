"""Journal of the watch: the state of each study in a small JSON file that is written atomically."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from lumbar_tf.dicom.identifiers import check_study_uid
from lumbar_tf.files import lock_file, remove_unfinished, write_text_atomically
from lumbar_tf.interop.output_formats import OutputFormat

_OPEN, _CLOSED, _LOCK = "open", "closed", "lock"
_SUFFIX = ".json"
#: Number of images of a study that could not be inspected yet.
NOT_INSPECTED = -1


class WatchState(Enum):
    """State of a study; the value is the one in its file."""

    #: Its images still arrive, or it waits for its turn or its next attempt.
    SEEN = "seen"
    #: It is being fetched and graded; at the start of a watch: the program was killed meanwhile.
    GRADING = "grading"
    #: Its results are on the disk, and still to be stored if there is a sink.
    GRADED = "graded"
    #: Its results are stored.
    STORED = "stored"
    #: It has no series that can be graded.
    REJECTED = "rejected"
    #: It does not match the study filter.
    PASSED_OVER = "passed_over"
    #: Its attempts are used up.
    FAILED = "failed"


@dataclass(frozen=True)
class ResultFile:
    """DICOM result to store.

    Attributes:
        sop_instance_uid: SOPInstanceUID.
        file: path relative to the folder of the study's results.
        series_uid: SeriesInstanceUID; "" in entries of older versions.
    """

    sop_instance_uid: str
    file: str
    series_uid: str = ""


@dataclass(frozen=True)
class JournalEntry:
    """Entry of a study.

    Attributes:
        study_uid: StudyInstanceUID.
        state: state of the study.
        num_images: number of MR images at the last inspection, or NOT_INSPECTED; from GRADING on the number
            of graded ones.
        changed_at: time when that number last changed, seconds since 1970.
        total: number of instances of any modality in the archive; None if the archive does not return it.
        attempts: number of attempts of the current step that failed or were killed.
        waits: number of consecutive failures without the study's fault, such as an unavailable archive.
        next_attempt: earliest time of the next attempt, seconds since 1970.
        reason: reason of the wait or of the final state; contains no header value.
        results: DICOM results to store.
        stored: UIDs of the results that are stored, those of earlier gradings included.
        late_images: number of images that arrived after the study was graded, for which it was graded again.
        num_graded: number of images of the last grading.
        replaced: reports of earlier gradings, which the next report replaces, oldest first.
    """

    study_uid: str
    state: WatchState
    num_images: int
    changed_at: float
    total: int | None = None
    attempts: int = 0
    waits: int = 0
    next_attempt: float = 0.0
    reason: str = ""
    results: tuple[ResultFile, ...] = ()
    stored: tuple[str, ...] = ()
    late_images: int = 0
    num_graded: int = 0
    replaced: tuple[ResultFile, ...] = ()

    def moved(self, state: WatchState) -> "JournalEntry":
        """Returns the entry in another state, without failures."""
        return replace(self, state=state, attempts=0, waits=0, next_attempt=0.0, reason="")

    def reopened(self) -> "JournalEntry":
        """Returns the entry of a study that is to be graded again.

        Its report counts as replaced also if it is not known to be stored: the answer may have been lost.
        """
        reports = [result for result in self.results if result.file.endswith(OutputFormat.SR.spec.suffix)]
        replaced = (*self.replaced, *(report for report in reports if report not in self.replaced))
        return replace(self.moved(WatchState.SEEN), results=(), replaced=replaced)

    def to_json(self) -> str:
        """Returns the content of the study's file."""
        return json.dumps({**asdict(self), "state": self.state.value}, indent=1)


class WatchJournal:
    """Entries of all studies in a folder.

    `open/` contains the studies with steps left, and is read at each poll; `closed/` contains the others, of
    which only single files are read. A study that a killed program left in both folders is closed.
    """

    def __init__(self, folder: Path) -> None:
        """Sets the folder, which `locked` and `write` create."""
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for the duration of a block; the lock also ends when the program is killed.

        Raises:
            ValueError: another program holds the lock.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        busy_message = f"{self._folder.parent} must have one watch at a time. Received: a second one."
        with lock_file(self._folder / _LOCK, busy_message=busy_message):
            for name in (_OPEN, _CLOSED):
                remove_unfinished(self._folder / name)
            for path in self._paths(_OPEN):
                if (self._folder / _CLOSED / path.name).exists():
                    path.unlink()
            yield

    def read(self, study_uid: str) -> JournalEntry | None:
        """Returns a study's entry; None if there is none.

        Raises:
            ValueError: the file is damaged. It is not replaced, as the study might then be graded twice.
        """
        for name in (_CLOSED, _OPEN):
            path = self._path(name, study_uid)
            if path.exists():
                return _read(path)
        return None

    def entries(self, study_uids: Iterable[str]) -> Iterator[JournalEntry]:
        """Yields the entries of studies that have one."""
        for study_uid in study_uids:
            entry = self.read(study_uid)
            if entry is not None:
                yield entry

    def write(self, entry: JournalEntry, *, is_closed: bool = False) -> None:
        """Writes an entry; the file is on the disk when this returns."""
        name, other = (_CLOSED, _OPEN) if is_closed else (_OPEN, _CLOSED)
        write_text_atomically(self._path(name, entry.study_uid), entry.to_json())
        self._path(other, entry.study_uid).unlink(missing_ok=True)

    def open_uids(self) -> list[str]:
        """Lists the studies with steps left, the ones with the oldest entry first."""
        paths = sorted(self._paths(_OPEN), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.name.removesuffix(_SUFFIX) for path in paths]

    def closed_uids(self) -> list[str]:
        """Lists the studies without steps left."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self._paths(_CLOSED))

    def count(self) -> Counter[WatchState]:
        """Counts the studies in each state."""
        return Counter(entry.state for entry in self.entries([*self.open_uids(), *self.closed_uids()]))

    def num_failed(self) -> int:
        """Counts the studies without attempts left."""
        return sum(entry.state is WatchState.FAILED for entry in self.entries(self.closed_uids()))

    def is_closed(self, study_uid: str) -> bool:
        """Returns whether no step is left for a study."""
        return self._path(_CLOSED, study_uid).exists()

    def _path(self, name: str, study_uid: str) -> Path:
        check_study_uid(study_uid)
        return self._folder / name / f"{study_uid}{_SUFFIX}"

    def _paths(self, name: str) -> list[Path]:
        return list((self._folder / name).glob(f"*{_SUFFIX}"))


def _read(path: Path) -> JournalEntry:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        results = tuple(ResultFile(**result) for result in content.pop("results"))
        replaced = tuple(ResultFile(**result) for result in content.pop("replaced", ()))
        stored = tuple(str(uid) for uid in content.pop("stored"))
        state = WatchState(content.pop("state"))
        return JournalEntry(**content, state=state, results=results, stored=stored, replaced=replaced)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{path} must be a valid journal entry. Received: a damaged file. "
            "Remove the file to grade the study again."
        ) from None
