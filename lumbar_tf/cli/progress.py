"""Progress display with rate and remaining time on stderr: a bar on a terminal, otherwise plain lines."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from lumbar_tf.cli.console import current_output_options, print_status

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

#: Period of plain lines, in seconds.
_LINE_PERIOD_S = 10.0
#: Duration from which the end of work of unknown length is printed, in seconds.
_LONG_S = 5.0

#: Function that reports finished units, e.g. `advance(1)`.
Advance = Callable[[int], None]

#: Function that makes a progress display for a number of units. Library code takes one and prints nothing.
ProgressMaker = Callable[[int], AbstractContextManager[Advance]]

#: Whether a bar is displayed; two would overwrite each other.
_has_bar = False


@contextmanager
def progress_bar(description: str, total: int, *, unit: str = "study") -> Iterator[Advance]:
    """Shows progress on stderr while its block runs.

    Args:
        description: a few words about the work.
        total: number of units.
        unit: name of the unit, for the rate.

    Yields:
        A function to call with the number of newly finished units.
    """
    if current_output_options().is_quiet or _has_bar:
        yield lambda count: None
    elif _is_terminal():
        yield from _bar(description, total, unit)
    else:
        yield from _lines(description, total, unit)


@contextmanager
def show_activity(description: str) -> Iterator[None]:
    """Shows that work of unknown length is running, and for how long.

    Args:
        description: a few words about the work.
    """
    started = time.monotonic()
    if current_output_options().is_quiet or _has_bar:
        yield
    elif _is_terminal():
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        with _progress(
            SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), TimeElapsedColumn()
        ) as bar:
            task = bar.add_task(description, total=1)
            yield
            bar.update(task, completed=1)
    else:
        print_status(f"{description} ...")
        yield
        seconds = time.monotonic() - started
        if seconds >= _LONG_S:
            print_status(f"{description}: done in {seconds:.1f} s")


@contextmanager
def silent_progress(total: int) -> Iterator[Advance]:
    """A `ProgressMaker` that shows nothing."""
    yield lambda count: None


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def _progress(*columns: "ProgressColumn") -> Iterator["Progress"]:
    global _has_bar
    from rich.console import Console
    from rich.progress import Progress

    # Lines that are printed meanwhile go above the bar, but not results that go to a pipe.
    bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
    with bar:
        _has_bar = True
        try:
            yield bar
        finally:
            _has_bar = False


def _bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with _progress(*columns) as bar:
        task = bar.add_task(description, total=total, pace="")
        started = time.monotonic()

        def advance(count: int) -> None:
            done = bar.tasks[0].completed + count
            bar.update(task, advance=count, pace=_pace(done, total, time.monotonic() - started, unit))

        yield advance


def _lines(description: str, total: int, unit: str) -> Iterator[Advance]:
    started = time.monotonic()
    done = 0
    last_line = started

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        now = time.monotonic()
        if done >= total or now - last_line >= _LINE_PERIOD_S:
            last_line = now
            print_status(f"{description}: {done}/{total}, {_pace(done, total, now - started, unit)}")

    yield advance


def _pace(done: float, total: float, seconds: float, unit: str) -> str:
    """Returns the rate so far and the remaining time at that rate: `12.3 study/s, 40 s left`."""
    if not done or seconds <= 0:
        return ""
    rate = done / seconds
    shown = f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"
    return f"{shown}, {duration((total - done) / rate)} left" if done < total else shown


def duration(seconds: float) -> str:
    """Returns a duration in a suitable unit.

    >>> duration(95), duration(600), duration(9000)
    ('95 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
