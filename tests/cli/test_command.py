import contextlib
import io
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.cli.command import (
    CommaList,
    CommandOptions,
    PathList,
    UsageError,
    parse_options,
    run_command,
)
from lumbar_tf.cli.completion import command_options
from lumbar_tf.labels import Plane
from lumbar_tf.train import TrainOptions

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    path.stem
    for path in (REPOSITORY / "lumbar_tf").glob("*.py")
    if '\nif __name__ == "__main__":\n    run_command(' in path.read_text()
)


class ToyOptions(CommandOptions):
    """Does a toy's work.

    Second paragraph.
    """

    data: CommaList
    out: Path = Path("here")
    plane: Plane = Plane.AXIAL_T2
    level: float = 1.5
    fold: int | None = None
    resume: bool = True
    set: tuple[str, ...] = ()


def make_toy(*, data: CommaList, fold: int = 2, resume: bool = False) -> dict[str, Any]:
    """Makes a toy from a function."""
    return {"data": data, "fold": fold, "resume": resume}


def test_values_stay_text_until_the_type_says_otherwise() -> None:
    options = parse_options(ToyOptions, ["--data=100206310,1.10,007", "--level=1.10", "--fold", "3"])
    assert options.data == ("100206310", "1.10", "007")
    assert (options.level, options.fold, options.out) == (1.1, 3, Path("here"))


@pytest.mark.parametrize(
    ("word", "expected"), [("--resume", True), ("--noresume", False), ("--resume=false", False)]
)
def test_flags_are_set_with_and_without_no(word: str, expected: bool) -> None:
    assert parse_options(ToyOptions, ["--data=a", word]).resume is expected


def test_a_function_gets_typed_values_too() -> None:
    made = parse_options(make_toy, ["--data=1.10", "--fold=4", "--resume"])
    assert made == {"data": ("1.10",), "fold": 4, "resume": True}


def test_a_list_may_be_given_in_several_flags() -> None:
    words = ["--data=a,b", "--fold=1", "--data", "c", "--data=d"]
    assert parse_options(ToyOptions, words).data == ("a", "b", "c", "d")
    assert parse_options(make_toy, words)["data"] == ("a", "b", "c", "d")


class PathToyOptions(CommandOptions):
    """Options with paths."""

    data: PathList


def _paths(*words: str) -> tuple[str, ...]:
    return parse_options(PathToyOptions, words).data


def test_a_path_with_commas_is_taken_whole_if_it_exists(tmp_path: Path) -> None:
    patient, other = tmp_path / "DOE, JOHN", tmp_path / "7"
    patient.mkdir()
    other.mkdir()
    assert _paths(f"--data={patient}") == (str(patient),)
    assert _paths(f"--data={patient},{other}") == (str(patient), str(other))
    assert _paths(f"--data={other}, {patient}") == (str(other), str(patient))
    assert _paths(f"--data={patient}", f"--data={other}") == (str(patient), str(other))
    (tmp_path / "7,8").touch()
    (tmp_path / "8").touch()
    assert _paths(f"--data={tmp_path}/7,8") == (f"{tmp_path}/7,8",)
    assert _paths(f"--data={tmp_path}/7,{tmp_path}/8") == (f"{tmp_path}/7", f"{tmp_path}/8")


def test_paths_that_do_not_exist_are_split_at_commas() -> None:
    assert _paths("--data=absent1, absent2,") == ("absent1", "absent2")
    assert _paths(f"--data={'a' * 300},{'b' * 5000}") == ("a" * 300, "b" * 5000)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--dta=a", "--dta: did you mean --data?"),
        ("--plan=a", "--plan: did you mean --plane?"),
        ("--noresum", "--noresum: did you mean --resume?"),
        ("--records=a", "--records: did you mean --data?"),
        ("--output", "--output: did you mean --out?"),
        ("--x7=1", "--x7 is not one of its flags."),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_options(ToyOptions, [word])


def test_the_flag_of_the_same_purpose_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"--out: did you mean --runs\?"):
        parse_options(TrainOptions, ["--out=here"])


def test_set_may_be_repeated_and_listed() -> None:
    words = ["--set", "a.b=1", "--data=x", "--set=c=[1,2],d=e=f"]
    assert parse_options(ToyOptions, words).set == ("a.b=1", "c=[1,2]", "d=e=f")


@pytest.mark.parametrize(
    "words",
    [
        ["--dta=a"],
        ["--data=a", "--misspelt"],
        ["--data=a", "--misspelt=1"],
        ["--data=a", "stray"],
        ["--data=a", "__class__"],
        ["--data=a", "-x"],
        ["--data=a", "--", "--trace"],
        ["--data=a", "--fold"],
        ["--data=a", "--fold", "--resume"],
        ["--data=a", "--fold=1", "--fold=2"],
        ["--data=a", "--data"],
        ["--data=a", "--resume", "--noresume"],
        ["--data=a", "--set", "nothing"],
        [],
    ],
)
def test_a_wrong_call_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_options(ToyOptions, words)


