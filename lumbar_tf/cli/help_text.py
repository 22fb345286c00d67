"""Help texts, generated from the fields of a command's options.

    class ServeOptions(CommandOptions):
        \"\"\"Serves a model. (This text heads the help.)\"\"\"
        port: int = Field(8500, description="TCP port of the server.")
        tls_key: Annotated[Path | None, OnlyWith("tls_cert")] = Field(None, description="PEM file.")

The description of a switch that is on by default describes its negation: `--nosaliency`.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lumbar_tf.cli.arguments import is_flag, program

#: Flags of every command, with their descriptions.
GLOBAL_FLAGS = {
    "--quiet": "Print nothing but errors.",
    "--json": "Print one JSON object to stdout at the end, also for an error; progress stays on stderr.",
    "--help": "Print this help.",
}
_EXIT_STATUSES = (
    "Exit status: 0 done; 1 the data were invalid, or there is a finding to look at; 2 the call was\n"
    "invalid; 130 interrupted by Ctrl-C, 143 by SIGTERM."
)
_WIDTH = 110
_MARGIN = 4
_COLUMN = 28


@dataclass(frozen=True)
class OnlyWith:
    """Annotation of an option that is valid only together with another one.

    `--help` lists such options under a heading of their own, and a call without the other option is rejected.

    Attributes:
        option: field name of the other option.
    """

    option: str


def dashed(name: str) -> str:
    """Returns the flag of a field.

    >>> dashed("tls_key")
    '--tls-key'
    """
    return f"--{name.replace('_', '-')}"


def flag_word(name: str, field: FieldInfo) -> str:
    """Returns the flag that `--help` lists for a field: the negation for a switch that is on by default."""
    return dashed(f"no{name}" if field.default is True else name)


def option_groups(options: type[BaseModel]) -> dict[str, list[str]]:
    """Returns the fields of a command's options, grouped by the option that they must come with.

    Args:
        options: class of the options.

    Returns:
        Field names by the field name of the other option, "" for options that stand alone. The fields of the
        class itself come before the inherited ones.
    """
    declared = [name for cls in options.__mro__ for name in inspect.get_annotations(cls)]
    groups: dict[str, list[str]] = {"": []}
    for name in dict.fromkeys(name for name in declared if name in options.model_fields):
        markers = [item for item in options.model_fields[name].metadata if isinstance(item, OnlyWith)]
        groups.setdefault(markers[0].option if markers else "", []).append(name)
    return groups


def help_text(make_options: Callable[..., Any]) -> str:
    """Returns the text of `--help`.

    Args:
        make_options: class of the options, or a function with keyword-only parameters. Its docstring heads
            the text. Descriptions are generated unless the docstring has a section "Flags:" of its own.
    """
    head = inspect.getdoc(make_options) or ""
    parts = [head]
    if isinstance(make_options, type) and issubclass(make_options, BaseModel) and "\nFlags:\n" not in head:
        parts += _sections(make_options)
    shared = "\n".join(_entry(flag, words) for flag, words in GLOBAL_FLAGS.items())
    return "\n\n".join([*parts, f"Options of every command:\n{shared}", _EXIT_STATUSES, usage(make_options)])


def usage(make_options: Callable[..., Any]) -> str:
    """Returns one line with all flags of a command, those that may be omitted in brackets."""
    words = []
    for name, parameter in inspect.signature(make_options).parameters.items():
        text = dashed(name) if is_flag(parameter) else f"{dashed(name)}={name.upper()}"
        if name == "set":
            text = "--set KEY=VALUE ..."
        words.append(text if parameter.default is parameter.empty else f"[{text}]")
    return " ".join(["Usage:", program(), *words, "[--quiet] [--json]"])


def _sections(options: type[BaseModel]) -> list[str]:
    sections = []
    for other, names in option_groups(options).items():
        fields = {name: options.model_fields[name] for name in names}
        entries = [_entry(flag_word(name, field), _description(field)) for name, field in fields.items()]
        heading = f"With {dashed(other)}:" if other else "Options:"
        if entries:
            sections.append("\n".join([heading, *entries]))
    return sections


def _entry(flag: str, words: str) -> str:
    first = f"{' ' * _MARGIN}{flag} ".ljust(_COLUMN)
    rest = " " * _COLUMN
    text = textwrap.fill(words, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return text or first.rstrip()


def _description(field: FieldInfo) -> str:
    """Returns the description, and the default where it is a value."""
    words = field.description or ""
    if field.is_required() or isinstance(field.default, bool) or field.default in (None, "", ()):
        return words
    return f"{words} Default: {_shown(field.default)}.".strip()


def _shown(default: object) -> str:
    if isinstance(default, Enum):
        return str(default.value)
    if isinstance(default, tuple):
        return ",".join(_shown(value) for value in default)
    return f"{default:g}" if isinstance(default, float) else str(default)
