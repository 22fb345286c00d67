"""Parsing of a command line into validated options.

python-fire alone would run a function before it rejects a misspelt flag, and would read `1.10` as 1.1 and a
study id as a number. Here it only binds flags to keyword arguments as text; pydantic converts them to the
annotated types.
"""

import contextlib
import difflib
import inspect
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import fire
import fire.core
import fire.decorators
from pydantic import validate_call

Options = TypeVar("Options")

#: A comma ends an override only where another `key=` follows, so `--set sizes=[1,2],seed=3` is two.
_BETWEEN_OVERRIDES = re.compile(r",(?=[A-Za-z_][\w.]*=)")
#: Flags of one purpose in different commands. The first that a command has is suggested for another one.
_PURPOSES = (
    ("out", "runs", "output", "results", "folder"),
    ("data", "study", "records", "input", "source", "dicom"),
    ("predictions", "oof", "members", "tables"),
    ("labels", "truth", "targets"),
    ("model", "bundle", "ensemble", "stacker"),
    ("workers", "jobs", "processes", "threads"),
)
_NEAR = 0.6


class UsageError(ValueError):
    """An invalid call, with exit status 2. Work functions may raise it too."""


def parse_options(make_options: Callable[..., Options], arguments: Sequence[str]) -> Options:
    """Builds the options object from command-line words.

    Args:
        make_options: as in `run_command`.
        arguments: words such as `--data=dir`, `--out dir`, `--resume`, `--noresume`.

    Returns:
        The result of `make_options`.

    Raises:
        UsageError: an unknown or missing flag, a word that is not a flag, a flag without its value or given
            twice.
        ValueError: a value of the wrong type.
    """
    parameters = inspect.signature(make_options).parameters
    words = list(arguments)
    overrides: tuple[str, ...] = ()
    if "set" in parameters:
        words, overrides = _take_overrides(words)
    _check_words(words, parameters)
    keywords = _bind_with_fire(make_options, words)
    keywords |= {name: texts for name, texts in _read_lists(words, parameters).items() if len(texts) > 1}
    if overrides:
        keywords["set"] = overrides
    if isinstance(make_options, type):
        options: Options = make_options(**keywords)
        return options
    # pydantic turns each text into the parameter's annotated type.
    return validate_call(make_options)(**keywords)


def _take_overrides(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Splits off every `--set key=value`; python-fire would keep only the last one."""
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
    """Rejects unknown flags, stray words, missing values and repeated flags.

    python-fire would accept the others silently, and its message for an unknown flag does not name the flag.
    """
    seen: set[str] = set()
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("--") or word == "--":
            raise UsageError(f"Every argument must be a --flag. Received: {word!r}.")
        name, has_value, _ = word[2:].replace("-", "_").partition("=")
        name = name if name in parameters else name.removeprefix("no")
        if name not in parameters:
            raise UsageError(_unknown_flag(word, name, parameters))
        if name in seen and not _is_list(parameters[name]):
            raise UsageError(f"--{name} was given more than once.")
        seen.add(name)
        if has_value or is_flag(parameters[name]):
            continue
        if index == len(words) or words[index].startswith("--"):
            raise UsageError(f"--{name} needs a value: --{name}={name.upper()}.")
        index += 1


def _read_lists(words: Sequence[str], parameters: Any) -> dict[str, list[str]]:
    """Returns the values of each flag that takes a list; python-fire would keep only the last one."""
    lists: dict[str, list[str]] = {}
    for index, word in enumerate(words):
        name, has_value, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if word.startswith("--") and name in parameters and _is_list(parameters[name]):
            lists.setdefault(name, []).append(value if has_value else words[index + 1])
    return lists


def _is_list(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) is tuple


def _unknown_flag(word: str, name: str, parameters: Any) -> str:
    """Returns the message for an unknown flag, with the nearest one of the command."""
    near = difflib.get_close_matches(name, list(parameters), n=1, cutoff=_NEAR)
    for purpose in _PURPOSES:
        if name in purpose and not near:
            near = [other for other in purpose if other in parameters][:1]
    flag = word.partition("=")[0]
    return (
        f"{flag}: did you mean --{near[0].replace('_', '-')}?" if near else f"{flag} is not one of its flags."
    )


def is_flag(parameter: inspect.Parameter) -> bool:
    """Returns whether an option takes no value and is switched off by `--no`."""
    return parameter.annotation is bool or isinstance(parameter.default, bool)


def _bind_with_fire(make_options: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Binds the words to the parameters with python-fire, as text, without calling `make_options`."""
    bound: dict[str, Any] = {}

    def bind(**keywords: Any) -> None:
        bound.update(keywords)

    signature = inspect.signature(make_options)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "set"]
    if any(parameter.kind is not inspect.Parameter.KEYWORD_ONLY for parameter in parameters):
        raise TypeError(f"Every parameter of {make_options} must be keyword-only.")
    # A marker replaces each default, so that an option that is not given keeps the default of `make_options`.
    marker = object()
    bind.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter if parameter.default is parameter.empty else parameter.replace(default=marker)
            for parameter in parameters
        ]
    )
    bind.__doc__ = make_options.__doc__
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            fire.Fire(fire.decorators.SetParseFn(str)(bind), command=list(words), name=program())
    except fire.core.FireExit:
        # The first line is the error. The usage text describes `bind`, so ours replaces it.
        raise UsageError(message.getvalue().partition("\n")[0].removeprefix("ERROR: ")) from None
    return {name: value for name, value in bound.items() if value is not marker}


def program() -> str:
    """Returns the call of the running program, such as `python -m lumbar_tf.predict`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name


def exit_renamed(module: str) -> NoReturn:
    """Exits with the status of an invalid call and prints the present name of a renamed command.

    Args:
        module: the command's present module, such as "lumbar_tf.review_labels".
    """
    print(f"ERROR: renamed: use python -m {module}", file=sys.stderr)
    sys.exit(2)
