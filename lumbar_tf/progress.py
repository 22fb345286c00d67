"""A progress bar with rate and time left on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

#: How often plain lines are written, in seconds.
_LINE_PERIOD_S = 10.0

#: Reports that so many more units are done, e.g. `advance(1)`.
Advance = Callable[[int], None]

#: Makes a progress display for a number of units; library code takes one and stays silent itself.
ProgressMaker = Callable[[int], AbstractContextManager[Advance]]


@contextmanager
def progress_bar(description: str, total: int, *, unit: str = "study") -> Iterator[Advance]:
    """Shows progress on stderr while its block runs.

    Args:
        description: what is being done, a few words.
        total: how many units there are.
        unit: the unit's name, for the rate.

    Yields:
        A function to call with the number of units just finished.
    """
    maker = _bar if sys.stderr.isatty() else _lines
    yield from maker(description, total, unit)


@contextmanager
def silent_progress(total: int) -> Iterator[Advance]:
    """A `ProgressMaker` that shows nothing."""
    yield lambda count: None


def _bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, rate="")
        started = time.monotonic()

        def advance(count: int) -> None:
            rate = _rate(bar.tasks[0].completed + count, started)
            bar.update(task, advance=count, rate=f"{rate:.1f} {unit}/s")

        yield advance


def _lines(description: str, total: int, unit: str) -> Iterator[Advance]:
    started = time.monotonic()
    done = 0
    last_line = started

    def write_line() -> None:
        rate = _rate(done, started)
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        print(f"{description}: {done}/{total}, {rate:.1f} {unit}/s{left}", file=sys.stderr, flush=True)

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        if done >= total or time.monotonic() - last_line >= _LINE_PERIOD_S:
            last_line = time.monotonic()
            write_line()

    yield advance


def _rate(done: float, started: float) -> float:
    elapsed = time.monotonic() - started
    return done / elapsed if elapsed > 0 else 0.0
