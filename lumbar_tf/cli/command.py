"""Execution of a command: its options are parsed and checked before work starts.

    class TrainOptions(CommandOptions):
        \"\"\"Trains the graders of one plane. (This text heads the help.)\"\"\"
        plane: Plane = Field(description="Plane of the graders.")
        fold: int | None = Field(None, description="Only this fold.")

    if __name__ == "__main__":
        run_command(TrainOptions, train_plane)

The work function returns a `Summary`. Every command takes `--quiet` and `--json`, which are no part of its
options and so of no `options.json`. `docs/commands.md` describes them and the exit statuses. Nothing here
imports TensorFlow, so `--help` is fast as long as the command's module imports it in its work function only.
"""

import contextlib
import json
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
from lumbar_tf.cli.console import (
    ExitStatus,
    Outcome,
    OutputOptions,
    Summary,
    make_output_robust,
    output_options,
    print_outcome,
)
from lumbar_tf.cli.help_text import GLOBAL_FLAGS, OnlyWith, dashed, help_text, option_groups, usage
from lumbar_tf.files import check_writable, json_safe, write_text_atomically
from lumbar_tf.runners import JobError

__all__ = [
    "GLOBAL_FLAGS",
    "CommaList",
    "CommandOptions",
    "OnlyWith",
    "PathList",
    "UsageError",
    "existing_file",
    "parse_options",
    "run_command",
    "split_commas",
    "write_options",
]

Options = TypeVar("Options")

#: Devices of the drivers of Nvidia's and AMD's GPUs, and of Windows' subsystem for Linux.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
#: Credentials in a URL, which an error message must not repeat.
_CREDENTIALS = re.compile(r"//[^\s'\"]*@")


def split_commas(value: object) -> object:
    """Splits a text at its commas; a list has one text for each time that the flag was given."""
    if isinstance(value, list):
        return tuple(part for text in value for part in _split_text(str(text)))
    return tuple(_split_text(value)) if isinstance(value, str) else value


def _split_paths(value: object) -> object:
    """Splits a text as `split_commas` does, but not inside a path that exists."""
    if isinstance(value, list):
        return tuple(path for text in value for path in _split_path_text(str(text)))
    return tuple(_split_path_text(value)) if isinstance(value, str) else value


