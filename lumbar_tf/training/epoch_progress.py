"""Shows the epochs of training jobs as they end, wherever the jobs run: it reads the histories they leave."""

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

#: Between looks at the histories, seconds: small files, and an epoch takes a second at the very least.
_PERIOD_S = 0.5

Row = dict[str, float]


@dataclass(eq=False)
class _Course:
    """One fold of one network, or the first of its two steps.

    Attributes:
        title: `sagittal_t2/mobilenet_v2 fold 0`.
        history: the file that gets a row an epoch.
        epochs: that there are to be; early stopping may leave some out.
        is_done: whether nothing more will come.
        num_seen: epochs that have been counted.
    """

    title: str
    history: Path
    epochs: int
    is_done: Callable[[], bool]
    num_seen: int = 0

    def new_rows(self) -> list[Row]:
        """Returns the rows that have come since the last call."""
        try:
            rows: list[Row] = json.loads(self.history.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there yet
            return []
        found = rows[self.num_seen :]
        self.num_seen += len(found)
        return found

    def take_rest(self) -> int:
        """Returns how many epochs were left out, once the fold is done."""
        rest = self.epochs - self.num_seen if self.is_done() else 0
        self.num_seen += rest
        return rest

    def line(self, row: Row) -> str:
        """Returns what is said of an epoch."""
        others = ("epoch", "learning_rate", "seconds")
        numbers = "  ".join(f"{key} {row[key]:.4f}" for key in row if key not in others)
        return f"{self.title}  epoch {row['epoch']:.0f}/{self.epochs}  {numbers}  {row['seconds']:.1f} s"


@contextmanager
def show_epochs(
    jobs: Sequence[TrainingJob], *, progress: ProgressMaker, tell: Callable[[str], None]
) -> Iterator[None]:
    """Shows what jobs do while the block runs them.

    Args:
        jobs: that the block runs.
        progress: shows how many of the epochs that are left have been trained.
        tell: prints a line an epoch.
    """
    courses = [course for job in jobs for fold in job.folds for course in _courses(job, fold)]
    for each in courses:
        each.new_rows()
    left = sum(each.epochs - each.num_seen for each in courses)
    if not left:
        yield
        return
    ended = threading.Event()
    with progress(left) as advance:

        def watch() -> None:
            while not ended.wait(_PERIOD_S):
                _look(courses, advance, tell)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _look(courses, advance, tell)


def _look(courses: Sequence[_Course], advance: Advance, tell: Callable[[str], None]) -> None:
    for each in courses:
        for row in each.new_rows():
            tell(each.line(row))
            advance(1)
        if rest := each.take_rest():
            advance(rest)


def _courses(job: TrainingJob, fold: int) -> list[_Course]:
    """Returns what there is to train of a job's fold, nothing where it is done."""
    run, folder = job.run, job.run.fold_directory(job.member, fold)
    if run.is_answered(job.member, fold):
        return []
    title = f"{run.member_name(job.member)} fold {fold}"
    config = run.config.localizer if job.member == LOCALIZER else run.config.grader
    if config is None:
        return []
    second = 0 if job.member == LOCALIZER else run.config.grader.two_step_epochs

    def is_done() -> bool:
        return run.is_answered(job.member, fold)

    if not second:
        return [_Course(title, folder / HISTORY_NAME, config.training.epochs, is_done)]
    first = _Course(
        f"{title} {FIRST_STEP}", folder / FIRST_STEP / HISTORY_NAME, config.training.epochs, is_done
    )
    return [first, _Course(title, folder / HISTORY_NAME, second, is_done)]
