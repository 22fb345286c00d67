"""Builds that are killed, or run out of disk, and go on: the records come out the same to the byte."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lumbar_tf.records.build_state import has_unfinished_build
from lumbar_tf.records.manifest import has_manifest
from lumbar_tf.synthetic.cohort import CohortOptions, write_cohort
from tests.records.killing import run_and_kill

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_KILLS = 20
Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_cohort(folder, CohortOptions(num_studies=5, seed=3, workers=2))
    return folder


def _command(data: Path, out: Path, *words: str) -> list[str]:
    flags = (f"--data={data}", f"--out={out}", "--studies-per-shard=1", "--folds=2", "--workers=2", *words)
    return [sys.executable, "-m", "lumbar_tf.build_records", *flags]


def _build(data: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = _command(data, out, *words)
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_is_the_same(
    phantoms: Path, tmp_path: Path, read_tree: Tree
) -> None:
    started = time.monotonic()
    whole = _build(phantoms, tmp_path / "whole")
    duration = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    expected = read_tree(tmp_path / "whole")
    rng = random.Random(2024)
    num_cut, num_hidden = 0, 0
    for place in range(NUM_KILLS):
        out = tmp_path / f"out{place}"
        # Spread over the whole run, the moments around its last writes included.
        moment = duration * (place + rng.random()) / NUM_KILLS
        num_cut += run_and_kill(_command(phantoms, out), moment, tmp_path / "log").was_killed
        num_hidden += has_unfinished_build(out) and not has_manifest(out)
        resumed = _build(phantoms, out, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert read_tree(out) == expected
    # The test is of no use where builds end before they are killed, or are killed before they begin.
    assert num_cut >= NUM_KILLS // 2
    assert num_hidden >= 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, less than the records need."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_said_and_resumed_from(
    phantoms: Path, tmp_path: Path, small_disk: Path, read_tree: Tree
) -> None:
    out = small_disk / "records"
    failed = _build(phantoms, out)
    assert failed.returncode == 1
    assert "must have room" in failed.stderr
    assert "--resume" in failed.stderr
    assert "Traceback" not in failed.stderr
    unfinished = [path for path in out.rglob("*") if path.is_file() and path.name.endswith(".tmp")]
    assert unfinished == []
    assert not has_manifest(out)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    resumed = _build(phantoms, out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert _build(phantoms, tmp_path / "whole").returncode == 0
    assert read_tree(out) == read_tree(tmp_path / "whole")
