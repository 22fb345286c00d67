"""Watch over stand-ins: failures, kills at every step, late images and stop signals."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lumbar_tf.interop.interfaces import PacsError, PacsFault, StudyOverview
from lumbar_tf.interop.watch_journal import JournalEntry, ResultFile, WatchJournal, WatchState
from lumbar_tf.interop.watcher import PollingPolicy, Watch
from lumbar_tf.prediction.pipeline import NothingReadableError
from lumbar_tf.serving.transport import ServingError, ServingFailure
from tests.interop.stand_ins import Fuse, FusedJournal, Grader, KilledError, Sink, Source

FIRST, SECOND = "1.2.1", "1.2.2"
POLICY = PollingPolicy(every_s=10.0, settle_s=60.0, attempts=3)


@dataclass(eq=False)
class Bench:
    """Watch over stand-ins with a manual clock."""

    folder: Path
    images: dict[str, int] = field(default_factory=lambda: {FIRST: 4, SECOND: 6})
    has_sink: bool = True
    time_s: float = 1000.0
    fuse: Fuse = field(default_factory=Fuse)

    def __post_init__(self) -> None:
        self.source = Source(self.folder, self.images, self.fuse)
        self.grader = Grader(self.folder / "out", self.fuse)
        self.sink = Sink(self.fuse)

    def start(self) -> Watch:
        """Returns a watch as in a new process, with the state on the disk only."""
        journal = FusedJournal(self.folder / "out" / ".watch")
        journal.fuse = self.fuse
        sink = self.sink if self.has_sink else None
        return Watch(self.source, self.grader, journal, POLICY, sink=sink, now=lambda: self.time_s)  # type: ignore[arg-type]

    def rounds(self, count: int, watch: Watch | None = None) -> Watch:
        watch = watch or self.start()
        for _ in range(count):
            watch.poll()
            self.time_s += 61.0
        return watch

    def entry(self, study_uid: str = FIRST) -> JournalEntry:
        entry = WatchJournal(self.folder / "out" / ".watch").read(study_uid)
        assert entry is not None
        return entry


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_study_is_graded_once_and_stored_once(bench: Bench) -> None:
    watch = bench.rounds(1)
    assert bench.grader.graded == [] and bench.entry().state is WatchState.SEEN
    bench.rounds(5, watch)
    assert sorted(bench.grader.graded) == [FIRST, SECOND]
    assert sorted(bench.sink.sent) == sorted(f"{uid}.{kind}" for uid in (FIRST, SECOND) for kind in "12")
    assert bench.entry().state is WatchState.STORED
    bench.rounds(3)  # a new process
    assert len(bench.grader.graded) == 2 and len(bench.sink.sent) == 4


def test_a_kill_at_any_step_loses_nothing_and_stores_nothing_twice(tmp_path: Path) -> None:
    step, was_killed = 0, True
    while was_killed:
        bench = Bench(tmp_path / str(step), fuse=Fuse(step))
        bench.folder.mkdir()
        try:
            bench.rounds(6)
            was_killed = False
        except KilledError:
            bench.fuse.left = None
            bench.time_s += 61.0
            watch = bench.start()
            with WatchJournal(bench.folder / "out" / ".watch").locked():
                watch.reopen(with_failed=False)
                bench.rounds(6, watch)
        for uid in (FIRST, SECOND):
            assert bench.entry(uid).state is WatchState.STORED, step
            # A stored study is never graded again.
            assert bench.grader.graded.count(uid) <= 2
        assert sorted(bench.sink.sent) == [f"{uid}.{kind}" for uid in (FIRST, SECOND) for kind in "12"], step
        step += 1
    assert step > 30


def test_a_study_is_graded_when_no_image_has_arrived_for_the_settle_time(bench: Bench) -> None:
    watch = bench.rounds(1)
    bench.images[FIRST] = 9
    bench.rounds(1, watch)
    assert bench.grader.graded == [SECOND]
    bench.rounds(1, watch)
    assert bench.grader.graded == [SECOND, FIRST] and bench.entry().num_images == 9


def test_a_study_waits_again_when_images_arrive_during_the_fetch(bench: Bench) -> None:
    bench.images = bench.source.images = {FIRST: 4}
    watch = bench.rounds(1)
    inspections: list[int] = []
    inspect = bench.source.inspect

    def inspect_later(study_uid: str) -> StudyOverview:
        inspections.append(1)
        if len(inspections) == 2:  # the inspection after the fetch
            bench.images[FIRST] = 5
        return inspect(study_uid)

    bench.source.inspect = inspect_later  # type: ignore[method-assign]
    bench.rounds(1, watch)
    assert (
        bench.grader.graded == [] and bench.entry().state is WatchState.SEEN and bench.entry().attempts == 0
    )
    bench.rounds(2, watch)
    assert bench.grader.graded == [FIRST] and bench.entry().num_images == 5


def test_late_images_reopen_a_study_and_own_results_do_not(bench: Bench) -> None:
    watch = bench.rounds(3)
    bench.source.results = 2  # own results, which change the archive's total
    bench.rounds(1, watch)
    assert bench.entry().late_images == 0 and bench.grader.graded == [FIRST, SECOND]
    bench.images[FIRST] += 3
    bench.grader.suffix = ".7"
    bench.rounds(1, watch)
    assert bench.entry().state is WatchState.SEEN and bench.grader.graded == [FIRST, SECOND]
    bench.rounds(2, watch)
    entry = bench.entry()
    assert (entry.state, entry.late_images, entry.num_graded) == (WatchState.STORED, 3, 7)
    assert bench.grader.graded == [FIRST, SECOND, FIRST]
    # The new report replaces the first one, and is stored besides it.
    assert [result.sop_instance_uid for result in bench.grader.replaced[-1]] == [f"{FIRST}.1"]
    assert bench.sink.sent[-2:] == [f"{FIRST}.1.7", f"{FIRST}.2.7"]
    bench.rounds(3)
    assert bench.grader.graded == [FIRST, SECOND, FIRST]


def test_results_with_the_same_uids_are_not_stored_again(bench: Bench) -> None:
    watch = bench.rounds(3)
    bench.images[FIRST] += 1  # a localizer, say, which changes no number
    bench.rounds(3, watch)
    assert bench.grader.graded == [FIRST, SECOND, FIRST] and len(bench.sink.sent) == 4
    assert bench.entry().state is WatchState.STORED


@pytest.mark.parametrize("error", [NothingReadableError(Path("here"), ["no_slices"]), RuntimeError()])
def test_late_images_reopen_a_study_that_was_rejected_or_failed(bench: Bench, error: Exception) -> None:
    bench.grader.errors[FIRST] = error
    watch = bench.rounds(8)
    assert bench.entry().state in (WatchState.REJECTED, WatchState.FAILED)
    del bench.grader.errors[FIRST]
    bench.images[FIRST] += 1
    bench.rounds(3, watch)
    assert bench.entry().state is WatchState.STORED


def _receiver(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, images={FIRST: 30})
    bench.source.keeps_images = False
    bench.source.new = {FIRST: 30}
    return bench


def test_a_receiver_that_was_away_waits_for_the_senders_again(tmp_path: Path) -> None:
    bench = _receiver(tmp_path)
    bench.rounds(1)
    bench.time_s += 1000.0  # away
    watch = bench.rounds(1)
    assert bench.grader.graded == []
    bench.images[FIRST] = 47
    bench.rounds(1, watch)
    assert bench.grader.graded == []
    bench.rounds(1, watch)
    assert bench.grader.graded == [FIRST] and bench.entry().num_graded == 47


def test_a_study_is_not_graded_while_its_sender_is_connected(tmp_path: Path) -> None:
    bench = _receiver(tmp_path)
    bench.source.sending = {FIRST}
    watch = bench.rounds(20)
    assert bench.grader.graded == []
    bench.source.sending = set()
    bench.rounds(1, watch)
    assert bench.grader.graded == [FIRST]


def test_a_sender_that_stays_connected_delays_a_study_for_half_an_hour(tmp_path: Path) -> None:
    bench = _receiver(tmp_path)
    bench.source.sending = {FIRST}
    bench.rounds(29)
    assert bench.grader.graded == []
    bench.rounds(31)
    assert bench.grader.graded == [FIRST]


def test_late_received_images_are_graded_together_with_the_kept_ones(tmp_path: Path) -> None:
    bench = _receiver(tmp_path)
    watch = bench.rounds(2)
    assert bench.entry().num_graded == 30 and bench.source.discarded == []
    bench.source.new, bench.images[FIRST] = {FIRST: 17}, 47
    bench.rounds(3, watch)
    entry = bench.entry()
    assert (entry.state, entry.num_graded, entry.late_images) == (WatchState.STORED, 47, 17)


def test_kept_images_are_removed_after_their_time_and_a_part_of_a_study_is_not_graded(tmp_path: Path) -> None:
    bench = _receiver(tmp_path)
    bench.source.kept = {FIRST: bench.time_s}
    watch = bench.rounds(2)
    assert bench.source.discarded == []
    bench.time_s += POLICY.keep_s
    bench.rounds(1, watch)
    assert bench.source.discarded == [FIRST]
    bench.source.new, bench.images[FIRST] = {FIRST: 17}, 17
    bench.rounds(9, watch)
    assert bench.grader.graded == [FIRST] and bench.entry().state is WatchState.FAILED
    assert "17 images, fewer than the 30" in bench.entry().reason
    bench.source.new, bench.images[FIRST] = {FIRST: 13}, 30
    bench.rounds(3, watch)
    assert bench.grader.graded == [FIRST, FIRST] and bench.entry().state is WatchState.STORED


def test_an_unavailable_archive_costs_no_attempt(bench: Bench) -> None:
    watch = bench.rounds(1)
    bench.source.fault = PacsFault.UNAVAILABLE
    assert [watch.poll() for _ in range(5)] == [False] * 5
    bench.source.fault = None
    bench.rounds(1, watch)
    bench.sink.fault = PacsFault.TIMEOUT
    bench.source.images["1.2.3"] = 1
    bench.rounds(8, watch)
    assert bench.entry().state is WatchState.STORED
    third = bench.entry("1.2.3")
    assert (third.state, third.attempts) == (WatchState.GRADED, 0) and third.waits > 1
    assert third.next_attempt > bench.time_s - 61.0
    assert third.reason == "storing: as the test has it (timeout)"
    bench.sink.fault = None
    bench.rounds(40)
    assert bench.entry("1.2.3").state is WatchState.STORED and bench.grader.graded.count("1.2.3") == 1


def test_an_unavailable_archive_ends_the_poll(bench: Bench) -> None:
    watch = bench.rounds(1)
    bench.sink.fault = PacsFault.UNAVAILABLE
    assert not bench.rounds(0, watch).poll()
    assert len(bench.grader.graded) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Doe^Jane is in this message"),
        PacsError(PacsFault.MALFORMED, "cut off"),
        ServingError(ServingFailure.REFUSED, "no", address="grpc://here:1"),
    ],
)
def test_a_study_fails_after_its_attempts_and_the_next_one_is_graded(bench: Bench, error: Exception) -> None:
    bench.grader.errors[FIRST] = error
    bench.rounds(8)
    assert (bench.entry().state, bench.entry().attempts) == (WatchState.FAILED, 3)
    assert "Doe" not in bench.entry().to_json()
    assert bench.entry(SECOND).state is WatchState.STORED
    assert bench.source.fetched.count(FIRST) == 3
    del bench.grader.errors[FIRST]
    watch = bench.start()
    watch.reopen(with_failed=False)
    bench.rounds(2, watch)
    assert bench.entry().state is WatchState.FAILED
    watch.reopen(with_failed=True)
    bench.rounds(1, watch)
    assert bench.entry().state is WatchState.STORED


def test_a_study_that_kills_the_program_fails_after_its_attempts(bench: Bench) -> None:
    bench.rounds(1)
    for _ in range(POLICY.attempts):
        bench.grader.deadly = FIRST
        with pytest.raises(KilledError):
            bench.rounds(1)
        bench.time_s += 61.0
    bench.rounds(2)
    assert bench.entry().state is WatchState.FAILED and bench.entry().reason == "grading: killed each time"
    assert bench.entry(SECOND).state is WatchState.STORED


def test_a_study_without_a_usable_series_is_rejected_and_not_fetched_again(bench: Bench) -> None:
    bench.grader.errors[FIRST] = NothingReadableError(Path("here"), ["not_lumbar", "localizer"])
    bench.rounds(6)
    assert bench.entry().state is WatchState.REJECTED and bench.entry().reason == "not_lumbar, localizer"
    assert bench.source.fetched.count(FIRST) == 1


def test_a_study_that_does_not_match_is_passed_over_until_images_are_added(bench: Bench) -> None:
    bench.source.unwanted = frozenset({FIRST})
    watch = bench.rounds(3)
    assert bench.entry().state is WatchState.PASSED_OVER and FIRST not in bench.source.fetched
    bench.source.unwanted = frozenset()
    bench.images[FIRST] += 1
    bench.rounds(3, watch)
    assert bench.entry().state is WatchState.STORED


def test_studies_graded_without_a_sink_are_stored_by_a_watch_with_one(bench: Bench) -> None:
    bench.has_sink = False
    bench.rounds(3)
    assert bench.entry().state is WatchState.GRADED and bench.sink.sent == []
    bench.has_sink = True
    watch = bench.start()
    watch.reopen(with_failed=False)
    bench.rounds(1, watch)
    assert bench.entry().state is WatchState.STORED and len(bench.grader.graded) == 2


def test_removed_results_make_a_study_fail(bench: Bench) -> None:
    watch = bench.rounds(1)
    bench.sink.fault = PacsFault.UNAVAILABLE
    bench.rounds(1, watch)
    (bench.grader.folder(FIRST) / "1.sr.dcm").unlink()
    bench.sink.fault = None
    bench.rounds(8, watch)
    assert bench.entry().state is WatchState.FAILED and "1.sr.dcm no longer exists" in bench.entry().reason


def test_a_deleted_study_does_not_stop_the_others(bench: Bench) -> None:
    watch = bench.rounds(1)
    inspect = bench.source.inspect

    def inspect_without(study_uid: str) -> StudyOverview:
        if study_uid == FIRST:
            raise PacsError(PacsFault.ABSENT, "gone")
        return inspect(study_uid)

    bench.source.inspect = inspect_without  # type: ignore[method-assign]
    bench.rounds(3, watch)
    assert bench.entry(SECOND).state is WatchState.STORED and bench.entry().attempts > 0


def test_once_returns_whether_every_study_was_finished(tmp_path: Path) -> None:
    done = Bench(tmp_path / "done")
    done.folder.mkdir()
    watch = Watch(
        done.source, done.grader, WatchJournal(tmp_path / "a"), PollingPolicy(0.01, 0.05), sink=done.sink
    )  # type: ignore[arg-type]
    assert watch.run(is_once=True) and len(done.sink.sent) == 4
    done.source.fault = PacsFault.UNAVAILABLE
    assert not watch.run(is_once=True)
    done.source.fault = None
    done.source.images["1.2.3"] = 1
    done.grader.errors["1.2.3"] = RuntimeError()
    assert not watch.run(is_once=True)


def test_a_stop_signal_ends_the_watch_after_the_current_step(bench: Bench) -> None:
    watch = bench.rounds(1)
    grade = bench.grader.grade

    def grade_and_stop(study_uid: str, images: Path, replaced: object) -> tuple[ResultFile, ...]:
        watch.stop.is_set = True
        return grade(study_uid, images)

    bench.grader.grade = grade_and_stop  # type: ignore[method-assign]
    assert watch.run()
    assert bench.entry().state is WatchState.GRADED and bench.sink.sent == []
    assert bench.entry(SECOND).state is WatchState.SEEN
    bench.grader.grade = grade  # type: ignore[method-assign]
    bench.rounds(1)
    assert bench.entry().state is WatchState.STORED and bench.grader.graded == [FIRST, SECOND]


def test_a_clock_set_back_does_not_delay_a_study(bench: Bench) -> None:
    bench.rounds(1)
    bench.time_s = 10.0
    bench.rounds(1)
    assert bench.grader.graded == []
    bench.rounds(1)
    assert bench.entry().state is WatchState.STORED


def test_a_wait_that_a_wrong_clock_has_set_is_not_kept(bench: Bench) -> None:
    bench.time_s = 4e9
    bench.grader.errors[FIRST] = PacsError(PacsFault.TIMEOUT, "late")
    bench.rounds(2)
    del bench.grader.errors[FIRST]
    assert bench.entry().next_attempt > 4e9
    bench.time_s = 1000.0
    bench.rounds(3)
    assert bench.entry().state is WatchState.STORED


def test_a_wait_that_the_archive_demands_is_kept(bench: Bench) -> None:
    error = PacsError(PacsFault.OVERLOADED, "busy")
    error.retry_after_s = 900.0
    bench.grader.errors[FIRST] = error
    bench.rounds(2)
    waited_s = bench.entry().next_attempt - (bench.time_s - 61.0)
    assert waited_s == 900.0 and bench.entry().attempts == 0


def test_a_study_that_cannot_be_inspected_does_not_stop_the_others(bench: Bench) -> None:
    inspect = bench.source.inspect
    faults = {FIRST: PacsFault.TIMEOUT}

    def inspect_without(study_uid: str) -> StudyOverview:
        if study_uid in faults:
            raise PacsError(faults[study_uid], "hostile")
        return inspect(study_uid)

    bench.source.inspect = inspect_without  # type: ignore[method-assign]
    watch = bench.rounds(3)
    assert bench.entry(SECOND).state is WatchState.STORED
    assert bench.entry().reason == "inspecting: hostile (timeout)" and bench.entry().waits > 1
    bench.source.unwanted = frozenset({FIRST})
    faults.clear()
    bench.rounds(40, watch)
    # The filter applies once it can be inspected.
    assert bench.entry().state is WatchState.PASSED_OVER and bench.grader.graded == [SECOND]


def test_a_study_whose_answers_are_malformed_fails_after_its_attempts(bench: Bench) -> None:
    def inspect(study_uid: str) -> StudyOverview:
        raise PacsError(PacsFault.MALFORMED, "hostile")

    bench.source.inspect = inspect  # type: ignore[method-assign]
    bench.rounds(8)
    assert (bench.entry().state, bench.entry().attempts) == (WatchState.FAILED, 3)


def test_stored_results_stay_recorded_after_a_stop_signal(bench: Bench) -> None:
    watch = bench.rounds(1)
    store = bench.sink.store

    def store_and_stop(path: Path) -> None:
        store(path)
        watch.stop.is_set = True

    bench.sink.store = store_and_stop  # type: ignore[method-assign]
    bench.rounds(1, watch)
    assert (bench.entry().state, bench.entry().stored) == (WatchState.GRADED, (f"{FIRST}.1",))
