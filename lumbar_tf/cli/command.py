"""The command line: the words are parsed (`arguments`), the options are checked, and only then work starts.

    class TrainOptions(CommandOptions):
        \"\"\"Trains the graders of one plane. (This text heads the help.)\"\"\"
        plane: Plane = Field(description="Plane of the graders.")
        fold: int | None = Field(None, description="Only this fold.")

    if __name__ == "__main__":
        run_command(TrainOptions, train_plane)

The work returns a `Summary` of what it did. `--quiet` and `--json` are every command's: they are taken off
before the options are made, so they are in no `options.json` and shape no run. `docs/commands.md` has them
and the exit statuses. Nothing here imports TensorFlow, so `--help` is quick as long as the command's module
imports it inside its work function only.
"""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from lumbar_tf.cli.arguments import UsageError, parse_options, program
from lumbar_tf.cli.console import ExitStatus, Outcome, OutputOptions, Summary, output_options, print_outcome
from lumbar_tf.cli.help_text import GLOBAL_FLAGS, OnlyWith, dashed, help_text, option_groups, usage
from lumbar_tf.files import write_text_atomically
from lumbar_tf.runners import JobError

__all__ = [
    "GLOBAL_FLAGS",
    "CommaList",
    "CommandOptions",
    "OnlyWith",
    "UsageError",
    "existing_file",
    "parse_options",
    "run_command",
    "write_options",
]

Options = TypeVar("Options")

#: What stands before the host in a URL; an option that is refused for it must not be repeated with it.
_CREDENTIALS = re.compile(r"//[^\s'\"]*@")


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


#: The type of an option that takes a comma-separated list: `--backbones=a,b`.
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class CommandOptions(BaseModel):
    """Base of a command's options: frozen, and unknown fields are refused.

    Each option is declared once, as a field with a description; `--help` and the shell completion are made
    from the fields (see `help_text`).

    Attributes:
        after_interrupt: hint that is printed when the command is interrupted: the state of its output, and
            how to continue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_interrupt: ClassVar[str] = "No incomplete file was left. Run the same command again."

    @model_validator(mode="after")
    def _check_only_with(self) -> Self:
        """Refuses options whose other option (`OnlyWith`) is not given."""
        for other, names in option_groups(type(self)).items():
            strays = [dashed(name) for name in names if name in self.model_fields_set]
            if other and strays and not getattr(self, other):
                raise ValueError(f"{', '.join(strays)} must come with {dashed(other)}")
        return self


def existing_file(path: Path) -> Path:
    """Returns a path that a flag names, if there is a file.

    Raises:
        UsageError: there is none.
    """
    if not path.is_file():
        raise UsageError(f"A table must be a file. Received: {path}.")
    return path


def write_options(options: CommandOptions, folder: Path) -> None:
    """Writes the options that made a result beside it, as `options.json`."""
    write_text_atomically(folder / "options.json", options.model_dump_json(indent=1))


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: as with Ctrl-C, blocks are left in order and temporary files vanish."""


def run_command(
    make_options: Callable[..., Options],
    work: Callable[[Options], Summary | int | None],
    *,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Parses the command line, checks the options, runs the work, says how it ended and exits.

    Args:
        make_options: a `CommandOptions` class, or a function with annotated keyword-only parameters.
            Its docstring is the help. A parameter named `set` collects every `--set key=value`.
        work: takes the checked options; returns a summary, or only an exit status, None for 0.
        arguments: the arguments after the program's name; `sys.argv[1:]` by default.

    Raises:
        SystemExit: always.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in words or "-h" in words:
        print(help_text(make_options))
        sys.exit(ExitStatus.DONE)
    manners = OutputOptions(is_quiet="--quiet" in words, is_json="--json" in words)
    # Quiet native start-up logs, before anything imports TensorFlow; a caller's own choice stands. What it
    # calls an error, such as that there is no GPU, keeps nothing from being done.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if manners.is_quiet else "2")
    rest = [each for each in words if each not in GLOBAL_FLAGS]
    outcome = _carry_out(make_options, work, rest, manners)
    print_outcome(outcome, manners)
    sys.exit(outcome.status)


def _carry_out(
    make_options: Callable[..., Options],
    work: Callable[[Options], Summary | int | None],
    words: Sequence[str],
    manners: OutputOptions,
) -> Outcome:
    """Parses and works; returns how it ended, but for faults of the program itself, which it lets through."""
    started = time.monotonic()

    def ended(status: int, **said: Any) -> Outcome:
        return Outcome(_command(), status, time.monotonic() - started, **said)

    try:
        options = parse_options(make_options, words)
    except ValueError as error:
        return ended(ExitStatus.CALL, error=_one_line(error), hint=usage(make_options))
    try:
        with output_options(manners), _sigterm_interrupts():
            found = work(options)
    except UsageError as error:
        return ended(
            ExitStatus.CALL, error=_with_flags(_one_line(error), make_options), hint=usage(make_options)
        )
    except (ValueError, OSError, JobError) as error:
        return ended(ExitStatus.DATA, error=_one_line(error))
    except KeyboardInterrupt as interrupt:
        status = ExitStatus.TERMINATED if isinstance(interrupt, _Terminated) else ExitStatus.INTERRUPTED
        return ended(status, error="interrupted", hint=getattr(make_options, "after_interrupt", ""))
    except Exception as error:
        if manners.is_json:  # the trace follows on stderr
            print_outcome(
                ended(ExitStatus.DATA, error=f"{type(error).__name__}: {_one_line(error)}"), manners
            )
        raise
    if isinstance(found, Summary):
        return ended(found.status, summary=found)
    return ended(found or ExitStatus.DONE)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Has SIGTERM end the block as Ctrl-C does; by default it would leave temporary files behind."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _command() -> str:
    """Returns the command's short name, such as `predict`."""
    return program().rpartition(" ")[2].removeprefix("lumbar_tf.")


def _with_flags(message: str, make_options: Callable[..., Any]) -> str:
    """Returns a message of the library with its arguments, such as `oof`, written as flags."""
    fields = getattr(make_options, "model_fields", {})
    return re.sub(
        r"`(\w+)`",
        lambda found: f"--{found[1].replace('_', '-')}" if found[1] in fields else found[0],
        message,
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = []
        for fault in error.errors():
            place = ".".join(str(each) for each in fault["loc"])
            faults.append(f"{place}: {fault['msg']}. Received: {fault['input']!r}")
        return _CREDENTIALS.sub("//...@", "; ".join(faults))
    return " ".join(str(error).split())
