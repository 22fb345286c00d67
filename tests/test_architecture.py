"""Imports run one way: commands, then reporting and evaluation, down to the vocabulary."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lumbar_tf"

#: A room may import from rooms with a smaller number, and from itself.
RANKS = {
    "labels": 0,
    "files": 0,
    "retry": 0,
    "runners": 0,
    "config": 1,
    "cli": 1,
    "dicom": 2,
    "synthetic": 3,
    "tables": 3,
    "privacy": 3,
    "records": 4,
    "inputs": 5,
    "serving": 5,
    "models": 6,
    # Below training, which writes the out-of-fold tables that it reads: tables and stacking know no networks.
    "ensemble": 7,
    "training": 8,
    "bundle": 9,
    "prediction": 10,
    "monitoring": 11,
    "evaluation": 11,
    "reports": 12,
    "interop": 13,
    "api": 14,
}
COMMAND_RANK = 15
#: Without a room's number: the package itself, for its version.
WITHOUT_TENSORFLOW = (
    "labels.py",
    "files.py",
    "cli",
    "config",
    "runners",
    "dicom",
    "synthetic",
    "tables",
    "privacy",
    "evaluation/metrics.py",
    "ensemble/stacker.py",
    "ensemble/stacker_json.py",
    "ensemble/features.py",
    "evaluation/reliability.py",
    "serving/remote.py",
    "serving/rest_transport.py",
    "retry.py",
    "bundle/loading.py",
    "monitoring",
    "ensemble/intervals.py",
    "ensemble/member_variance.py",
    "prediction/impression.py",
    "prediction/impression_phrases.py",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _module(path: Path) -> str:
    parts = ("lumbar_tf", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def _imports(path: Path, *, everywhere: bool) -> set[str]:
    """Modules that a file imports: anywhere, or at the top level only."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "lumbar_tf":
                found.update(f"lumbar_tf.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_imports_run_downwards(path: Path) -> None:
    room = _room(_module(path))
    if not room:
        return
    rank = RANKS.get(room, COMMAND_RANK)
    for target in _imports(path, everywhere=True):
        if target.startswith("lumbar_tf.") and _room(target) != room:
            target_rank = RANKS.get(_room(target), COMMAND_RANK)
            if (room, _room(target)) == (PRETRAINING, "demo"):
                continue
            assert target_rank < rank, f"{_module(path)} must not import {target}"


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in MODULES
        if path.parent == PACKAGE and '\nif __name__ == "__main__":' in path.read_text()
    ],
    ids=_module,
)
def test_commands_import_tensorflow_only_when_work_starts(path: Path) -> None:
    slow = {"tensorflow", "keras", "keras_cv", "pandas", "sklearn", "matplotlib"}
    assert not {each.split(".")[0] for each in _imports(path, everywhere=False)} & slow


#: Rooms that a command may import besides the library's public names.
COMMAND_ROOMS = {"cli", "config", "labels"}
#: What names the ends of a connection: options of archives and servers, which are interop's and serving's.
CONNECTING = {"predict", "watch"}
CONNECTION_ROOMS = {"interop", "serving", "dicom", "monitoring"}
#: Takes the demo's stages, and installs their result in the package, which is no part of the public names.
PRETRAINING = "pretrain"
PRETRAINING_ROOMS = {"api", "demo"}


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in MODULES
        if path.parent == PACKAGE and '\nif __name__ == "__main__":' in path.read_text()
    ],
    ids=_module,
)
def test_commands_go_through_the_front_door(path: Path) -> None:
    allowed = COMMAND_ROOMS | (CONNECTION_ROOMS if path.stem in CONNECTING else set())
    allowed |= PRETRAINING_ROOMS if path.stem == PRETRAINING else set()
    rooms = {_room(name) for name in _imports(path, everywhere=True) if name.startswith("lumbar_tf.")}
    assert rooms <= allowed, f"{path.name} must use lumbar_tf's public names instead of {rooms - allowed}"


def test_nothing_but_its_own_command_and_the_library_makes_synthetic_studies() -> None:
    importing = {
        _room(_module(path))
        for path in MODULES
        if any(_room(name) == "synthetic" for name in _imports(path, everywhere=True))
    }
    assert importing <= {"synthetic", "api"}


def _modules_below(name: str) -> list[str]:
    path = PACKAGE / name
    return [_module(each) for each in sorted(path.rglob("*.py"))] if path.is_dir() else [_module(path)]


def test_low_rooms_never_load_tensorflow() -> None:
    modules = [
        each for name in WITHOUT_TENSORFLOW if (PACKAGE / name).exists() for each in _modules_below(name)
    ]
    script = (
        f"import importlib, sys\nfor name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    bad = [each for each in ('tensorflow', 'keras') if each in sys.modules]\n"
        "    if bad: sys.exit(f'{name} loads {bad}')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_file_is_named_for_nothing() -> None:
    banned = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in MODULES if path.stem in banned]
