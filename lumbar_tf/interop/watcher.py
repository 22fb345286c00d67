"""Watch of a study source: grades each study when it is complete and stores its results.

A study is graded again when images arrive later; the new report replaces the old one. Each step's outcome is
on the disk before the next step begins, so that a killed watch can be resumed. Results are on the disk before
a study is GRADED, and only the results of GRADED studies are stored, from those files. After a kill the same
files with the same UIDs are stored again, unless the archive reports that it has them.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from lumbar_tf.interop.interfaces import (
    FoundStudy,
    PacsError,
    PacsFault,
    ResultSink,
    StoppedError,
    StopSignal,
    StudySource,
    wait_unless_stopped,
)
from lumbar_tf.interop.study_grading import StudyGrader, store_results
from lumbar_tf.interop.watch_journal import NOT_INSPECTED, JournalEntry, WatchJournal, WatchState
from lumbar_tf.prediction.pipeline import NothingReadableError
from lumbar_tf.retry import RemoteError
from lumbar_tf.serving.transport import ServingError

_LOG = logging.getLogger(__name__)
#: Upper limit of a wait, seconds.
_MAX_WAIT_S = 1800.0
_MAX_DOUBLINGS = 16
#: A sender that stays connected delays a study no longer than this, seconds after its last image.
_MAX_ARRIVAL_S = 1800.0
#: A list is broken off when more studies than this cannot be inspected, one after the other.
_MAX_FAILED_INSPECTIONS = 2
_KILLED = "killed each time"
_OPEN_STATES = (WatchState.SEEN, WatchState.GRADING)


@dataclass(frozen=True)
class PollingPolicy:
    """Intervals and attempts of a watch.

    Attributes:
        every_s: seconds between polls, and before the second attempt; doubles up to half an hour.
        settle_s: a study is complete when no image has arrived for this time, seconds.
        attempts: number of failed attempts, of grading a study or storing its results, before it is FAILED.
        keep_s: seconds for which a source that cannot send images again keeps those of a graded study.
    """

    every_s: float = 30.0
    settle_s: float = 120.0
    attempts: int = 5
    keep_s: float = 7 * 86_400.0

    def wait_s(self, failures: int) -> float:
        """Returns the wait after a number of consecutive failures, seconds."""
        return min(self.every_s * 2.0 ** min(max(failures - 1, 0), _MAX_DOUBLINGS), _MAX_WAIT_S)


class Watch:
    """Watch of one source with one journal, which the caller has locked."""

    def __init__(
        self,
        source: StudySource,
        grader: StudyGrader,
        journal: WatchJournal,
        policy: PollingPolicy,
        *,
        sink: ResultSink | None = None,
        stop: StopSignal | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Creates the watch.

        Args:
            source: source of the studies.
            grader: grades a study.
            journal: states of the studies.
            policy: intervals and attempts.
            sink: receiver of the results; None to leave them on the disk.
            stop: ends the watch after the current step.
            now: clock, seconds since 1970.
        """
        self._source, self._grader, self._journal, self._policy = source, grader, journal, policy
        self._sink = sink
        self._now = now
        self._started_at = now()
        self.stop = stop or StopSignal()
        self._failed_polls, self._demanded_wait_s = 0, 0.0
        #: Consecutive studies of a poll that could not be inspected for now.
        self._failed_inspections = 0
        self._is_unavailable = False

    def reopen(self, *, with_failed: bool) -> None:
        """Reopens closed studies: graded ones if there is a sink now, and failed ones on request."""
        for entry in self._journal.entries(self._journal.closed_uids()):
            if entry.state is WatchState.FAILED and with_failed:
                self._write(entry.moved(WatchState.GRADED if entry.results else WatchState.SEEN))
            elif entry.state is WatchState.GRADED and entry.results and self._sink is not None:
                self._write(entry)

    def run(self, *, is_once: bool = False) -> bool:
        """Polls until the watch is stopped, or, with `is_once`, until all that is left must wait.

        Returns:
            Whether every study that was found reached its final state, and none failed; True if the watch was
            stopped without `is_once`.
        """
        failed_before = self._journal.num_failed() if is_once else 0
        while not self.stop.is_set:
            is_available = self.poll()
            if is_once and not self._is_waiting_for_images():
                has_failed = self._journal.num_failed() > failed_before
                return is_available and not has_failed and not self._journal.open_uids()
            with suppress(StoppedError):
                wait_unless_stopped(self._poll_wait_s(), self.stop)
        return not is_once

    def _poll_wait_s(self) -> float:
        return min(max(self._policy.wait_s(self._failed_polls), self._demanded_wait_s), _MAX_WAIT_S)

    def poll(self) -> bool:
        """Lists the studies once and processes those that are due.

        Returns:
            Whether source and sink were available.
        """
        self._failed_inspections = 0
        try:
            for found in self._source.find():
                if self.stop.is_set:
                    return True
                self._record_if_present(found)
        except StoppedError:
            return True
        except (PacsError, OSError) as error:
            self._failed_polls += 1
            if isinstance(error, PacsError):
                self._demanded_wait_s = error.retry_after_s
            _LOG.warning("no studies listed: %s; next attempt in %.0f s", error, self._poll_wait_s())
            return False
        if self._failed_polls:
            _LOG.info("studies are listed again")
        self._failed_polls, self._demanded_wait_s = 0, 0.0
        self._is_unavailable = False
        for study_uid in self._journal.open_uids():
            # The other studies would fail for the same reason, one after the other.
            if self.stop.is_set or self._is_unavailable:
                break
            self._process(study_uid)
        self._discard_old_images()
        return not self._is_unavailable

    def _record_if_present(self, found: FoundStudy) -> None:
        """Records a study; a failure is this study's, unless several follow each other."""
        try:
            self._record(found)
        except PacsError as error:
            if error.is_transient:
                self._failed_inspections += 1
                if self._failed_inspections > _MAX_FAILED_INSPECTIONS:
                    raise
            self._record_failure(found, error)
        else:
            self._failed_inspections = 0

    def _record_failure(self, found: FoundStudy, error: PacsError) -> None:
        """Records that a study could not be inspected; it may also have been deleted meanwhile."""
        entry = self._journal.read(found.study_uid)
        if entry is None:
            entry = JournalEntry(found.study_uid, WatchState.SEEN, NOT_INSPECTED, self._now(), found.total)
        if entry.state in _OPEN_STATES:
            self._fail(entry, str(error), error, step="inspecting")
        else:
            _LOG.warning("study %s: not inspected: %s", found.study_uid, error)

    def _record(self, found: FoundStudy) -> None:
        """Records a new study, or new images of a known one."""
        entry = self._journal.read(found.study_uid)
        if entry is not None and entry.state not in _OPEN_STATES:
            self._record_late_images(entry, found)
            return
        if entry is not None and not self._is_due(entry):
            return
        if entry is None or entry.num_images == NOT_INSPECTED:
            entry = self._record_new(found)
            if entry.state is WatchState.SEEN:
                _LOG.info("study %s: seen, %d images", entry.study_uid, entry.num_images)
            return
        num_images = self._source.inspect(found.study_uid).num_images
        if entry.num_images != num_images:
            self._write(self._with_images(replace(entry, total=found.total), num_images))

    def _record_new(self, found: FoundStudy) -> JournalEntry:
        overview = self._source.inspect(found.study_uid)
        state = WatchState.SEEN if overview.is_wanted else WatchState.PASSED_OVER
        return self._write(
            JournalEntry(found.study_uid, state, overview.num_images, self._now(), found.total)
        )

    def _with_images(self, entry: JournalEntry, num_images: int) -> JournalEntry:
        return replace(entry, state=WatchState.SEEN, num_images=num_images, changed_at=self._now())

    def _record_late_images(self, entry: JournalEntry, found: FoundStudy) -> None:
        """Reopens a study whose images arrived after it was graded, rejected, passed over or failed."""
        if not self._source.keeps_images:
            num_late = found.num_new
        elif found.total is None or found.total == entry.total:
            return
        elif entry.state is WatchState.PASSED_OVER:
            self._record_new(found)
            return
        else:
            num_late = self._source.inspect(entry.study_uid).num_images - entry.num_images
        entry = replace(entry, total=found.total)
        if num_late > 0:
            uid, late = entry.study_uid, entry.late_images + num_late
            _LOG.warning("study %s: %d images arrived late; it is graded again", uid, num_late)
            num_images = entry.num_images + num_late
            if not self._source.keeps_images:
                num_images = self._source.inspect(uid).num_images
            self._write(self._with_images(replace(entry.reopened(), late_images=late), num_images))
        elif self._source.keeps_images:
            self._journal.write(entry, is_closed=self._journal.is_closed(entry.study_uid))

    def _discard_old_images(self) -> None:
        """Removes the images of graded and rejected studies that a source has kept long enough."""
        finished = (WatchState.GRADED, WatchState.STORED, WatchState.REJECTED)
        for study_uid in self._source.kept_since(self._now() - self._policy.keep_s):
            entry = self._journal.read(study_uid)
            if entry is not None and entry.state in finished and self._journal.is_closed(study_uid):
                self._source.discard(study_uid)

    def _process(self, study_uid: str) -> None:
        """Grades a study that is complete, and stores its results."""
        entry = self._journal.read(study_uid)
        if entry is None or not self._is_due(entry):
            return
        if entry.changed_at > self._now():
            # The clock was set back; the study must not wait until it has caught up.
            self._write(replace(entry, changed_at=self._now()))
            return
        if entry.state is not WatchState.GRADED:
            if not self._is_complete(entry):
                return
            entry = self._attempt(entry, self._grade)
        if entry.state is WatchState.GRADED and self._sink is not None and not self.stop.is_set:
            self._attempt(entry, self._store)

    def _is_due(self, entry: JournalEntry) -> bool:
        """Returns whether an entry's next attempt is due; a wait that no failure sets had a wrong clock."""
        return not 0 < entry.next_attempt - self._now() <= _MAX_WAIT_S

    def _is_complete(self, entry: JournalEntry) -> bool:
        """Returns whether no further image of a study is to be expected.

        While the watch was away, nobody received images: senders try again some time after its start.
        """
        if self._source.keeps_images:
            is_settled = self._now() - entry.changed_at >= self._policy.settle_s
            return is_settled or entry.state is WatchState.GRADING
        quiet_s = self._now() - max(entry.changed_at, self._started_at)
        if quiet_s < self._policy.settle_s:
            return False
        return quiet_s >= _MAX_ARRIVAL_S or not self._source.is_arriving(entry.study_uid)

    def _attempt(self, entry: JournalEntry, step: Callable[[JournalEntry], JournalEntry]) -> JournalEntry:
        """Runs a step and writes its outcome. No error of a study ends the watch."""
        if entry.attempts >= self._policy.attempts:
            # The program was killed in the last attempt.
            _LOG.warning("study %s: failed, the program was killed each time", entry.study_uid)
            return self._write(replace(entry, state=WatchState.FAILED, reason=entry.reason or _KILLED))
        try:
            return step(entry)
        except StoppedError:
            return self._write(self._with_stored(entry))
        except NothingReadableError as error:
            reasons = ", ".join(error.reasons)
            _LOG.warning("study %s: rejected (%s)", entry.study_uid, reasons)
            return self._write(replace(entry, state=WatchState.REJECTED, reason=reasons))
        except PacsError as error:
            self._is_unavailable = error.is_transient
            return self._fail(entry, str(error), error)
        except ServingError as error:
            return self._fail(entry, str(error), error)
        except OSError as error:  # such as a full disk, which is no fault of the study
            return self._fail(entry, f"{type(error).__name__}: {error.strerror}", error)
        except Exception as error:
            # The next study must not depend on this one. The message may quote a header, so it is dropped.
            return self._fail(entry, type(error).__name__, error)

    def _with_stored(self, entry: JournalEntry) -> JournalEntry:
        """Returns an entry with the results that were stored before its step was interrupted."""
        written = self._journal.read(entry.study_uid)
        return replace(entry, stored=written.stored) if written else entry

    def _fail(
        self, entry: JournalEntry, message: str, error: Exception, *, step: str | None = None
    ) -> JournalEntry:
        """Records a failed step of a study, and when it is attempted again."""
        is_transient = error.is_transient if isinstance(error, RemoteError) else isinstance(error, OSError)
        attempts = entry.attempts + (not is_transient)
        waits = entry.waits + is_transient
        wait_s = self._policy.wait_s(waits if is_transient else attempts)
        if isinstance(error, RemoteError):
            wait_s = min(max(wait_s, error.retry_after_s), _MAX_WAIT_S)
        is_final = attempts >= self._policy.attempts
        is_graded = entry.state is WatchState.GRADED
        state = WatchState.GRADED if is_graded else WatchState.SEEN
        failed = replace(
            self._with_stored(entry),
            state=WatchState.FAILED if is_final else state,
            attempts=attempts,
            waits=waits,
            next_attempt=self._now() + wait_s,
            reason=f"{step or ('storing' if is_graded else 'grading')}: {message}",
        )
        outcome = "no attempts left" if is_final else f"next attempt in {wait_s:.0f} s"
        _LOG.warning("study %s: %s; %s", entry.study_uid, failed.reason, outcome)
        return self._write(failed)

    def _grade(self, entry: JournalEntry) -> JournalEntry:
        uid = entry.study_uid
        # Counted before the attempt, so that the attempts of a study that kills the program are limited.
        reason = f"grading: {_KILLED}"
        self._write(replace(entry, state=WatchState.GRADING, attempts=entry.attempts + 1, reason=reason))
        began = time.monotonic()
        with self._source.fetch(uid, self.stop) as fetched:
            num_images = fetched.num_images
            if self._source.keeps_images:
                # Images may have arrived since the last inspection and during the fetch.
                num_images = self._source.inspect(uid).num_images
            if num_images != entry.num_images:
                return self._write(self._with_images(entry, num_images))
            if num_images < entry.num_graded:
                message = f"{num_images} images, fewer than the {entry.num_graded} of its last grading"
                raise PacsError(PacsFault.ABSENT, f"study {uid} must be sent as a whole: {message}")
            fetched_s = time.monotonic() - began
            results = self._grader.grade(uid, fetched.folder, entry.replaced)
        graded = replace(entry.moved(WatchState.GRADED), results=results, num_graded=num_images)
        graded = self._write(graded)
        graded_s = time.monotonic() - began - fetched_s
        _LOG.info("study %s: graded (fetched in %.1f s, graded in %.1f s)", uid, fetched_s, graded_s)
        return graded

    def _store(self, entry: JournalEntry) -> JournalEntry:
        if self._sink is None:
            return entry
        folder = self._grader.folder(entry.study_uid)
        pending = [result for result in entry.results if result.sop_instance_uid not in entry.stored]
        for result in store_results(self._sink, folder, pending, should_stop=self.stop):
            entry = self._write(replace(entry, stored=(*entry.stored, result.sop_instance_uid)))
        _LOG.info("study %s: stored", entry.study_uid)
        return self._write(entry.moved(WatchState.STORED))

    def _write(self, entry: JournalEntry) -> JournalEntry:
        """Writes an entry, open if a step is left."""
        is_to_store = self._sink is not None and bool(entry.results)
        is_open = entry.state in _OPEN_STATES or (entry.state is WatchState.GRADED and is_to_store)
        self._journal.write(entry, is_closed=not is_open)
        return entry

    def _is_waiting_for_images(self) -> bool:
        """Returns whether a study only waits for its images to be complete."""
        entries = self._journal.entries(self._journal.open_uids())
        return any(
            not (entry.attempts or entry.waits) or entry.state is WatchState.GRADING for entry in entries
        )
