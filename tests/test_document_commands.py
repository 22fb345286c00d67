"""Every command that README.md and docs/ show is run here, by the test that its mark names, or says why not.

The blocks of docs/get_started.md run first, in a new folder; those of each other document in a copy of what
they left. A command's arguments are the document's own, but for the tables below. Code in the running text is
not run: tests/test_command_lines.py checks its flags.
"""

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lumbar_tf.bundle import self_test
from lumbar_tf.bundle.loading import ServedEnsemble
from lumbar_tf.config import load_plane_config
from lumbar_tf.tables.labels import read_labels
from tests.documents import DOCUMENTS, REPOSITORY, Block, document_name, shell_blocks
from tests.interop.hospital import write_hospital_export
from tests.small_cohort import write_small_cohort
from tests.trained_pipeline import TrainedPipeline

GET_STARTED = REPOSITORY / "docs" / "get_started.md"
#: What is run instead of what a document says: sizes and paths, nothing else.
INSTEAD = {
    # The first study of the cohort: it is compared with the pipeline's, which then stands for the cohort.
    "--out=data/cohort --studies=14": "--out=first_study --studies=1",
    "--out=inspection": "--out=inspection --max-montages=1",
    "--out=evaluation": "--out=evaluation --resamples=20",
    "--workers=8": "--workers=2",
    # One patient cannot be dealt to five folds.
    "--data=EXPORT --out=PSEUDONYMOUS": "--data=EXPORT,competition.zip --out=PSEUDONYMOUS",
    # Two studies that no network has seen.
    "--study=DIR ": "--study=data/new ",
    "--labels=DIR/train.csv": "--labels=data/cohort/train.csv",
    "--labels=NEW/train.csv": "--labels=data/new/train.csv",
    "--labels=train.csv": "--labels=data/cohort/train.csv",
}
#: Commands that differ in paths from one that get_started.md has run, by its beginning.
SAME = {
    ("docs/bundle.md", "python -m lumbar_tf.export --runs=runs --labels=train.csv --out=models/lumbar"): (
        "python -m lumbar_tf.export --labels=data/cohort/train.csv"
    ),
    (
        "docs/stacking.md",
        "python -m lumbar_tf.stack --oof='runs/*/*/oof.csv' --labels=DIR/train.csv "
        "--folds=tfrecords/folds.csv --out=runs/stack",
    ): "python -m lumbar_tf.stack --oof='runs/*/*/oof.csv' --labels=data/cohort/train.csv",
}
BLOCKS = {path: shell_blocks(path) for path in DOCUMENTS}
ALL_BLOCKS = [block for blocks in BLOCKS.values() for block in blocks]
_PACKAGE = "python -m lumbar_tf."
# runpy's, of modules that other tests of this process have imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_opening() -> Iterator[None]:
    """A bundle is opened and tested once, not once for each command that grades."""
    opened: dict[bytes, ServedEnsemble] = {}
    really = self_test.load_bundle

    def open_once(path: Path, *, with_saliency: bool = False, **_: object) -> ServedEnsemble:
        version = self_test.find_version(path)
        content = (version / "saved_model.pb").read_bytes()
        if content not in opened:
            opened[content] = really(path, with_saliency=with_saliency)
        return opened[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_test, "load_bundle", open_once)
        yield


