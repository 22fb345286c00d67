"""What commands say: answers on stdout, progress and errors on stderr, or one JSON object for machines.

Commands hand over data (`Summary`) and lines or tables; how they look is decided here. Styles and colours
are rich's: on a terminal, unless NO_COLOR is set, and nothing but plain text in a pipe or a file.
"""

import contextlib
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_tf import __version__
from lumbar_tf.files import json_safe

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Columns of tables where the output is no terminal, so that a log holds whole ones.
_LOG_WIDTH = 150

#: A number or a few words; a few names are shown with commas. NaN is a figure that is not defined.
Figure = int | float | str | Sequence[str] | None


class ExitStatus(IntEnum):
    """How a command ended, as the shell is told."""

    DONE = 0
    #: The data were at fault; of `verify`, `monitor` and `predict` also: there is something to look at.
    DATA = 1
    #: The call was.
    CALL = 2
    #: 128 + SIGINT and 128 + SIGTERM, as shells report them.
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True)
class OutputOptions:
    """How a command was asked to behave.

    Attributes:
        is_quiet: say nothing but errors.
        is_json: say one JSON object, and nothing else on stdout.
    """

    is_quiet: bool = False
    is_json: bool = False

    @property
    def has_answers(self) -> bool:
        """Whether people read stdout."""
        return not (self.is_quiet or self.is_json)


@dataclass(frozen=True)
class Summary:
    """What a command did; what it returns to be shown at the end.

    Attributes:
        title: a few words, such as `Records built`.
        figures: counts and scores by name.
        paths: what was written, by name, the one to look at first.
        notes: sentences that a reader must know.
        lists: long lists by name that people have read above, for the JSON object only.
        status: the command's exit status.
    """

    title: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()
    lists: Mapping[str, Sequence[object]] = field(default_factory=dict)
    status: int = ExitStatus.DONE


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        command: its name, such as `predict`.
        status: its exit status.
        seconds: that it took.
        summary: what it did, where it said so.
        error: one line, "" where there was none.
        hint: after an error: the usage, or how to go on.
    """

    command: str
    status: int
    seconds: float
    summary: Summary | None = None
    error: str = ""
    hint: str = ""


_manners = OutputOptions()


def current_output_options() -> OutputOptions:
    """Returns how the running command was asked to behave."""
    return _manners


@contextlib.contextmanager
def output_options(manners: OutputOptions) -> Iterator[None]:
    """Behaves so while its block runs.

    Where stdout is not for people, whatever else writes to it in the block (another library, native code, a
    child process) ends on stderr, or nowhere where the command is to be quiet.
    """
    global _manners
    before, _manners = _manners, manners
    try:
        with contextlib.ExitStack() as stack:
            if not manners.has_answers:
                stack.enter_context(_stray_output(manners))
            if manners.is_quiet:
                stack.enter_context(_silent_libraries())
            yield
    finally:
        _manners = before


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
    """Lets other libraries report errors only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _stray_output(manners: OutputOptions) -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("w") as nothing:
        try:
            os.dup2(nothing.fileno() if manners.is_quiet else 2, 1)
            with contextlib.redirect_stdout(nothing if manners.is_quiet else sys.stderr):
                yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def print_answer(text: str) -> None:
    """Prints a line of the answer, however long."""
    if _manners.has_answers:
        print(text, flush=True)


def print_tables(*tables: "RenderableType") -> None:
    """Prints tables of the answer, as wide as the terminal or as a log should be."""
    if _manners.has_answers:
        console = _stdout()
        for table in tables:
            console.print(table)


def print_status(text: str) -> None:
    """Prints a line about the work that is under way, on stderr."""
    if not _manners.is_quiet:
        print(text, file=sys.stderr, flush=True)


def print_warning(text: str) -> None:
    """Prints a warning on stderr."""
    if not _manners.is_quiet:
        _stderr().print(f"[yellow]WARNING:[/] {_escape(text)}", soft_wrap=True)


def print_outcome(outcome: Outcome, manners: OutputOptions) -> None:
    """Says how a command ended: a summary, an error, or the object for machines."""
    if manners.is_json:
        print(json.dumps(outcome_json(outcome), allow_nan=False), flush=True)
        return
    if outcome.summary is not None and not manners.is_quiet:
        _print_summary(outcome.summary, outcome.seconds)
    if outcome.error:
        _stderr().print(f"[bold red]ERROR:[/] {_escape(outcome.error)}", soft_wrap=True)
        if outcome.hint:
            print(outcome.hint, file=sys.stderr, flush=True)


def outcome_json(outcome: Outcome) -> dict[str, object]:
    """Returns the object that `--json` prints: JSON's types only, null for what is not defined."""
    found: dict[str, object] = {
        "command": outcome.command,
        "version": __version__,
        "status": int(outcome.status),
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.error:
        found["error"] = outcome.error
        if outcome.hint:
            found["hint"] = outcome.hint
        return found
    summary = outcome.summary or Summary("")
    found["title"] = summary.title
    found["figures"] = json_safe(summary.figures)
    found["paths"] = {name: str(path) for name, path in summary.paths.items()}
    found["notes"] = list(summary.notes)
    found.update(json_safe({name: list(values) for name, values in summary.lists.items()}))
    return found


def _print_summary(summary: Summary, seconds: float) -> None:
    from rich.text import Text

    lines = {name: _shown(value) for name, value in summary.figures.items()}
    lines["seconds"] = f"{seconds:.1f}"
    width = max(map(len, (*lines, *summary.paths)))
    text = Text(summary.title, style="bold")
    for name, value in lines.items():
        text.append(f"\n  {name:{width}}  ", style="not bold").append(value, style="not bold")
    for name, path in summary.paths.items():
        text.append(f"\n  {name:{width}}  ", style="not bold").append(str(path), style="not bold cyan")
    for note in summary.notes:
        text.append(f"\n  {note}", style="not bold")
    _stdout().print(text, soft_wrap=True)


def _shown(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if value is None:
        return "-"
    return value if isinstance(value, str) else ", ".join(value) or "none"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _stdout() -> "Console":
    from rich.console import Console

    # Names of models and scanners are no markup.
    return Console(width=None if sys.stdout.isatty() else _LOG_WIDTH, highlight=False, markup=False)


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)
