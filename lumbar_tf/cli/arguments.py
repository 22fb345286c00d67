"""From the words of a command line to checked options.

python-fire alone runs a function before it rejects a misspelt flag, reads `1.10` as 1.1 and a study id as a
number. Here it only binds flags to keyword arguments, every value stays text, and types come from the
annotations through pydantic.
"""

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import fire
import fire.core
import fire.decorators
from pydantic import validate_call

Options = TypeVar("Options")

#: A comma ends an override only where another `key=` follows, so `--set sizes=[1,2],seed=3` is two.
_BETWEEN_OVERRIDES = re.compile(r",(?=[A-Za-z_][\w.]*=)")


class UsageError(ValueError):
    """The call is wrong: exit status 2. A work function may raise it too."""


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
        if has_value or name not in parameters or is_flag(parameters[name]):
            continue
        if index == len(words) or words[index].startswith("--"):
            raise UsageError(f"--{name} needs a value: --{name}={name.upper()}.")
        index += 1


def is_flag(parameter: inspect.Parameter) -> bool:
    """Whether an option is given without a value, and switched off by `--no`."""
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
            fire.Fire(fire.decorators.SetParseFn(str)(bind), command=list(words), name=program())
    except fire.core.FireExit:
        # Its first line says what is wrong; its usage text describes `bind`, so ours replaces it.
        raise UsageError(complaint.getvalue().partition("\n")[0].removeprefix("ERROR: ")) from None
    return {name: value for name, value in bound.items() if value is not marker}


def program() -> str:
    """Returns how the running program is called, such as `python -m lumbar_tf.predict`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name


def exit_renamed(module: str) -> NoReturn:
    """Ends a command that has another name now, with the exit status of a wrong call.

    Args:
        module: the command's present module, such as "lumbar_tf.review_labels".
    """
    print(f"ERROR: renamed: use python -m {module}", file=sys.stderr)
    sys.exit(2)
