"""Grades what arrives, once each: rounds over a source, with every step's outcome on disk before the next.

A kill at any moment leaves an entry that says what was under way. Results are on disk before a study is
GRADED, and only GRADED ones are stored, from those files: after a kill the same files, with the same UIDs,
are offered again, and an archive that has them is asked first.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from lumbar_tf.interop.interfaces import FoundStudy, ResultSink, StudySource
from lumbar_tf.interop.pacs_errors import PacsError, PacsFault, StoppedError
from lumbar_tf.interop.polling_policy import PollingPolicy
from lumbar_tf.interop.stop_signal import StopSignal
from lumbar_tf.interop.study_grading import StudyGrader
from lumbar_tf.interop.watch_journal import JournalEntry, WatchJournal, WatchState
from lumbar_tf.prediction.pipeline import NothingReadableError
from lumbar_tf.serving.errors import ServingError

_LOG = logging.getLogger(__name__)


class Watch:
    """The work on one worklist; the worklist is locked by the caller."""

    def __init__(
        self,
        source: StudySource,
        grader: StudyGrader,
        worklist: WatchJournal,
        pace: PollingPolicy,
        *,
        sink: ResultSink | None = None,
        stop: StopSignal | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Takes the parts.

        Args:
            source: where studies come from.
            grader: what grades them.
            worklist: what became of them.
            pace: how often.
            sink: where results go; None to leave them on disk.
            stop: ask it to have the work end after the present step.
            now: the clock, seconds since 1970.
        """
        self._source, self._grader, self._worklist, self._pace = source, grader, worklist, pace
        self._sink = sink
        self._now = now
        self.stop = stop or StopSignal()
        self._failures = 0
        self._is_away = False

    def reopen(self, *, with_failed: bool) -> None:
        """Takes up closed studies again: graded ones where there is a sink now, and failed ones if asked."""
        for study_uid in self._worklist.closed_uids():
            entry = self._worklist.read(study_uid)
            if entry is None:
                continue
            is_due = entry.state is WatchState.GRADED and entry.results and self._sink is not None
            if entry.state is WatchState.FAILED and with_failed:
                state = WatchState.GRADED if entry.results else WatchState.SEEN
                entry = replace(entry, state=state, attempts=0, waits=0, next_attempt=0.0, reason="")
                is_due = True
            if is_due:
                self._write(entry)

    def run(self, *, is_once: bool = False) -> bool:
        """Works until it is stopped, or, with `is_once`, until nothing is left that need not wait.

        Returns:
            Whether every study that was found came to its end, and none failed; True where it was stopped
            without `is_once`.
        """
        failed_before = self._num_failed() if is_once else 0
        while not self.stop.is_asked:
            is_reached = self.round()
            if is_once and not self._is_waiting_for_images():
                has_failed = self._num_failed() > failed_before
                return is_reached and not has_failed and not self._worklist.open_uids()
            self.stop.wait(self._pace.wait_s(self._failures))
        return not is_once

    def round(self) -> bool:
        """Looks for studies once, and takes each that is due a step further, as far as it goes.

        Returns:
            Whether the source answered.
        """
        try:
            for found in self._source.find():
                if self.stop.is_asked:
                    return True
                self._note_if_possible(found)
        except StoppedError:
            return True
        except (PacsError, OSError) as error:
            self._failures += 1
            _LOG.warning("no studies listed: %s; next in %.0f s", error, self._pace.wait_s(self._failures))
            return False
        if self._failures:
            _LOG.info("studies are listed again")
        self._failures = 0
        self._is_away = False
        for study_uid in self._worklist.open_uids():
            # The others would wait in vain for the same archive, one after the other.
            if self.stop.is_asked or self._is_away:
                break
            self._advance(study_uid)
        return not self._is_away

    def _note_if_possible(self, found: FoundStudy) -> None:
        try:
            self._note(found)
        except PacsError as error:
            if error.fault.is_transient:
                raise
            # It may have been deleted meanwhile; the other studies have nothing to do with it.
            _LOG.warning("study %s: not looked at: %s", found.study_uid, error)

    def _note(self, found: FoundStudy) -> None:
        """Enters a study that is new, or of which more has come."""
        entry = self._worklist.read(found.study_uid)
        if entry is not None and entry.state not in (WatchState.SEEN, WatchState.GRADING):
            if not self._source.keeps_images:
                self._discard_late(entry)
            elif found.total is not None and found.total != entry.total:
                self._note_late(entry, found)
            return
        if entry is not None and entry.next_attempt > self._now():
            return
        overview = self._source.look(found.study_uid)
        if entry is None:
            state = WatchState.SEEN if overview.is_wanted else WatchState.PASSED_OVER
            entry = JournalEntry(found.study_uid, state, overview.num_images, self._now(), found.total)
            if state is WatchState.SEEN:
                _LOG.info("study %s: seen, %d images", entry.study_uid, entry.num_images)
            self._write(entry)
        elif entry.num_images != overview.num_images:
            self._write(
                replace(
                    entry,
                    state=WatchState.SEEN,
                    num_images=overview.num_images,
                    changed_at=self._now(),
                    total=found.total,
                )
            )

    def _note_late(self, entry: JournalEntry, found: FoundStudy) -> None:
        """Notes images that came after a study was graded; it is not graded again."""
        overview = self._source.look(entry.study_uid)
        if entry.state is WatchState.PASSED_OVER:
            state = WatchState.SEEN if overview.is_wanted else WatchState.PASSED_OVER
            self._write(JournalEntry(entry.study_uid, state, overview.num_images, self._now(), found.total))
            return
        self._enter_late(replace(entry, total=found.total), overview.num_images - entry.num_images)

    def _discard_late(self, entry: JournalEntry) -> None:
        """Likewise, where images cannot be asked for again: those that come alone are of no use."""
        uid = entry.study_uid
        if entry.state is WatchState.FAILED:
            return  # what it has may be tried again
        self._source.drop(uid)
        late = self._source.look(uid).num_images
        if late:
            with self._source.fetch(uid, self.stop):
                self._enter_late(entry, entry.late_images + late)
            self._source.drop(uid)

    def _enter_late(self, entry: JournalEntry, late: int) -> None:
        if late > 0 and late != entry.late_images:
            _LOG.warning("study %s: %d images came after it was graded", entry.study_uid, late)
        self._worklist.write(
            replace(entry, late_images=max(late, 0)), is_closed=self._worklist.is_closed(entry.study_uid)
        )

    def _advance(self, study_uid: str) -> None:
        entry = self._worklist.read(study_uid)
        if entry is None or entry.next_attempt > self._now():
            return
        if entry.changed_at > self._now():
            # A clock that was set back must not hold a study until it has caught up.
            self._write(replace(entry, changed_at=self._now()))
            return
        if entry.state is not WatchState.GRADED:
            age_s = self._now() - entry.changed_at
            if entry.state is WatchState.SEEN and age_s < self._pace.settle_s:
                return
            entry = self._attempt(entry, self._grade)
        if entry.state is WatchState.GRADED and self._sink is not None and not self.stop.is_asked:
            self._attempt(entry, self._store)

    def _attempt(self, entry: JournalEntry, step: Callable[[JournalEntry], JournalEntry]) -> JournalEntry:
        """Takes a step; whatever comes of it is written, and no study's error ends the watch."""
        if entry.attempts >= self._pace.attempts:
            # The last attempt never came to its end: the program died in it.
            _LOG.warning("study %s: given up, the program was killed each time", entry.study_uid)
            return self._write(
                replace(entry, state=WatchState.FAILED, reason=entry.reason or "killed each time")
            )
        try:
            return step(entry)
        except StoppedError:
            return self._write(self._with_stored(entry))
        except NothingReadableError as error:
            reasons = ", ".join(error.reasons)
            _LOG.warning("study %s: rejected (%s)", entry.study_uid, reasons)
            return self._write(replace(entry, state=WatchState.REJECTED, reason=reasons))
        except PacsError as error:
            self._is_away = error.fault.is_transient
            return self._fail(entry, str(error), is_transient=error.fault.is_transient)
        except ServingError as error:
            return self._fail(entry, str(error), is_transient=error.failure.is_transient)
        except OSError as error:  # a full disk says nothing of the study
            return self._fail(entry, f"{type(error).__name__}: {error.strerror}", is_transient=True)
        except Exception as error:
            # Anything may come of a study, and the next one must not wait for it. Its message may quote a
            # header, so it is not kept.
            return self._fail(entry, type(error).__name__, is_transient=False)

    def _with_stored(self, entry: JournalEntry) -> JournalEntry:
        """Returns an entry with what was stored before its step broke off, which is on disk."""
        known = self._worklist.read(entry.study_uid)
        return replace(entry, stored=known.stored) if known else entry

    def _fail(self, entry: JournalEntry, said: str, *, is_transient: bool) -> JournalEntry:
        attempts = entry.attempts + (not is_transient)
        waits = entry.waits + is_transient
        wait_s = self._pace.wait_s(waits if is_transient else attempts)
        is_over = attempts >= self._pace.attempts
        step = "storing" if entry.state is WatchState.GRADED else "grading"
        failed = replace(
            self._with_stored(entry),
            state=WatchState.FAILED
            if is_over
            else entry.state
            if entry.state is WatchState.GRADED
            else WatchState.SEEN,
            attempts=attempts,
            waits=waits,
            next_attempt=self._now() + wait_s,
            reason=f"{step}: {said}",
        )
        after = "given up" if is_over else f"next in {wait_s:.0f} s"
        _LOG.warning("study %s: %s; %s", entry.study_uid, failed.reason, after)
        return self._write(failed)

    def _grade(self, entry: JournalEntry) -> JournalEntry:
        uid = entry.study_uid
        # Counted before it begins, so that a study that kills the program is not tried for ever.
        self._write(
            replace(
                entry,
                state=WatchState.GRADING,
                attempts=entry.attempts + 1,
                reason="grading: killed each time",
            )
        )
        began = time.monotonic()
        with self._source.fetch(uid, self.stop) as fetched:
            # More may have come since it was last looked at, and while it was fetched.
            num_images = (
                self._source.look(uid).num_images if self._source.keeps_images else fetched.num_images
            )
            if num_images != entry.num_images:
                state = replace(entry, state=WatchState.SEEN, num_images=num_images, changed_at=self._now())
                return self._write(state)
            fetched_s = time.monotonic() - began
            results = self._grader.grade(uid, fetched.folder)
        graded = replace(
            entry, state=WatchState.GRADED, attempts=0, waits=0, next_attempt=0.0, reason="", results=results
        )
        self._write(graded)
        self._source.drop(uid)
        graded_s = time.monotonic() - began - fetched_s
        _LOG.info("study %s: graded (fetched %.1f s, graded %.1f s)", uid, fetched_s, graded_s)
        return graded

    def _store(self, entry: JournalEntry) -> JournalEntry:
        sink = self._sink
        if sink is None:
            return entry
        folder = self._grader.folder(entry.study_uid)
        for each in entry.results:
            if each.sop_instance_uid in entry.stored:
                continue
            if self.stop.is_asked:
                raise StoppedError
            if not (folder / each.file).is_file():
                raise PacsError(PacsFault.ABSENT, f"{each.file} is no longer there")
            sink.store(folder / each.file)
            entry = self._write(replace(entry, stored=(*entry.stored, each.sop_instance_uid)))
        stored = replace(entry, state=WatchState.STORED, attempts=0, waits=0, next_attempt=0.0, reason="")
        _LOG.info("study %s: stored", entry.study_uid)
        return self._write(stored)

    def _write(self, entry: JournalEntry) -> JournalEntry:
        is_to_store = self._sink is not None and bool(entry.results)
        is_open = entry.state in (WatchState.SEEN, WatchState.GRADING) or (
            entry.state is WatchState.GRADED and is_to_store
        )
        self._worklist.write(entry, is_closed=not is_open)
        if entry.state is WatchState.REJECTED:
            self._source.drop(entry.study_uid)
        return entry

    def _is_waiting_for_images(self) -> bool:
        """Whether a study only waits for its images to be complete."""
        entries = [self._worklist.read(each) for each in self._worklist.open_uids()]
        return any(each is not None and not (each.attempts or each.waits) for each in entries)

    def _num_failed(self) -> int:
        entries = (self._worklist.read(each) for each in self._worklist.closed_uids())
        return sum(each is not None and each.state is WatchState.FAILED for each in entries)
