"""Output of commands: results on stdout, progress and errors on stderr, or one JSON object.

Commands provide data (`Summary`), lines and tables; this module formats them. rich adds styles and colours on
a terminal, unless NO_COLOR is set; pipes and files get plain text.
"""

import contextlib
import io
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
from typing import TYPE_CHECKING, Any

from lumbar_tf import __version__
from lumbar_tf.files import json_safe

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Width of tables outside a terminal, so that logs hold whole rows.
_LOG_WIDTH = 150

#: A number, a few words, or names that are joined with commas. NaN is an undefined figure.
Figure = int | float | str | Sequence[str] | None


class ExitStatus(IntEnum):
    """Exit status of a command."""

    DONE = 0
    #: The data were invalid; for `verify`, `monitor` and `predict` also: there is a finding to look at.
    DATA = 1
    #: The call was invalid.
    CALL = 2
    #: 128 + SIGINT and 128 + SIGTERM, as shells report them.
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True)
class OutputOptions:
    """Output mode of a command.

    Attributes:
        is_quiet: print errors only.
        is_json: print one JSON object to stdout and nothing else.
    """

    is_quiet: bool = False
    is_json: bool = False

    @property
    def has_text(self) -> bool:
        """Whether results are printed to stdout as text."""
        return not (self.is_quiet or self.is_json)


@dataclass(frozen=True)
class Summary:
    """Result of a command, printed at its end.

    Attributes:
        title: a few words, such as `Records built`.
        figures: counts and scores by name.
        paths: written files by name, the most important first.
        notes: sentences that the reader must know.
        lists: long lists by name, already printed as text; for the JSON object only.
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
    """Outcome of a command.

    Attributes:
        command: its name, such as `predict`.
        status: its exit status.
        seconds: its duration.
        summary: its result, if it returned one.
        error: one line, "" without an error.
        hint: after an error, the usage or how to continue.
    """

    command: str
    status: int
    seconds: float
    summary: Summary | None = None
    error: str = ""
    hint: str = ""


class _LastingPipe(io.FileIO):
    """A stream whose reader may go away (`| head -1`): what follows is discarded, and the command goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return len(memoryview(data).cast("B"))


def make_output_robust() -> None:
    """Lets stdout and stderr of the process outlive their readers, and show text that is not UTF-8.

    The exit status of a command is then its own, and a path that cannot be encoded does not end it. Replaced
    streams, such as those of tests and notebooks, are left as they are.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the caller; the next file that is opened would take its place
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        if stream is not None:
            stream.flush()
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                io.BufferedWriter(_LastingPipe(number, "w", closefd=False)),
                encoding=getattr(stream, "encoding", None) or "utf-8",
                errors="backslashreplace",
                line_buffering=number == 2 or os.isatty(number),
            ),
        )


_current = OutputOptions()


def current_output_options() -> OutputOptions:
    """Returns the output mode of the running command."""
    return _current


@contextlib.contextmanager
def output_options(options: OutputOptions) -> Iterator[None]:
    """Sets the output mode while its block runs.

    With `is_json`, anything else that writes to stdout in the block (another library, native code, a child
    process) goes to stderr; with `is_quiet` it is discarded.
    """
    global _current
    before, _current = _current, options
    try:
        with contextlib.ExitStack() as stack:
            if not options.has_text:
                stack.enter_context(_stray_output(options))
            if options.is_quiet:
                stack.enter_context(_silent_libraries())
            yield
    finally:
        _current = before


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
    """Suppresses warnings and log records below ERROR."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _stray_output(options: OutputOptions) -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("w") as nothing:
        try:
            os.dup2(nothing.fileno() if options.is_quiet else 2, 1)
            with contextlib.redirect_stdout(nothing if options.is_quiet else sys.stderr):
                yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def print_answer(text: str) -> None:
    """Prints a line of the result to stdout, without wrapping."""
    if _current.has_text:
        print(text, flush=True)


def print_tables(*tables: "RenderableType") -> None:
    """Prints tables of the result to stdout."""
    if _current.has_text:
        console = _stdout()
        for table in tables:
            console.print(table)


def print_status(text: str) -> None:
    """Prints a line about the progress of the work to stderr."""
    if not _current.is_quiet:
        print(text, file=sys.stderr, flush=True)


def print_warning(text: str) -> None:
    """Prints a warning to stderr."""
    if not _current.is_quiet:
        _stderr().print(f"[yellow]WARNING:[/] {_escape(text)}", soft_wrap=True)


def print_outcome(outcome: Outcome, options: OutputOptions) -> None:
    """Prints the outcome of a command: its summary, its error, or the JSON object."""
    if options.is_json:
        print(json.dumps(outcome_json(outcome), allow_nan=False), flush=True)
        return
    if outcome.summary is not None and not options.is_quiet:
        _print_summary(outcome.summary, outcome.seconds)
    if outcome.error:
        _stderr().print(f"[bold red]ERROR:[/] {_escape(outcome.error)}", soft_wrap=True)
        if outcome.hint:
            print(outcome.hint, file=sys.stderr, flush=True)


def outcome_json(outcome: Outcome) -> dict[str, object]:
    """Returns the object that `--json` prints, of JSON types only; undefined values are null."""
    content: dict[str, object] = {
        "command": outcome.command,
        "version": __version__,
        "status": int(outcome.status),
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.error:
        content["error"] = outcome.error
        if outcome.hint:
            content["hint"] = outcome.hint
        return content
    summary = outcome.summary or Summary("")
    content["title"] = summary.title
    content["figures"] = json_safe(summary.figures)
    content["paths"] = {name: str(path) for name, path in summary.paths.items()}
    content["notes"] = list(summary.notes)
    content.update(json_safe({name: list(values) for name, values in summary.lists.items()}))
    return content


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

    # Names of models and scanners are not markup.
    return Console(width=None if sys.stdout.isatty() else _LOG_WIDTH, highlight=False, markup=False)


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)
