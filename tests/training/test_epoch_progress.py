"""Progress of jobs in other processes, from their histories."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.cli.progress import Advance
from lumbar_tf.config import default_config_path, load_plane_config
from lumbar_tf.labels import Plane
from lumbar_tf.training.cross_validation import TrainingJob
from lumbar_tf.training.epoch_progress import show_epochs
from lumbar_tf.training.runs import LOCALIZER, PlaneRun


@pytest.fixture
def run(tmp_path: Path) -> PlaneRun:
    overrides = [
        "localizer.training.epochs=4",
        "grader.training.epochs=3",
        "grader.two_step_epochs=2",
        "grader.backbones=[mobilenet_v2]",
    ]
    config = load_plane_config(default_config_path(Plane.SAGITTAL_T2), overrides=overrides)
    manifest: Any = None
    return PlaneRun(config, tmp_path / "records", tmp_path / "runs", manifest, {"a": 0, "b": 1})


def _write(folder: Path, num_epochs: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"epoch": number + 1.0, "loss": 0.5, "learning_rate": 0.1, "seconds": 2.0}
        for number in range(num_epochs)
    ]
    (folder / "history.json").write_text(json.dumps(rows))


class _Shown:
    """Recorded progress of jobs."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0
        self.lines: list[str] = []

    @contextmanager
    def progress(self, total: int) -> Iterator[Advance]:
        def advance(count: int) -> None:
            self.done += count

        self.total = total
        yield advance


def test_steps_of_a_long_epoch_are_shown(run: PlaneRun) -> None:
    shown, folder = _Shown(), run.fold_directory(LOCALIZER, 0)
    steps = folder / "steps.json"
    _write(folder, 1)
    steps.write_text(json.dumps({"epoch": 2, "step": 7, "steps": 90, "seconds_left": 900.0}))
    with show_epochs(
        [TrainingJob(run, LOCALIZER, (0,))], progress=shown.progress, print_line=shown.lines.append
    ):
        # What a killed run has left is not shown; later steps are, but not twice within seconds.
        time.sleep(1.2)
        assert shown.lines == []
        for step in (30, 31):
            steps.write_text(json.dumps({"epoch": 2, "step": step, "steps": 90, "seconds_left": 60.0}))
            time.sleep(1.2)
    assert shown.lines == ["sagittal_t2/localizer fold 0  epoch 2/4  step 30/90  60 s left in the epoch"]
    assert shown.done == 0


def _threads() -> int:
    return threading.active_count()


def test_earlier_epochs_are_not_counted_and_skipped_epochs_are(run: PlaneRun) -> None:
    shown, folders = _Shown(), [run.fold_directory(LOCALIZER, fold) for fold in (0, 1)]
    _write(folders[0], 1)
    before = _threads()
    with show_epochs(
        [TrainingJob(run, LOCALIZER, (0, 1))], progress=shown.progress, print_line=shown.lines.append
    ):
        assert shown.total == 7
        _write(folders[0], 3)
        deadline = time.monotonic() + 20
        while shown.done < 2:
            assert time.monotonic() < deadline, "the histories must be looked at while the jobs run"
            time.sleep(0.02)
        (folders[0] / "landmarks.csv").touch()
        _write(folders[1], 4)
    assert (shown.done, _threads()) == (7, before)
    assert shown.lines[:2] == [
        f"sagittal_t2/localizer fold 0  epoch {item}/4  loss 0.5000  2.0 s" for item in (2, 3)
    ]
    assert sorted(shown.lines[2:]) == [
        f"sagittal_t2/localizer fold 1  epoch {item}/4  loss 0.5000  2.0 s" for item in (1, 2, 3, 4)
    ]


def test_both_training_steps_of_a_grader_are_counted(run: PlaneRun) -> None:
    shown = _Shown()
    folder = run.fold_directory("mobilenet_v2", 0)
    with show_epochs(
        [TrainingJob(run, "mobilenet_v2", (0,))], progress=shown.progress, print_line=shown.lines.append
    ):
        _write(folder / "features", 3)
        _write(folder, 1)
    assert (shown.total, shown.done) == (5, 4)
    assert shown.lines[-1] == "sagittal_t2/mobilenet_v2 fold 0  epoch 1/2  loss 0.5000  2.0 s"


def test_finished_folds_are_not_shown(run: PlaneRun) -> None:
    folder = run.fold_directory(LOCALIZER, 0)
    folder.mkdir(parents=True)
    (folder / "landmarks.csv").touch()
    shown = _Shown()
    with show_epochs(
        [TrainingJob(run, LOCALIZER, (0,))], progress=shown.progress, print_line=shown.lines.append
    ):
        pass
    assert (shown.total, shown.lines) == (0, [])


def test_interrupt_ends_the_polling(run: PlaneRun) -> None:
    shown, before = _Shown(), _threads()
    jobs = [TrainingJob(run, LOCALIZER, (0,))]
    with (
        pytest.raises(KeyboardInterrupt),
        show_epochs(jobs, progress=shown.progress, print_line=shown.lines.append),
    ):
        _write(run.fold_directory(LOCALIZER, 0), 1)
        raise KeyboardInterrupt
    assert (shown.done, _threads()) == (1, before)