@pytest.mark.parametrize(
    ("words", "status", "shown"),
    [
        (["--dta=a"], 2, "Usage:"),
        (["--data=a", "--plane=coronal"], 2, "plane"),
        (["--data=a", "--fold=x"], 2, "fold"),
        (["--data=fault"], 1, "ERROR: the data are bad"),
        (["--data=absent"], 1, "no such thing"),
        (["--data=a"], 0, ""),
        (["--data=a", "--fold=7"], 7, ""),
    ],
)
def test_exit_status_tells_data_from_call(
    words: list[str], status: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[ToyOptions] = []

    def work(options: ToyOptions) -> int | None:
        done.append(options)
        if options.data == ("fault",):
            raise ValueError("the data\nare bad")
        if options.data == ("absent",):
            raise FileNotFoundError("no such thing")
        return options.fold

    with pytest.raises(SystemExit) as end:
        run_command(ToyOptions, work, arguments=words)
    assert end.value.code == status
    assert shown in capsys.readouterr().err
    assert bool(done) == (status != 2)


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(ToyOptions, lambda options: None, arguments=["--data=a", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Does a toy's work.\n\nSecond paragraph.")
    assert "--data=DATA [--out=OUT]" in shown


@pytest.mark.parametrize("command", ["synthetic", *COMMANDS])
def test_every_help_has_the_flags_of_all_commands_and_the_exit_statuses(command: str) -> None:
    options = command_options(command)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        run_command(options, lambda _: None, arguments=["--help"])
    for words in ("--quiet ", "--json ", "--help ", "0 done", "130 interrupted", "143 by SIGTERM"):
        assert words in shown.getvalue()
    assert "[--quiet] [--json]" in shown.getvalue().splitlines()[-1]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
        env={**os.environ, "PAGER": "false"},
    )


def test_tensorflow_logs_nothing_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoOptions(CommandOptions):
        """Does nothing."""

    seen: list[str] = []

    def work(options: NoOptions) -> None:
        seen.append(os.environ["TF_CPP_MIN_LOG_LEVEL"])

    has_gpu = any(Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg"))
    for given, words, expected in (
        (None, [], "2" if has_gpu else "3"),
        (None, ["--quiet"], "3"),
        ("0", [], "0"),
    ):
        with monkeypatch.context() as patch:
            patch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
            if given is not None:
                patch.setenv("TF_CPP_MIN_LOG_LEVEL", given)
            with pytest.raises(SystemExit):
                run_command(NoOptions, work, arguments=words)
            os.environ.pop("TF_CPP_MIN_LOG_LEVEL")
        assert seen.pop() == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_needs_no_tensorflow(command: str) -> None:
    slow_imports = "('tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib')"
    script = (
        f"import runpy, sys; sys.argv = ['{command}', '--help']\n"
        f"try: runpy.run_module('lumbar_tf.{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        f"    found = [name for name in {slow_imports} if name in sys.modules]\n"
        "    sys.exit(f'imported {found}' if found else end.code)\n"
    )
    before = _child_seconds()
    shown = _run("-c", script)
    # Processor time, which other tests on the same cores do not lengthen; alone it is the wall time.
    seconds = _child_seconds() - before
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage:" in shown.stdout
    assert seconds < 1


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_flag_ends_a_command_before_it_starts(command: str) -> None:
    result = _run("-m", f"lumbar_tf.{command}", "--no-such-flag=1")
    assert result.returncode == 2
    assert "Usage: python -m lumbar_tf." in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["file", "file/out", "a" * 300])
def test_the_output_is_checked_before_the_work(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    def work(options: ToyOptions) -> int:
        raise AssertionError("the work must not start")

    with pytest.raises(SystemExit) as end:
        run_command(ToyOptions, work, arguments=["--data=a", f"--out={tmp_path / name}"])
    assert end.value.code == 2
    assert "--out must be a folder that can be written" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["train", "stack", "evaluate", "export", "predict", "build_records"])
def test_commands_check_the_folder_that_they_write(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = command_options(command)
    filled = options.model_construct(**{options.output: tmp_path / "file"})
    with pytest.raises(UsageError, match=f"--{options.output} must be a folder"):
        filled.check_output()


_TALKATIVE = """
import sys
from lumbar_tf.cli.command import CommandOptions, run_command
from lumbar_tf.cli.console import Summary, print_answer, print_status

class Options(CommandOptions):
    out: str = ""

def work(options):
    for number in range(20_000):
        print_answer(f"line {number}")
        print_status(f"state {number}")
    open(options.out, "w").close()
    return Summary("Done M\\udcfcller", status=1)

run_command(Options, work)
"""


@pytest.mark.parametrize("flag", ["--quiet", "--json", ""])
@pytest.mark.parametrize("streams", ["|", "2>&1 |", ">&-", ">&- 2>&-"])
def test_a_closed_output_leaves_a_command_its_own_status(tmp_path: Path, streams: str, flag: str) -> None:
    (tmp_path / "talkative.py").write_text(_TALKATIVE)
    call = f"'{sys.executable}' talkative.py --out=end {flag} {streams}"
    line = f"({call} head -1; exit ${{PIPESTATUS[0]}})" if streams.endswith("|") else call
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == 1
    assert (tmp_path / "end").exists()
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_the_help_may_be_cut() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m lumbar_tf.train --help | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
