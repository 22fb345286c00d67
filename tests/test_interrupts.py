"""Ctrl-C and SIGTERM: what is left is whole, is said, and can be gone on with."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf import demo
from lumbar_tf.api import arguments
from lumbar_tf.build_records import BuildRecordsOptions, run_build_records
from lumbar_tf.cli.command import run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import Advance
from lumbar_tf.demo import DemoOptions
from lumbar_tf.records.build_state import has_unfinished_build
from lumbar_tf.records.manifest import has_manifest
from tests.small_cohort import write_small_cohort

REPOSITORY = Path(__file__).resolve().parents[1]
IDS = ["910000001", "910000002", "910000003"]


def _run(options: Any, work: Any, *words: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(options, work, arguments=words)
    return int(end.value.code or 0)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _interrupting(number: signal.Signals) -> Callable[..., Any]:
    """Progress whose first step brings a signal, as a user or a scheduler would."""

    @contextmanager
    def show(description: str, total: int, *, unit: str = "study") -> Iterator[Advance]:
        yield lambda count: os.kill(os.getpid(), number)

    return show


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_records_go_on_after_an_interrupt(
    number: signal.Signals,
    status: int,
    tmp_path: Path,
    write_dicom: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_small_cohort(tmp_path / "data", IDS, write_dicom)
    out = tmp_path / "out"
    flags = (f"--data={data}", "--studies-per-shard=1", "--folds=2")

    def build(*words: str) -> int:
        return _run(BuildRecordsOptions, run_build_records, *flags, *words)

    assert build(f"--out={tmp_path / 'whole'}") == 0
    with monkeypatch.context() as patch:
        patch.setattr(arguments, "progress_bar", _interrupting(number))
        capsys.readouterr()
        assert build(f"--out={out}") == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ERROR: interrupted\n") and "--resume" in said.err
    assert has_unfinished_build(out) and not has_manifest(out)
    assert build(f"--out={out}") == 1, "an unfinished build is not taken for a new one"
    assert build(f"--out={out}", "--resume") == 0
    assert _tree(out) == _tree(tmp_path / "whole")


def test_a_demo_goes_on_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    flags = (f"--config={REPOSITORY / 'configs' / 'demo.yaml'}", f"--out={out}", "--workers=1")
    sizes = "--set=num_folds=2,cohort.num_training=2,cohort.num_held_out=1"
    monkeypatch.setattr(demo, "train_members", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert _run(DemoOptions, demo.run_demo, *flags, sizes) == 130
    assert "--resume" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert has_manifest(out / "tfrecords")

    for stage in ("train_members", "stack_members", "export_and_predict"):
        monkeypatch.setattr(demo, stage, lambda *_: None)
    monkeypatch.setattr(demo, "summarise", lambda *_: Summary("Done"))
    assert _run(DemoOptions, demo.run_demo, *flags, sizes, "--resume") == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    # Of another configuration, it would be a mixture.
    assert _run(DemoOptions, demo.run_demo, *flags, "--resume") == 1
    assert "must have been begun with the same configuration" in capsys.readouterr().err
