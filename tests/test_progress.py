import pytest

from lumbar_tf.progress import progress_bar, silent_progress


def test_plain_lines_end_with_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Reading", 3, unit="file") as advance:
        advance(1)
        advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Reading: 3/3, ")
    assert captured.err.rstrip().endswith("file/s")


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with silent_progress(1) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")
