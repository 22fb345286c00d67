"""The command line: python-fire parses, the options are checked, and only then work starts.

python-fire alone runs a function before it rejects a misspelt flag, reads `1.10` as 1.1 and a study
id as a number. Here it only binds flags to keyword arguments, every value stays text, and types come
from the annotations through pydantic.

    class TrainOptions(CommandOptions):
        \"\"\"Trains the graders of one plane. (This text is the help.)\"\"\"
        plane: Plane
        fold: int | None = None

    if __name__ == "__main__":
        run_command(TrainOptions, train_plane)

Exit status: 0 done, 1 the data was at fault, 2 the call was. Nothing here imports TensorFlow, so
`--help` is quick as long as the command's module imports it inside its work function only.
"""

import contextlib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import fire
import fire.core
import fire.decorators
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, validate_call

from lumbar_tf.files import replace_atomically
from lumbar_tf.runners import JobError

Options = TypeVar("Options")

_DATA_FAULT = 1
_CALL_FAULT = 2
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

#: A comma ends an override only where another `key=` follows, so `--set sizes=[1,2],seed=3` is two.
_BETWEEN_OVERRIDES = re.compile(r",(?=[A-Za-z_][\w.]*=)")

#: What stands before the host in a URL; an option that is refused for it must not be repeated with it.
_CREDENTIALS = re.compile(r"//[^\s'\"]*@")


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


#: The type of an option that takes a comma-separated list: `--backbones=a,b`.
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class CommandOptions(BaseModel):
    """Base of a command's options: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    with replace_atomically(folder / "options.json") as temporary:
        temporary.write_text(options.model_dump_json(indent=1), encoding="utf-8")


class UsageError(ValueError):
    """The call is wrong: exit status 2. A work function may raise it too."""


def run_command(
    make_options: Callable[..., Options],
    work: Callable[[Options], int | None],
    *,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Parses the command line, checks the options, runs the work and exits.

    Args:
        make_options: a `CommandOptions` class, or a function with annotated keyword-only parameters.
            Its docstring is the help. A parameter named `set` collects every `--set key=value`.
        work: takes the checked options; returns an exit status, None for 0.
        arguments: the arguments after the program's name; `sys.argv[1:]` by default.

    Raises:
        SystemExit: always.
    """
    # Quiet native start-up logs, before anything imports TensorFlow; a caller's own choice stands.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in words or "-h" in words:
        print(_help_text(make_options))
        sys.exit(0)
    try:
        options = parse_options(make_options, words)
    except ValueError as error:
        _fail(_one_line(error), _CALL_FAULT, usage=_usage(make_options))
    try:
        status = work(options)
    except UsageError as error:
        _fail(_one_line(error), _CALL_FAULT, usage=_usage(make_options))
    except (ValueError, OSError, JobError) as error:
        _fail(_one_line(error), _DATA_FAULT)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)
    sys.exit(status or 0)


def parse_options(make_options: Callable[..., Options], arguments: Sequence[str]) -> Options:
    """Builds the options object from command-line words.

    Args:
        make_options: as in `run_command`.
        arguments: words such as `--data=dir`, `--out dir`, `--resume`, `--noresume`.

    Returns:
        What `make_options` returns for them.

    Raises:
        UsageError: an unknown or missing flag, a word that is no flag, a flag without its value or
            given twice.
        ValueError: a value that does not fit its type.
    """
    parameters = inspect.signature(make_options).parameters
    words = list(arguments)
    overrides: tuple[str, ...] = ()
    if "set" in parameters:
        words, overrides = _take_overrides(words)
    _check_words(words, parameters)
    keywords = _bind_with_fire(make_options, words)
    if overrides:
        keywords["set"] = overrides
    if isinstance(make_options, type):
        options: Options = make_options(**keywords)
        return options
    # pydantic turns each text into the parameter's annotated type.
    return validate_call(make_options)(**keywords)


def _take_overrides(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Splits off every `--set key=value`: python-fire would keep only the last one."""
    rest: list[str] = []
    overrides: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--set":
            value = next(remaining, "")
        elif word.startswith("--set="):
            value = word.removeprefix("--set=")
        else:
            rest.append(word)
            continue
        overrides.extend(_BETWEEN_OVERRIDES.split(value))
    for override in overrides:
        if not re.match(r"[A-Za-z_][\w.]*=", override):
            raise UsageError(f"--set takes key=value. Received: {override!r}.")
    return rest, tuple(overrides)


def _check_words(words: Sequence[str], parameters: Any) -> None:
    """Refuses what python-fire would quietly accept: strays, missing values, repeats."""
    seen: set[str] = set()
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("--") or word == "--":
            raise UsageError(f"Every argument must be a --flag. Received: {word!r}.")
        name, has_value, _ = word[2:].replace("-", "_").partition("=")
        name = name if name in parameters else name.removeprefix("no")
        if name in seen:
            raise UsageError(f"--{name} was given more than once.")
        seen.add(name)
        if has_value or name not in parameters or _is_flag(parameters[name]):
            continue
        if index == len(words) or words[index].startswith("--"):
            raise UsageError(f"--{name} needs a value: --{name}={name.upper()}.")
        index += 1


def _is_flag(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is bool or isinstance(parameter.default, bool)


def _bind_with_fire(make_options: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Lets python-fire bind the words to the parameters, as text, and calls nothing else."""
    bound: dict[str, Any] = {}

    def bind(**keywords: Any) -> None:
        bound.update(keywords)

    signature = inspect.signature(make_options)
    names = [each for name, each in signature.parameters.items() if name != "set"]
    if any(each.kind is not inspect.Parameter.KEYWORD_ONLY for each in names):
        raise TypeError(f"Every parameter of {make_options} must be keyword-only.")
    # Defaults become a marker: an option that was not given keeps the default of `make_options`.
    marker = object()
    bind.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each if each.default is each.empty else each.replace(default=marker) for each in names]
    )
    bind.__doc__ = make_options.__doc__
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            fire.Fire(fire.decorators.SetParseFn(str)(bind), command=list(words), name=_program())
    except fire.core.FireExit:
        # Its first line says what is wrong; its usage text describes `bind`, so ours replaces it.
        raise UsageError(complaint.getvalue().partition("\n")[0].removeprefix("ERROR: ")) from None
    return {name: value for name, value in bound.items() if value is not marker}


def _program() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name


def _usage(make_options: Callable[..., Any]) -> str:
    words = []
    for name, parameter in inspect.signature(make_options).parameters.items():
        flag = "--" + name.replace("_", "-")
        text = flag if _is_flag(parameter) else f"{flag}={name.upper()}"
        if name == "set":
            text = "--set KEY=VALUE ..."
        words.append(text if parameter.default is parameter.empty else f"[{text}]")
    return " ".join(["Usage:", _program(), *words])


def _help_text(make_options: Callable[..., Any]) -> str:
    return f"{inspect.getdoc(make_options) or ''}\n\n{_usage(make_options)}"


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = []
        for fault in error.errors():
            place = ".".join(str(each) for each in fault["loc"])
            faults.append(f"{place}: {fault['msg']}. Received: {fault['input']!r}")
        return _CREDENTIALS.sub("//...@", "; ".join(faults))
    return " ".join(str(error).split())


def _fail(message: str, status: int, *, usage: str = "") -> NoReturn:
    print(f"ERROR: {message}", file=sys.stderr)
    if usage:
        print(usage, file=sys.stderr)
    sys.exit(status)
