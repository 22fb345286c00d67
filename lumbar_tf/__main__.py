"""Program `lumbar_tf`, also `python -m lumbar_tf`: one entry point for all commands."""

import runpy
import sys
from typing import NoReturn

from lumbar_tf import __version__
from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.cli.completion import COMMANDS, check_command, completion_script, first_line
from lumbar_tf.cli.console import ExitStatus, make_output_robust

_USAGE = "Usage: lumbar_tf COMMAND [--help] [flags of the command] | --completion=bash|zsh | --version"


def main() -> NoReturn:
    """Runs a command as `python -m lumbar_tf.<command>` does, or prints the list of commands."""
    make_output_robust()
    words = sys.argv[1:]
    first = words[0] if words else "--help"
    try:
        if first in ("--help", "-h"):
            print(_overview())
        elif first == "--version":
            print(__version__)
        elif first.startswith("--completion="):
            print(completion_script(first.partition("=")[2]), end="")
        else:
            check_command(first)
            sys.argv = words
            # Spawned processes import the main module by name, so it must be the command's module.
            runpy.run_module(f"lumbar_tf.{first}", run_name="__main__", alter_sys=True)
    except UsageError as error:
        print(f"ERROR: {error}\n{_USAGE}", file=sys.stderr)
        sys.exit(ExitStatus.CALL)
    sys.exit(ExitStatus.DONE)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {first_line(command)}" for command in COMMANDS]
    return "\n".join(
        (
            "Grades lumbar-spine MRI. Research use, not a medical device.",
            "",
            *lines,
            "",
            "Each command is also `python -m lumbar_tf.COMMAND`; `lumbar_tf COMMAND --help` lists its flags.",
            _USAGE,
        )
    )


if __name__ == "__main__":
    main()
