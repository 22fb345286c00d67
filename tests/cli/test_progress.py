import re

import pytest

from lumbar_tf.cli import progress
from lumbar_tf.cli.console import OutputOptions, output_options
from lumbar_tf.cli.progress import duration, progress_bar, show_activity, silent_progress


def test_plain_lines_end_with_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Reading", 3, unit="file") as advance:
        advance(1)
        advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Reading: 3/3, ")
    assert captured.err.rstrip().endswith("file/s")


def test_a_line_has_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 20.0, 40.0, 400.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress_bar("Training", 10, unit="epoch") as advance:
        advance(1)
        advance(3)
        advance(6)
    assert capsys.readouterr().err.splitlines() == [
        "Training: 1/10, 20.0 s/epoch, 3 min left",
        "Training: 4/10, 10.0 s/epoch, 60 s left",
        "Training: 10/10, 40.0 s/epoch",
    ]


def test_work_of_unknown_length_says_that_it_began_and_how_long_it_took(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with show_activity("Loading"):
        assert capsys.readouterr().err == "Loading ...\n"
    assert capsys.readouterr().err == ""
    clock = iter([0.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with show_activity("Loading"):
        pass
    assert re.search(r"^Loading: done in 30\.0 s$", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with silent_progress(1) as advance:
        advance(1)
    with output_options(OutputOptions(is_quiet=True)):
        with progress_bar("Reading", 1) as advance:
            advance(1)
        with show_activity("Loading"):
            pass
    assert capsys.readouterr() == ("", "")