def _split_text(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _split_path_text(text: str) -> list[str]:
    """Returns the paths in a text; of those that begin at a comma, the longest that exists."""
    parts = text.split(",")
    paths: list[str] = []
    start = 0
    while start < len(parts):
        joined = {stop: ",".join(parts[start:stop]).strip() for stop in range(len(parts), start, -1)}
        # `os.path.exists`, unlike `Path.exists`, is false for a text that is too long for a path.
        stop = next((stop for stop, path in joined.items() if path and os.path.exists(path)), start + 1)  # noqa: PTH110
        paths += [joined[stop]] if joined[stop] else []
        start = stop
    return paths


#: The type of an option that takes a comma-separated list, or is given several times: `--backbones=a,b`.
CommaList = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
#: The same for files and folders: a path that exists is taken whole, even with commas (`DOE, JOHN`).
PathList = Annotated[tuple[str, ...], BeforeValidator(_split_paths)]


class CommandOptions(BaseModel):
    """Base class of a command's options: frozen, without unknown fields.

    Each option is declared once, as a field with a description; `--help` and the shell completion are made
    from the fields (see `help_text`).

    Attributes:
        after_interrupt: hint that is printed when the command is interrupted: the state of its output, and
            how to continue.
        output: option with the output, which is checked to be writable before the work.
        writes_file: whether the output is a file rather than a folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_interrupt: ClassVar[str] = "No incomplete file was left. Run the same command again."

    output: ClassVar[str] = "out"
    writes_file: ClassVar[bool] = False

    def check_output(self) -> None:
        """Checks that the output can be written.

        Raises:
            UsageError: it cannot.
        """
        path = getattr(self, self.output, None)
        if not isinstance(path, Path):
            return
        try:
            check_writable(path, is_folder=not self.writes_file)
        except OSError as error:
            kind = "file" if self.writes_file else "folder"
            raise UsageError(
                f"{dashed(self.output)} must be a {kind} that can be written. Received: {str(path)!r} "
                f"({error.strerror})."
            ) from None

    @model_validator(mode="after")
    def _check_only_with(self) -> Self:
        """Refuses options whose other option (`OnlyWith`) is not given."""
        for other, names in option_groups(type(self)).items():
            strays = [dashed(name) for name in names if name in self.model_fields_set]
            if other and strays and not getattr(self, other):
                raise ValueError(f"{', '.join(strays)} must come with {dashed(other)}")
        return self


def existing_file(path: Path) -> Path:
    """Returns the path of a flag after checking that it is a file.

    Raises:
        UsageError: it is not.
    """
    if not path.is_file():
        raise UsageError(f"A table must be a file. Received: {path}.")
    return path


def write_options(options: CommandOptions, folder: Path) -> None:
    """Writes the options of a run into its output folder, as `options.json`."""
    try:
        text = options.model_dump_json(indent=1)
    except ValueError:  # a path that is not UTF-8
        text = json.dumps(json_safe(options.model_dump()), indent=1)
    write_text_atomically(folder / "options.json", text)


class _Terminated(KeyboardInterrupt):
    """SIGTERM; as with Ctrl-C, `with` blocks are left in order and temporary files are removed."""


def run_command(
    make_options: Callable[..., Options],
    work: Callable[[Options], Summary | int | None],
    *,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Parses the command line, checks the options, runs the work, prints the outcome and exits.

    Args:
        make_options: a `CommandOptions` class, or a function with annotated keyword-only parameters.
            Its docstring heads the help. A parameter named `set` collects every `--set key=value`.
        work: takes the checked options and returns a summary or an exit status; None is 0.
        arguments: the arguments after the program's name; `sys.argv[1:]` by default.

    Raises:
        SystemExit: always.
    """
    make_output_robust()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in words or "-h" in words:
        print(help_text(make_options))
        sys.exit(ExitStatus.DONE)
    output = OutputOptions(is_quiet="--quiet" in words, is_json="--json" in words)
    # Fewer logs of TensorFlow's C++ code, unless the caller has set the level: errors only (2), and none (3)
    # without a GPU, whose absence it logs as an error. What prevents a run is an exception in any case.
    has_gpu = any(Path(device).exists() for device in _GPU_DEVICES)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_gpu and not output.is_quiet else "3")
    rest = [word for word in words if word not in GLOBAL_FLAGS]
    outcome = _execute(make_options, work, rest, output)
    print_outcome(outcome, output)
    sys.exit(outcome.status)


def _execute(
    make_options: Callable[..., Options],
    work: Callable[[Options], Summary | int | None],
    words: Sequence[str],
    output: OutputOptions,
) -> Outcome:
    """Parses the options and runs the work; returns the outcome. Exceptions of program faults propagate."""
    started = time.monotonic()

    def ended(status: int, **details: Any) -> Outcome:
        return Outcome(_command(), status, time.monotonic() - started, **details)

    try:
        options = parse_options(make_options, words)
    except ValueError as error:
        return ended(
            ExitStatus.CALL, error=_with_flags(_one_line(error), make_options), hint=usage(make_options)
        )
    try:
        with output_options(output), _sigterm_interrupts():
            if isinstance(options, CommandOptions):
                options.check_output()
            result = work(options)
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
        if output.is_json:  # the trace follows on stderr
            print_outcome(ended(ExitStatus.DATA, error=f"{type(error).__name__}: {_one_line(error)}"), output)
        raise
    if isinstance(result, Summary):
        return ended(result.status, summary=result)
    return ended(result or ExitStatus.DONE)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM end the block as Ctrl-C does; by default it would leave temporary files behind."""
    if threading.current_thread() is not threading.main_thread():  # where signals are handled
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
            place = ".".join(str(part) for part in fault["loc"])
            # A message of the package says itself what it received.
            received = "" if "Received:" in fault["msg"] else f". Received: {fault['input']!r}"
            faults.append(f"{place}: {fault['msg']}{received}")
        return _CREDENTIALS.sub("//...@", "; ".join(faults))
    return " ".join(str(error).split())
