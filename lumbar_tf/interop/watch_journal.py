"""What became of each study, on disk: one small JSON file a study, which appears whole or not at all."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lumbar_tf.dicom.uids import check_study_uid
from lumbar_tf.files import lock_file, remove_unfinished, write_text_atomically

_OPEN, _CLOSED, _LOCK = "open", "closed", "lock"
_SUFFIX = ".json"


class WatchState(Enum):
    """Where a study is; the value is what its file says."""

    #: Known; its images still come, or it waits for its turn or its next attempt.
    SEEN = "seen"
    #: Being fetched and graded; found at a start it means that the program was killed there.
    GRADING = "grading"
    #: Its results are on disk, and still to be stored where somebody takes them.
    GRADED = "graded"
    #: Its results are stored.
    STORED = "stored"
    #: It has no series that can be graded.
    REJECTED = "rejected"
    #: Not of the lumbar spine, by the rule.
    PASSED_OVER = "passed_over"
    #: Its attempts are used up.
    FAILED = "failed"


@dataclass(frozen=True)
class ResultFile:
    """A DICOM file to store.

    Attributes:
        sop_instance_uid: its UID.
        file: its place below the study's folder.
    """

    sop_instance_uid: str
    file: str


@dataclass(frozen=True)
class JournalEntry:
    """A study's place in the work.

    Attributes:
        study_uid: StudyInstanceUID.
        state: where it is.
        num_images: MR images when it was last looked at, and from GRADING on those that were graded.
        changed_at: when that number last changed, seconds since 1970.
        total: the archive's number of instances of any kind, None where it does not tell.
        attempts: of this step that ended in an error, or never ended.
        waits: failures in a row that say nothing of the study, such as an archive that is away.
        next_attempt: not before, seconds since 1970.
        reason: why it waits or has come to its end; no value of a header.
        results: what is to be stored.
        stored: UIDs of those that are.
        late_images: images that came after it was graded.
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

    def to_json(self) -> str:
        """Returns the text of its file."""
        return json.dumps({**asdict(self), "state": self.state.value}, indent=1)


class WatchJournal:
    """All studies' entries, below a folder.

    `open/` holds those that there is something to do for, and is read whole again and again; `closed/` holds
    the rest, and is only asked for single studies. An entry that a kill left in both is closed.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder; it is made where it is not there."""
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other programs off the folder for as long as the block runs; a kill ends that too.

        Raises:
            ValueError: another program has it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        busy_message = (
            f"{self._folder.parent} must have one watch at a time. Received: another one runs there."
        )
        with lock_file(self._folder / _LOCK, busy_message=busy_message):
            for name in (_OPEN, _CLOSED):
                remove_unfinished(self._folder / name)
            for path in self._paths(_OPEN):
                if (self._folder / _CLOSED / path.name).exists():
                    path.unlink()
            yield

    def read(self, study_uid: str) -> JournalEntry | None:
        """Returns a study's entry; None where there is none.

        Raises:
            ValueError: its file is damaged. It is never guessed at: a study could be graded twice.
        """
        for name in (_CLOSED, _OPEN):
            path = self._path(name, study_uid)
            if path.exists():
                return _read(path)
        return None

    def write(self, entry: JournalEntry, *, is_closed: bool = False) -> None:
        """Writes an entry; it is on the disk when this returns."""
        name, other = (_CLOSED, _OPEN) if is_closed else (_OPEN, _CLOSED)
        write_text_atomically(self._path(name, entry.study_uid), entry.to_json())
        self._path(other, entry.study_uid).unlink(missing_ok=True)

    def open_uids(self) -> list[str]:
        """Lists the studies that there is something to do for, those that came first at the front."""
        paths = sorted(self._paths(_OPEN), key=lambda each: (each.stat().st_mtime_ns, each.name))
        return [each.name.removesuffix(_SUFFIX) for each in paths]

    def closed_uids(self) -> list[str]:
        """Lists the other studies."""
        return sorted(each.name.removesuffix(_SUFFIX) for each in self._paths(_CLOSED))

    def count(self) -> Counter[WatchState]:
        """Counts the studies in each state."""
        entries = (self.read(each) for each in (*self.open_uids(), *self.closed_uids()))
        return Counter(each.state for each in entries if each is not None)

    def is_closed(self, study_uid: str) -> bool:
        """Whether there is nothing left to do for a study."""
        return self._path(_CLOSED, study_uid).exists()

    def _path(self, name: str, study_uid: str) -> Path:
        check_study_uid(study_uid)
        return self._folder / name / f"{study_uid}{_SUFFIX}"

    def _paths(self, name: str) -> list[Path]:
        return list((self._folder / name).glob(f"*{_SUFFIX}"))


def _read(path: Path) -> JournalEntry:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        results = tuple(ResultFile(**each) for each in content.pop("results"))
        stored = tuple(str(each) for each in content.pop("stored"))
        return JournalEntry(
            **{**content, "state": WatchState(content["state"])}, results=results, stored=stored
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{path} must hold a study's state as it was written. Received: something else. "
            "Remove the file to have the study graded anew."
        ) from None
