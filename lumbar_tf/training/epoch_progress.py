"""Progress of training jobs, read from the histories that they write in any process or machine."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.cli.progress import Advance, ProgressMaker
from lumbar_tf.training.checkpoints import HISTORY_NAME
from lumbar_tf.training.cross_validation import FIRST_STEP, TrainingJob
from lumbar_tf.training.runs import LOCALIZER

#: Interval between reads of the histories, seconds: small files, and an epoch takes at least a second.
_PERIOD_S = 0.5

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
    """

    title: str
    history: Path
    epochs: int
    is_done: Callable[[], bool]
    num_seen: int = 0

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
