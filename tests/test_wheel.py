"""The sdist and the wheel, installed into an environment that the checkout is not part of."""

import os
import site
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (REPOSITORY / "configs").rglob("*") if path.is_file())


def _run(*words: str | Path, cwd: Path) -> str:
    """Runs a program outside the checkout; returns its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout}"
    return result.stdout


def _visible_names() -> set[str]:
    """Names in the checkout's top folder, without the caches of tools that run beside this test."""
    return {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    # What git tracks and nothing else, so that an ignored file cannot help.
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("the checkout is no git repository")
    for name in filter(None, tracked.stdout.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    _run(sys.executable, "setup.py", "-q", "sdist", f"--dist-dir={folder}", cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", f"--wheel-dir={folder}", sdist, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment: the wheel, and this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    # The editable install does not come along: .pth files count in an environment's own folder only.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    (wheel,) = dist.glob("*.whl")
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", wheel, cwd=folder)
    return python


def test_the_wheel_holds_every_configuration_and_template(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(ZipFile(wheel).namelist())
    expected = {f"lumbar_tf/configs/{path.relative_to(REPOSITORY / 'configs')}" for path in CONFIGS}
    package = REPOSITORY / "lumbar_tf"
    expected |= {
        f"lumbar_tf/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names >= expected
    assert not [name for name in names if name.startswith("tests/")]


def test_the_metadata_name_python_licence_and_installed_requirements(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    archive = ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    fields = [line.partition(": ")[::2] for line in lines]
    assert ("Requires-Python", ">=3.11") in fields
    assert any(key == "Classifier" and value.startswith("Topic") for key, value in fields)
    assert any(key == "Project-URL" for key, _ in fields)
    requirements = [Requirement(value) for key, value in fields if key == "Requires-Dist"]
    needed = [each for each in requirements if each.marker is None]
    assert len(needed) > 10
    assert [str(each) for each in needed if not each.specifier.contains(version(each.name))] == []


def test_the_program_answers_from_the_wheel(python: Path, tmp_path: Path) -> None:
    place = _run(python, "-c", "import lumbar_tf; print(lumbar_tf.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(python.parents[1])
    assert _run(python.parent / "lumbar_tf", "--version", cwd=tmp_path).strip() == version("lumbar_tf")
    assert "build_records" in _run(python.parent / "lumbar_tf", "--help", cwd=tmp_path)


@pytest.mark.slow
def test_get_started_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    """The commands of docs/get_started.md on one plane, to a trained member and a prediction."""

    def command(name: str, *flags: str) -> None:
        _run(python, "-m", f"lumbar_tf.{name}", *flags, cwd=tmp_path)

    before = _visible_names()
    plane = "--plane=sagittal_t2"
    cohort = ("--seed=2024", "--severity-shift=0.45")
    command("synthetic", "--out=data/cohort", "--studies=14", *cohort)
    command("synthetic", "--out=data/new", "--studies=1", "--seed=1", "--first-study-id=800000001")
    command("build_records", "--data=data/cohort", "--folds=2", "--fold-seed=2024")
    # The localizer is trained as it stands: without level points there is no prediction to stack.
    command(
        "train", plane, "--config=configs/get_started/sagittal_t2.yaml", "--set", "grader.training.epochs=1"
    )
    labels = "--labels=data/cohort/train.csv"
    command("stack", "--oof=runs/*/*/oof.csv", labels, "--folds=tfrecords/folds.csv", "--out=runs/stack")
    command("export", labels, "--data=Synthetic studies.", "--synthetic")
    command("predict", "--study=data/new")
    assert (tmp_path / "predictions" / "reports" / "800000001.html").is_file()
    assert len((tmp_path / "predictions" / "submission.csv").read_text().splitlines()) == 1 + 25
    assert _visible_names() == before


@pytest.mark.slow
def test_a_study_is_graded_from_the_wheel_without_a_model(python: Path, tmp_path: Path) -> None:
    """The first commands of docs/get_started.md."""
    if not (REPOSITORY / "lumbar_tf" / "pretrained").is_dir():
        pytest.skip("the checkout has no pretrained ensemble: run `make pretrained`")
    _run(python, "-m", "lumbar_tf.synthetic", "--out=first", "--studies=1", "--seed=7", cwd=tmp_path)
    shown = _run(python, "-m", "lumbar_tf.predict", "--study=first", "--out=first_results", cwd=tmp_path)
    assert "No model was named: using the pretrained ensemble" in shown
    assert len(list((tmp_path / "first_results" / "reports").glob("*.html"))) == 1
