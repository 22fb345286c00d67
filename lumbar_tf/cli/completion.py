"""Shell completion for the program `lumbar_tf`, generated from the options of its commands.

The script contains all commands and flags, and the values of flags with a fixed set of values; the shell
completes paths. It is static: completion does not start Python.
"""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.cli.command import GLOBAL_FLAGS, CommandOptions
from lumbar_tf.cli.help_text import flag_word

#: Commands in the order of a project.
COMMANDS = (
    "inspect_data",
    "build_records",
    "verify",
    "preview",
    "train",
    "review_labels",
    "stack",
    "evaluate",
    "export",
    "predict",
    "watch",
    "monitor",
    "demo",
    "pretrain",
    "synthetic",
    "info",
)
#: Flags of the program itself, in place of a command.
PROGRAM_FLAGS = ("--completion=", "--help", "--version")
SHELLS = ("bash", "zsh")

#: Text options that name files; options of type `Path` need no entry.
_PATH_NAMES = frozenset(
    {"data", "labels", "oof", "noise_oof", "points", "predictions", "metrics", "init_from"}
)


@dataclass(frozen=True)
class CommandFlag:
    """A flag of a command.

    Attributes:
        word: `--plane=` where a value follows, `--resume` where none does.
        choices: its values, if the set is fixed.
        is_path: whether the shell completes file names.
    """

    word: str
    choices: tuple[str, ...] = ()
    is_path: bool = False


def check_command(command: str) -> None:
    """Raises UsageError if there is no such command."""
    if command not in COMMANDS:
        raise UsageError(f"The command must be one of {', '.join(COMMANDS)}. Received: {command!r}.")


def command_options(command: str) -> type[CommandOptions]:
    """Returns the option model of a command."""
    module = importlib.import_module(f"lumbar_tf.{command}")
    if hasattr(module, "__path__"):  # a package is run by its `__main__`
        module = importlib.import_module(f"lumbar_tf.{command}.__main__")
    (options,) = (
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, CommandOptions)
        and member.__module__ == module.__name__
    )
    return options


def first_line(command: str) -> str:
    """Returns the first line of a command's help."""
    return (inspect.getdoc(command_options(command)) or "").partition("\n")[0]


def command_flags(command: str) -> list[CommandFlag]:
    """Returns a command's flags, its own first."""
    own = [
        flag for name, field in command_options(command).model_fields.items() for flag in _flags(name, field)
    ]
    return [*own, *(CommandFlag(word) for word in GLOBAL_FLAGS)]


def _flags(name: str, field: FieldInfo) -> Iterator[CommandFlag]:
    word = flag_word(name, field)
    kinds = list(_kinds(field.annotation))
    if bool in kinds:
        yield CommandFlag(word)
        return
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    choices = [str(member.value) for enum in enums for member in enum]
    choices += [str(kind) for kind in kinds if isinstance(kind, str)]
    yield CommandFlag(f"{word}=", tuple(choices), Path in kinds or name in _PATH_NAMES)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yields the types in an annotation, and the values of a Literal."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def completion_script(shell: str) -> str:
    """Returns the completion script of a shell, to be read with `source <(lumbar_tf --completion=bash)`.

    Raises:
        UsageError: the shell is not supported.
    """
    if shell not in SHELLS:
        raise UsageError(f"--completion must be one of {', '.join(SHELLS)}. Received: {shell!r}.")
    flags = {command: command_flags(command) for command in COMMANDS}
    words = "\n".join(
        f"        {command}) echo '{' '.join(flag.word for flag in own)}' ;;"
        for command, own in flags.items()
    )
    values = "\n".join(
        f"        {command}:{flag.word.removesuffix('=')}) echo '{' '.join(flag.choices)}' ;;"
        for command, own in flags.items()
        for flag in own
        if flag.choices
    )
    values += f"\n        :--completion) echo '{' '.join(SHELLS)}' ;;"
    paths = " | ".join(
        f"{command}:{flag.word.removesuffix('=')}"
        for command, own in flags.items()
        for flag in own
        if flag.is_path
    )
    script = _BASH
    for mark, text in (
        ("@COMMANDS@", " ".join((*COMMANDS, *PROGRAM_FLAGS))),
        ("@WORDS@", words),
        ("@VALUES@", values),
        ("@PATHS@", paths),
    ):
        script = script.replace(mark, text)
    # zsh runs functions of bash.
    return f"autoload -U +X bashcompinit && bashcompinit\n{script}" if shell == "zsh" else script


#: bash splits `--plane=sag` into the words `--plane`, `=` and `sag`.
_BASH = """\
# Completion of lumbar_tf: the output of lumbar_tf --completion.
_lumbar_tf_words() {
    case "$1" in
@WORDS@
        '') echo '@COMMANDS@' ;;
    esac
}

_lumbar_tf_values() {
    case "$1:$2" in
@VALUES@
    esac
}

_lumbar_tf_takes_path() {
    case "$1:$2" in
        @PATHS@) return 0 ;;
    esac
    return 1
}

_lumbar_tf() {
    local IFS=$' \\t\\n' current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
    local command="" flag="" start="" word
    (( COMP_CWORD > 1 )) && command="${COMP_WORDS[1]}"
    case "$command" in -*) command="" ;; esac
    if [[ "$current" == "=" ]]; then
        flag="$before" current=""
    elif [[ "$before" == "=" ]]; then
        flag="${COMP_WORDS[COMP_CWORD-2]}"
    elif [[ "$current" == --*=* ]]; then
        # In zsh, = does not split words, and the whole word is replaced.
        flag="${current%%=*}" start="${current%%=*}=" current="${current#*=}"
    elif [[ "$before" == --* && " $(_lumbar_tf_words "$command") " == *" $before= "* ]]; then
        flag="$before"
    fi
    COMPREPLY=()
    # Completes the value after the last comma.
    [[ -n "$flag" && "$current" == *,* ]] && start="$start${current%,*}," current="${current##*,}"
    if [[ -n "$flag" ]] && _lumbar_tf_takes_path "$command" "$flag"; then
        compopt -o filenames 2> /dev/null
        while IFS= read -r word; do COMPREPLY+=( "$start$word" ); done < <(compgen -f -- "$current")
        return
    fi
    local words
    if [[ -n "$flag" ]]; then
        words="$(_lumbar_tf_values "$command" "$flag")"
    else
        words="$(_lumbar_tf_words "$command")"
    fi
    for word in $(compgen -W "$words" -- "$current"); do COMPREPLY+=( "$start$word" ); done
    # A space ends every word but a flag that takes a value.
    [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" != *= ]] && COMPREPLY=( "${COMPREPLY[0]} " )
}
complete -o nospace -F _lumbar_tf lumbar_tf
"""