@pytest.fixture(scope="module")
def started(trained_pipeline: TrainedPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything that docs/get_started.md says has been done."""
    folder = tmp_path_factory.mktemp("started")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    shutil.copytree(trained_pipeline.out / "training", folder / "data" / "cohort")
    for block in BLOCKS[GET_STARTED]:
        for command in block.commands if _is_run(block) else ():
            if command.startswith(f"{_PACKAGE}train") and not (folder / "runs").exists():
                # Training passes over folds that are done, and refuses those of another configuration, of
                # other records or folds: going on with the pipeline's proves that they are the same.
                shutil.copytree(
                    trained_pipeline.out / "runs", folder / "runs", ignore=shutil.ignore_patterns("stack")
                )
            _run(command, folder, block)
    return folder


def _give(name: str, folder: Path, write_dicom: Callable[..., Path]) -> None:
    """Makes what a document calls by a name that stands for whatever a reader has."""
    if name == "other.csv":
        shutil.copy(folder / "runs" / "stack" / "oof_probability.csv", folder / name)
    elif name == "groups.csv":
        study_ids, _ = read_labels(folder / "data" / "cohort" / "train.csv")
        sites = ("north", "south")
        rows = [f"{study},{sites[place % 2]},{30 + place}" for place, study in enumerate(study_ids)]
        (folder / name).write_text("\n".join(["study_id,site,age", *rows]), encoding="utf-8")
    elif name == "competition.zip":
        cohort = write_small_cohort(folder / "competition", tuple(map(str, range(5001, 5007))), write_dicom)
        shutil.make_archive(str(cohort), "zip", cohort)
    else:
        write_hospital_export(folder / name)


def _lay_out(path: Path, started: Path, folder: Path, write_dicom: Callable[..., Path]) -> None:
    """Copies what get_started.md left, and adds what the document's commands name besides."""
    shutil.copytree(started, folder, symlinks=True, copy_function=_copy)
    commands = " ".join(each for block in BLOCKS[path] if _is_run(block) for each in block.commands)
    for name in ("other.csv", "groups.csv", "competition.zip", "EXPORT", "DISC"):
        if re.search(rf"\b{name}\b", commands):
            _give(name, folder, write_dicom)


def _copy(source: str, target: str) -> None:
    """Links what is large and never changed in place."""
    (os.link if source.endswith((".dcm", ".tfrecord")) else shutil.copy2)(source, target)


def _is_run(block: Block) -> bool:
    return not block.not_run and not block.run_by


def _adapted(command: str) -> str:
    for said, instead in INSTEAD.items():
        command = f"{command} ".replace(said, instead).strip()
    return command


def _run(command: str, folder: Path, block: Block) -> None:
    """Runs a command in a folder: the package's own in this process, where TensorFlow is loaded already."""
    command = _adapted(command)
    if not command.startswith(_PACKAGE):
        subprocess.run(["bash", "-euc", command], cwd=folder, check=True)
        return
    _, _, module, *words = shlex.split(command)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__")
    assert not end.value.code, f"{block.place}: {command}: exit status {end.value.code}"


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=lambda block: block.place)
def test_a_mark_gives_a_reason_or_a_test_that_names_the_commands(block: Block) -> None:
    if not block.run_by:
        return
    name = block.run_by.partition(":")[0].strip()
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    for command in block.commands:
        called = shlex.split(command)[2] if command.startswith("python -m ") else command.split()[1]
        assert called in text or called.rpartition(".")[2] in text, f"{block.place}: {name} runs no {called}"


def test_blocks_are_found_with_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "Text `python -m a --b`.\n\n    python -m a \\\n        --b=1   # why\n\n    not: one\n\n"
        "<!-- not run here: takes long -->\n\n```sh\nmake demo\n```\n\n"
        "<!-- run by tests/test_end_to_end.py: in part -->\n\n    pip install x\n\n```yaml\na: 1\n```\n"
    )
    assert shell_blocks(path) == [
        Block(path, 3, ("python -m a --b=1", "not: one")),
        Block(path, 10, ("make demo",), not_run="takes long"),
        Block(path, 16, ("pip install x",), run_by="tests/test_end_to_end.py: in part"),
    ]
    path.write_text("```\npython -m a\n```\n")
    with pytest.raises(AssertionError, match="no language"):
        shell_blocks(path)


def test_get_started_leaves_what_it_says(started: Path, trained_pipeline: TrainedPipeline) -> None:
    first = sorted((started / "first_study" / "train_images").rglob("*.dcm"))
    assert len(first) > 30
    for path in first:
        other = trained_pipeline.out / "training" / path.relative_to(started / "first_study")
        assert path.read_bytes() == other.read_bytes()
    for name in (
        "inspection/inspection.html",
        "evaluation/evaluation.html",
        "models/lumbar/1/assets.extra/model_card.md",
        "predictions/submission.csv",
        "predictions/probability.csv",
        "predictions/reports/800000001.html",
    ):
        assert (started / name).is_file(), name


def test_the_configurations_of_get_started_are_those_of_the_trained_pipeline(
    trained_pipeline: TrainedPipeline,
) -> None:
    for plane in trained_pipeline.config.planes:
        path = REPOSITORY / "configs" / "get_started" / f"{plane.plane.value}.yaml"
        assert load_plane_config(path) == plane


@pytest.mark.parametrize("path", [each for each in DOCUMENTS if each != GET_STARTED], ids=document_name)
def test_the_commands_of_a_document_run_in_its_order(
    path: Path, started: Path, tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    folder = tmp_path / "ground"
    _lay_out(path, started, folder, write_dicom)
    for block in BLOCKS[path]:
        for command in block.commands if _is_run(block) else ():
            if (document_name(path), command) in SAME:
                said = [each for other in BLOCKS[GET_STARTED] for each in other.commands]
                assert any(each.startswith(SAME[document_name(path), command]) for each in said)
                continue
            _run(command, folder, block)
