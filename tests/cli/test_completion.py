"""The program `lumbar_tf`, and what bash completes for it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.cli.completion import COMMANDS, CommandFlag, command_flags, command_options, completion_script

REPOSITORY = Path(__file__).resolve().parents[2]
#: What bash does when Tab is pressed behind words that it has parted; a line a proposal.
_TAB = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_lumbar_tf
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "lumbar_tf.bash"
    path.write_text(completion_script("bash"))
    return path


def _complete(script: Path, folder: Path, *words: str) -> list[str]:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    done = subprocess.run(
        [bash, "--norc", "-c", _TAB, "bash", str(script), *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.split("\n") if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lumbar_tf", "pre"], ["preview", "predict", "pretrain"]),
        (["lumbar_tf", "sta"], ["stack "]),
        (["lumbar_tf", "verify", "--p"], ["--phi", "--pseudonym-key-file="]),
        (["lumbar_tf", "predict", "--str"], ["--strict "]),
        (["lumbar_tf", "predict", "--formats", "=", "s"], ["sheets", "sr", "sc"]),
        (["lumbar_tf", "predict", "--formats", "=", "sr,g"], ["sr,gsps "]),
        (["lumbar_tf", "predict", "--formats=sr,p"], ["--formats=sr,pdf "]),
        (["lumbar_tf", "predict", "--qu"], ["--quiet "]),
        # bash parts words at =
        (["lumbar_tf", "train", "--plane", "=", "sag"], ["sagittal_t1", "sagittal_t2"]),
        (["lumbar_tf", "train", "--plane", "="], ["sagittal_t1", "sagittal_t2", "axial_t2"]),
        (["lumbar_tf", "train", "--plane", "ax"], ["axial_t2 "]),
        # ... unless it was told not to; zsh never does
        (["lumbar_tf", "train", "--plane=ax"], ["--plane=axial_t2 "]),
        (["lumbar_tf", "evaluate", "--head", "=", "c"], ["competition "]),
        (["lumbar_tf", "predict", "--study", "=", "ca"], ["cases"]),
        (["lumbar_tf", "predict", "--study", "cases/st"], ["cases/study one"]),
        (["lumbar_tf", "evaluate", "--predictions", "=", "a.csv,b"], ["a.csv,b.csv"]),
        (["lumbar_tf", "--completion", "=", "b"], ["bash "]),
        (["lumbar_tf", "nonsense", "--"], []),
    ],
)
def test_bash_completes(script: Path, tmp_path: Path, words: list[str], expected: list[str]) -> None:
    (tmp_path / "cases" / "study one").mkdir(parents=True)
    (tmp_path / "b.csv").touch()
    assert _complete(script, tmp_path, *words) == expected


def test_every_command_is_known_to_the_program() -> None:
    package = REPOSITORY / "lumbar_tf"
    runs = re.compile(r'^if __name__ == "__main__":\n    run_command\(', re.MULTILINE)
    found = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__main__")
        for path in package.rglob("*.py")
        if runs.search(path.read_text(encoding="utf-8"))
    }
    assert set(COMMANDS) == found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_completed(command: str) -> None:
    options = command_options(command)
    words = {flag.word.removesuffix("=") for flag in command_flags(command)}
    shown = {
        f"--no{name}" if field.default is True else f"--{name.replace('_', '-')}"
        for name, field in options.model_fields.items()
    }
    assert words == shown | {"--quiet", "--json", "--help"}
    assert not {"quiet", "json", "help"} & set(options.model_fields), "these are every command's"


def test_types_say_what_a_flag_takes() -> None:
    flags = {flag.word: flag for flag in command_flags("train")}
    assert flags["--plane="] == CommandFlag("--plane=", ("sagittal_t1", "sagittal_t2", "axial_t2"))
    assert flags["--strategy="].choices == ("auto", "mirrored", "tpu")
    assert flags["--config="] == CommandFlag("--config=", is_path=True)
    assert flags["--fold="] == CommandFlag("--fold=")


def test_zsh_runs_the_same_functions() -> None:
    first, _, rest = completion_script("zsh").partition("\n")
    assert "bashcompinit" in first and rest == completion_script("bash")
    with pytest.raises(UsageError, match="fish"):
        completion_script("fish")


def _program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lumbar_tf", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )


def test_the_program_lists_the_commands() -> None:
    shown = _program()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  ")] == list(COMMANDS)


def test_the_program_runs_a_command() -> None:
    shown = _program("stack", "--oof=absent", "--out=absent")
    assert shown.returncode == 2
    assert shown.stderr.startswith(
        "ERROR: --oof must match a file. Received: 'absent'.\nUsage: python -m lumbar_tf.stack"
    )
    assert _program("synthetic", "--help").stdout.startswith("Writes synthetic")
    wrong = _program("stak")
    assert wrong.returncode == 2 and "Received: 'stak'" in wrong.stderr and wrong.stdout == ""
