"""What commands look like: on a terminal, in a pipe, to machines, and when nobody wants to hear them."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf import __version__
from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import (
    Figure,
    Outcome,
    OutputOptions,
    Summary,
    outcome_json,
    output_options,
    print_answer,
    print_status,
    print_warning,
)

REPOSITORY = Path(__file__).resolve().parents[2]
#: A command that does all that commands do, and what a library or native code may do besides.
TOY = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from rich.table import Table
from lumbar_tf.cli.command import CommandOptions, run_command, write_options
from lumbar_tf.cli.console import Summary, print_answer, print_status, print_tables, print_warning
from lumbar_tf.cli.progress import progress_bar, show_activity

class ToyOptions(CommandOptions):
    "Does a toy's work."
    out: Path

def work(options):
    write_options(options, options.out)
    table = Table(title="a table")
    table.add_column("name")
    table.add_row("[value]")
    print_tables(table)
    print_answer("a line of the answer")
    print_status("a line of the work")
    print_warning("a warning")
    logging.warning("a library's warning")
    warnings.warn("a library's other warning")
    print("a library's print")
    os.write(1, b"native code's print\\n")
    subprocess.run([sys.executable, "-c", "print('a child process')"])
    with show_activity("Loading"):
        pass
    with progress_bar("Working", 3) as advance:
        advance(1)
        advance(2)
    figures = {"studies": 1234, "score": 0.57612, "left out": []}
    return Summary("Toy made", figures, {"page": options.out / "a.html"}, ["A note."])

run_command(ToyOptions, work)
"""


@pytest.fixture
def toy(tmp_path: Path) -> list[str]:
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return [sys.executable, str(path), f"--out={tmp_path / 'a very long name of a folder' / ('x' * 120)}"]


def _environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color", "COLUMNS": "80", **variables}


def _pipe(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, env=_environment())


