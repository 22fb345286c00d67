"""docs/commands.md says what the commands do."""

import re
from pathlib import Path

from lumbar_tf.cli.command import GLOBAL_FLAGS
from lumbar_tf.cli.completion import COMMANDS, SHELLS, command_options
from lumbar_tf.cli.console import ExitStatus, Outcome, Summary, outcome_json

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def _rows(title: str) -> list[list[str]]:
    """The cells of the first table behind a heading of its first column."""
    table = TEXT[TEXT.index(f"| {title} |") :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def _name(cell: str) -> str:
    return cell.strip("`").removeprefix("python -m lumbar_tf.")


def test_there_is_a_row_for_each_command() -> None:
    assert [_name(row[0]) for row in _rows("command")] == list(COMMANDS)


def test_a_flag_to_go_on_with_is_named_where_there_is_one() -> None:
    for command, _, after in _rows("command"):
        has_flag = "resume" in command_options(_name(command)).model_fields
        assert has_flag == ("--resume" in after)
        assert has_flag == ("--resume" in command_options(_name(command)).after_interrupt)


def test_every_exit_status_and_flag_has_a_row() -> None:
    assert [int(row[0]) for row in _rows("status")] == [int(each) for each in ExitStatus]
    assert [row[0].strip("`") for row in _rows("flag")] == list(GLOBAL_FLAGS)


def test_every_key_of_the_object_is_explained() -> None:
    named = {key for row in _rows("key") for key in re.findall(r"`(\w+)`", row[0])}
    done = outcome_json(Outcome("a", 0, 1.0, Summary("b")))
    failed = outcome_json(Outcome("a", 1, 1.0, error="b", hint="c"))
    assert named == {*done, *failed}


def test_shells_that_are_named_have_a_script() -> None:
    assert set(re.findall(r"--completion=(\w+)", TEXT)) == set(SHELLS)


def test_the_readme_points_here() -> None:
    assert "docs/commands.md" in README
