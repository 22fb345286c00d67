"""Progress of training jobs, read from the histories that they write in any process or machine."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lumbar_tf.cli.progress import Advance, ProgressMaker, duration
from lumbar_tf.training.callbacks import STEPS_NAME
from lumbar_tf.training.checkpoints import HISTORY_NAME
from lumbar_tf.training.cross_validation import FIRST_STEP, TrainingJob
from lumbar_tf.training.runs import LOCALIZER

#: Interval between reads of the histories, seconds: small files, and an epoch takes at least a second.
_PERIOD_S = 0.5
#: Shortest time between two lines about the steps of an epoch, seconds.
_STEPS_LINE_PERIOD_S = 20.0

Row = dict[str, float]


@dataclass(eq=False)
class _StepProgress:
    """Progress of one training step of a fold.

    Attributes:
        title: such as `sagittal_t2/mobilenet_v2 fold 0`.
        history: file with one row per epoch.
        epochs: configured epochs; early stopping may end the fold before.
        is_done: returns whether the fold is finished.
        num_seen: epochs that were reported.
        steps: content of the file about the steps of an epoch.
        steps_shown: time of the last line about it.
    """

    title: str
    history: Path
    epochs: int
    is_done: Callable[[], bool]
    num_seen: int = 0
    steps: Row = field(default_factory=dict)
    steps_shown: float = -math.inf

    def new_rows(self) -> list[Row]:
        """Returns the rows added since the last call."""
        try:
            rows: list[Row] = json.loads(self.history.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not written yet
            return []
        found = rows[self.num_seen :]
        self.num_seen += len(found)
        return found

    def take_remaining(self) -> int:
        """Returns the number of epochs that early stopping left out, once the fold is finished."""
        remaining = self.epochs - self.num_seen if self.is_done() else 0
        self.num_seen += remaining
        return remaining

    def new_steps_line(self) -> str:
        """Returns a line about the steps of the current epoch, "" if it is too soon or nothing is new."""
        now = time.monotonic()
        if now - self.steps_shown < _STEPS_LINE_PERIOD_S or not self.take_new_steps():
            return ""
        self.steps_shown, row = now, self.steps
        left = f"  {duration(row['seconds_left'])} left in the epoch" if "seconds_left" in row else ""
        progress = f"epoch {row['epoch']:.0f}/{self.epochs}  step {row['step']:.0f}/{row['steps']:.0f}"
        return f"{self.title}  {progress}{left}"

    def take_new_steps(self) -> bool:
        """Reads the file about the steps of an epoch; returns whether it has changed."""
        try:
            row: Row = json.loads(self.history.with_name(STEPS_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # between epochs
            return False
        self.steps, earlier = row, self.steps
        return row != earlier

    def line(self, row: Row) -> str:
        """Returns a line about an epoch."""
        others = ("epoch", "learning_rate", "seconds")
        numbers = "  ".join(f"{key} {row[key]:.4f}" for key in row if key not in others)
        return f"{self.title}  epoch {row['epoch']:.0f}/{self.epochs}  {numbers}  {row['seconds']:.1f} s"


@contextmanager
def show_epochs(
    jobs: Sequence[TrainingJob], *, progress: ProgressMaker, print_line: Callable[[str], None]
) -> Iterator[None]:
    """Shows the progress of jobs while the block runs them.

    Args:
        jobs: jobs that the block runs.
        progress: makes a progress bar of the remaining epochs.
        print_line: prints a line about an epoch.
    """
    steps = [step for job in jobs for fold in job.folds for step in _fold_steps(job, fold)]
    for step in steps:
        step.new_rows()
        # A killed run may have left one.
        step.take_new_steps()
    remaining = sum(step.epochs - step.num_seen for step in steps)
    if not remaining:
        yield
        return
    ended = threading.Event()
    with progress(remaining) as advance:

        def poll() -> None:
            while not ended.wait(_PERIOD_S):
                _report_rows(steps, advance, print_line)

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _report_rows(steps, advance, print_line)


def _report_rows(steps: Sequence[_StepProgress], advance: Advance, print_line: Callable[[str], None]) -> None:
    for step in steps:
        for row in step.new_rows():
            print_line(step.line(row))
            advance(1)
        if line := step.new_steps_line():
            print_line(line)
        if remaining := step.take_remaining():
            advance(remaining)


def _fold_steps(job: TrainingJob, fold: int) -> list[_StepProgress]:
    """Returns the one or two training steps of a job's fold; empty if the fold is finished."""
    run, folder = job.run, job.run.fold_directory(job.member, fold)
    if run.is_done(job.member, fold):
        return []
    title = f"{run.member_name(job.member)} fold {fold}"
    config = run.config.localizer if job.member == LOCALIZER else run.config.grader
    if config is None:
        return []
    second = 0 if job.member == LOCALIZER else run.config.grader.two_step_epochs

    def is_done() -> bool:
        return run.is_done(job.member, fold)

    if not second:
        return [_StepProgress(title, folder / HISTORY_NAME, config.training.epochs, is_done)]
    first = _StepProgress(
        f"{title} {FIRST_STEP}", folder / FIRST_STEP / HISTORY_NAME, config.training.epochs, is_done
    )
    return [first, _StepProgress(title, folder / HISTORY_NAME, second, is_done)]
