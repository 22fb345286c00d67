"""In-memory source, grader, sink and journal that can be killed at any step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lumbar_tf.interop.interfaces import (
    FetchedStudy,
    FoundStudy,
    PacsError,
    PacsFault,
    StopCheck,
    StudyOverview,
)
from lumbar_tf.interop.watch_journal import JournalEntry, ResultFile, WatchJournal


class KilledError(BaseException):
    """Stand-in of SIGKILL; no handler catches it."""


@dataclass(eq=False)
class Fuse:
    """Raises `KilledError` at the n-th step, before or after its effect."""

    left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KilledError


@dataclass(eq=False)
class Source:
    """Archive with a number of images per study."""

    folder: Path
    images: dict[str, int]
    fuse: Fuse = field(default_factory=Fuse)
    unwanted: frozenset[str] = frozenset()
    fault: PacsFault | None = None
    fetched: list[str] = field(default_factory=list)
    results: int = 0
    keeps_images: bool = True
    #: Sources without an archive: images that were not fetched yet, connected senders, kept images.
    new: dict[str, int] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)
    kept: dict[str, float] = field(default_factory=dict)
    discarded: list[str] = field(default_factory=list)

    def find(self) -> Iterator[FoundStudy]:
        self._check()
        for uid, count in list(self.images.items()):
            yield FoundStudy(uid, count + self.results, self.new.get(uid, 0))

    def inspect(self, study_uid: str) -> StudyOverview:
        self._check()
        self.fuse.burn()
        return StudyOverview(self.images[study_uid], study_uid not in self.unwanted)

    @contextmanager
    def fetch(self, study_uid: str, should_stop: StopCheck) -> Iterator[FetchedStudy]:
        self._check()
        self.fuse.burn()
        self.fetched.append(study_uid)
        self.new.pop(study_uid, None)
        yield FetchedStudy(self.folder, self.images[study_uid])

    def is_arriving(self, study_uid: str) -> bool:
        return study_uid in self.sending

    def kept_since(self, time_s: float) -> Iterator[str]:
        return (uid for uid, kept_s in list(self.kept.items()) if kept_s < time_s)

    def discard(self, study_uid: str) -> None:
        self.fuse.burn()
        self.kept.pop(study_uid)
        self.discarded.append(study_uid)

    def _check(self) -> None:
        if self.fault is not None:
            raise PacsError(self.fault, "as the test has it")


@dataclass(eq=False)
class Grader:
    """Grader that writes two files per study, or fails."""

    out: Path
    fuse: Fuse = field(default_factory=Fuse)
    errors: dict[str, Exception] = field(default_factory=dict)
    graded: list[str] = field(default_factory=list)
    replaced: list[tuple[ResultFile, ...]] = field(default_factory=list)
    deadly: str = ""
    suffix: str = ""

    def folder(self, study_uid: str) -> Path:
        return self.out / study_uid

    def grade(
        self, study_uid: str, images: Path, replaced: tuple[ResultFile, ...] = ()
    ) -> tuple[ResultFile, ...]:
        self.fuse.burn()
        if study_uid == self.deadly:
            raise KilledError
        if study_uid in self.errors:
            raise self.errors[study_uid]
        self.folder(study_uid).mkdir(parents=True, exist_ok=True)
        names = {"1": "1.sr.dcm", "2": "2.sc.dcm"}
        results = tuple(ResultFile(f"{study_uid}.{kind}{self.suffix}", name) for kind, name in names.items())
        for result in results:
            (self.folder(study_uid) / result.file).write_text(result.sop_instance_uid)
        self.graded.append(study_uid)
        self.replaced.append(replaced)
        self.fuse.burn()
        return results


@dataclass(eq=False)
class Sink:
    """Archive that keeps every instance once."""

    fuse: Fuse = field(default_factory=Fuse)
    sent: list[str] = field(default_factory=list)
    fault: PacsFault | None = None

    def store(self, path: Path) -> None:
        self.fuse.burn()
        if self.fault is not None:
            raise PacsError(self.fault, "as the test has it")
        uid = path.read_text()
        if uid not in self.sent:
            self.sent.append(uid)
        self.fuse.burn()


class FusedJournal(WatchJournal):
    """Journal that can be killed before and after a write."""

    fuse: Fuse

    def write(self, entry: JournalEntry, *, is_closed: bool = False) -> None:
        self.fuse.burn()
        super().write(entry, is_closed=is_closed)
        self.fuse.burn()