def _on_terminal(words: list[str], **variables: str) -> str:
    """What a command writes to a terminal that is both its stdout and its stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs, env=_environment(**variables))
    os.close(theirs)
    found = b""
    try:
        while block := os.read(ours, 4096):
            found += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return found.decode()


def test_a_pipe_gets_plain_text_and_whole_paths(toy: list[str]) -> None:
    done = _pipe(toy)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    *_, title, studies, score, left_out, seconds, page, note = done.stdout.splitlines()
    assert (title, studies, score) == ("Toy made", "  studies   1,234", "  score     0.5761")
    assert left_out == "  left out  none"
    assert re.fullmatch(r"  seconds   \d+\.\d", seconds)
    assert page == f"  page      {toy[-1].removeprefix('--out=')}/a.html"
    assert note == "  A note."
    assert "[value]" in done.stdout and "a line of the answer\n" in done.stdout
    assert "Working: 3/3, " in done.stderr and "a line of the work\n" in done.stderr
    assert "WARNING: a warning\n" in done.stderr
    assert "Working" not in done.stdout and "WARNING" not in done.stdout


def test_a_terminal_gets_colours_and_a_bar(toy: list[str]) -> None:
    shown = _on_terminal(toy)
    assert "\x1b[1mToy made\x1b[0m" in shown
    assert re.search(r"\x1b\[36m[^\x1b]*a\.html\x1b\[0m", shown)
    assert "━" in shown and "3/3" in shown


def test_no_color_keeps_colours_off_a_terminal(toy: list[str]) -> None:
    shown = _on_terminal(toy, NO_COLOR="1")
    assert "Toy made" in shown and "3/3" in shown
    # 30 to 37, 90 to 97 and 38;... are colours of the text; what is left moves the cursor, or is bold.
    styles = re.findall(r"\x1b\[([\d;]*)m", shown)
    assert not [
        each for each in styles if set(each.split(";")) & {*map(str, (*range(30, 39), *range(90, 98)))}
    ]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(toy: list[str]) -> None:
    assert "Working: 3/3, " in _on_terminal(toy, TERM="dumb")


def test_quiet_says_nothing(toy: list[str]) -> None:
    done = _pipe([*toy, "--quiet"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_json_is_one_object_whatever_else_writes_to_stdout(toy: list[str]) -> None:
    done = _pipe([*toy, "--json"])
    found = json.loads(done.stdout)
    seconds = found.pop("seconds")
    assert 0 < seconds < 60
    assert found == {
        "command": "toy.py",
        "version": __version__,
        "status": 0,
        "title": "Toy made",
        "figures": {"studies": 1234, "score": 0.57612, "left out": []},
        "paths": {"page": f"{toy[-1].removeprefix('--out=')}/a.html"},
        "notes": ["A note."],
    }
    for text in ("a library's print", "native code's print", "a child process", "Working: 3/3"):
        assert text in done.stderr
    assert "a line of the answer" not in done.stderr


def test_json_and_quiet_say_the_object_alone(toy: list[str]) -> None:
    done = _pipe([*toy, "--quiet", "--json"])
    assert json.loads(done.stdout)["status"] == 0 and done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_the_flags_of_all_commands_are_in_no_options_file(toy: list[str]) -> None:
    file = Path(toy[-1].removeprefix("--out=")) / "options.json"
    _pipe(toy)
    plain = file.read_bytes()
    _pipe([*toy, "--quiet", "--json"])
    assert file.read_bytes() == plain
    assert list(json.loads(plain)) == ["out"]


class Options(CommandOptions):
    """Fails as it is told."""

    fault: str = ""


def _fail(options: Options) -> Summary:
    print_answer("an answer")
    faults = {
        "call": UsageError("--fault must be none"),
        "data": ValueError("the data\nare bad"),
        "ctrl-c": KeyboardInterrupt(),
        "program": ZeroDivisionError("by zero"),
    }
    if options.fault == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    if options.fault in faults:
        raise faults[options.fault]
    return Summary("Damaged", status=1)


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        run_command(Options, _fail, arguments=words)
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("call", 2, "--fault must be none"),
        ("data", 1, "the data are bad"),
        ("ctrl-c", 130, "interrupted"),
        ("sigterm", 143, "interrupted"),
    ],
)
def test_an_error_is_a_line_on_stderr_or_part_of_the_object(
    fault: str, status: int, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    found, out, err = _run(capsys, f"--fault={fault}")
    assert (found, out) == (status, "an answer\n")
    # Then how to go on, or the usage; of data there is no more to say.
    assert err.startswith(f"ERROR: {error}\n") and len(err.splitlines()) == (1 if fault == "data" else 2)
    found, out, err = _run(capsys, f"--fault={fault}", "--json")
    shown = json.loads(out)
    assert (found, shown["status"], shown["error"], err) == (status, status, error, "")
    assert "figures" not in shown and ("hint" in shown) == (fault != "data")
    found, out, err = _run(capsys, f"--fault={fault}", "--quiet")
    assert (found, out) == (status, "") and error in err
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_summary_may_have_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys)[0] == 1
    status, out, _ = _run(capsys, "--json")
    assert (status, json.loads(out)["status"]) == (1, 1)


def test_a_wrong_call_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run(capsys, "--json", "--falt=1")
    assert (status, json.loads(out)["status"], err) == (2, 2, "")
    assert "falt" in json.loads(out)["error"]


def test_a_fault_of_the_program_keeps_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(Options, _fail, arguments=["--fault=program"])
    capsys.readouterr()
    with pytest.raises(ZeroDivisionError):
        run_command(Options, _fail, arguments=["--fault=program", "--json"])
    assert json.loads(capsys.readouterr().out)["error"] == "ZeroDivisionError: by zero"


def test_stdout_is_given_back_after_quiet_work(capfd: pytest.CaptureFixture[str]) -> None:
    with output_options(OutputOptions(is_quiet=True)):
        print_answer("x")
        print_status("x")
        print_warning("x")
        os.write(1, b"x")
    print_answer("afterwards")
    assert capfd.readouterr() == ("afterwards\n", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (("a", "b"), ["a", "b"]),
        (None, None),
    ],
)
def test_figures_become_jsons_types(value: Figure, expected: object) -> None:
    found = outcome_json(Outcome("toy", 0, 1.0, Summary("Made", {"figure": value})))
    assert json.loads(json.dumps(found, allow_nan=False))["figures"] == {"figure": expected}


def test_a_command_that_returns_only_its_status_has_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(Options, lambda options: 7, arguments=["--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (end.value.code, shown["status"], shown["figures"], shown["paths"]) == (7, 7, {}, {})
