"""The command: exit status, what is printed, and the windows that it takes."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.cli.command import run_command
from lumbar_tf.monitor import MonitorOptions, run_monitor
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.monitoring.reference import REFERENCE_PATH, make_reference, write_reference

START = datetime(2026, 10, 1, tzinfo=UTC)


def _values(rng: np.random.Generator, shift: float) -> dict[str, float | None]:
    return {
        "probability/spinal_canal_stenosis_l4_l5/severe": float(rng.beta(1, 5)),
        "images/axial_t2/present": 1.0,
        "images/axial_t2/sharpness": float(rng.normal(0.2 - shift, 0.02)),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference in an exported version, and a log of two months: a new scanner comes with the second."""
    folder = tmp_path_factory.mktemp("site")
    rng = np.random.default_rng(0)
    reference = make_reference([_values(rng, 0) for _ in range(500)], model="3", made_from="a test")
    write_reference(folder / "models" / "3" / REFERENCE_PATH, reference)
    for day in range(61):
        log = AnswerLog(folder / "log", now=lambda day=day: START + timedelta(days=day, hours=9))
        for _ in range(4):
            log.append(_values(rng, 0.03 if day >= 31 else 0.0), model="3")
    return folder


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        run_command(MonitorOptions, run_monitor, arguments=words)
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_a_quiet_month_and_one_with_a_new_scanner(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--log={site / 'log'}", f"--reference={site / 'models'}"]
    status, out, _ = _run(capsys, *words, "--until=2026-11-01")
    assert status == 0
    assert "124 studies of version 3 against a test: 0 of 3 quantities moved" in out
    status, out, _ = _run(capsys, *words, "--since=2026-11-01")
    assert status == 1
    (line,) = (line for line in out.splitlines() if "PSI" in line)
    assert "recalibrate" not in out
    assert line.strip().startswith("images/axial_t2/sharpness: large")
    before, after = re.findall(r"median (\S+) -> (\S+)", line)[0]
    assert (float(before), float(after)) == pytest.approx((0.2, 0.17), abs=0.005)


def test_recalibration_is_named_where_probabilities_moved_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    reference = make_reference([_values(rng, 0) for _ in range(500)], model="3", made_from="a test")
    write_reference(tmp_path / "reference.json", reference)
    words = [f"--log={tmp_path / 'log'}", f"--reference={tmp_path / 'reference.json'}"]
    log = AnswerLog(tmp_path / "log", now=lambda: START)
    for _ in range(100):
        values = _values(rng, 0)
        severe = "probability/spinal_canal_stenosis_l4_l5/severe"
        log.append({**values, severe: float(rng.beta(2, 4))}, model="3")
    status, out, _ = _run(capsys, *words)
    assert status == 1 and "lumbar_tf.recalibrate" in out
    assert "lumbar_tf.recalibrate" in json.loads(_run(capsys, *words, "--format=json")[1])["advice"]
    # A new scanner as well: the images come first.
    log = AnswerLog(tmp_path / "log", now=lambda: START + timedelta(days=1))
    for _ in range(100):
        log.append({**_values(rng, 0.03), severe: float(rng.beta(2, 4))}, model="3")
    status, out, _ = _run(capsys, *words, "--since=2026-10-02")
    assert status == 1 and "images/axial_t2/sharpness: large" in out
    assert "probability/" in out and "lumbar_tf.recalibrate" not in out


def test_json_says_the_same(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--log={site / 'log'}", f"--reference={site / 'models'}", "--since=2026-11-01", "--format=json"]
    status, out, _ = _run(capsys, *words)
    content = json.loads(out)
    assert status == 1
    assert content["moved"] == ["images/axial_t2/sharpness"]
    assert (content["model"], content["num_studies"], content["num_bad_lines"]) == ("3", 120, 0)
    assert content["quantities"][0]["name"] == "images/axial_t2/sharpness"


def test_a_window_that_is_too_small_is_an_error_and_no_verdict(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _run(
        capsys, f"--log={site / 'log'}", f"--reference={site / 'models'}", "--since=2026-11-25T08:00"
    )
    assert (status, out) == (1, "")
    assert "ERROR: A window must have at least 30 studies" in err


def test_an_accepted_period_becomes_the_reference(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.json"
    log = f"--log={site / 'log'}"
    status, out, _ = _run(
        capsys, log, "--since=2026-11-01", "--until=2026-11-16", f"--write-reference={path}"
    )
    assert status == 0
    assert out.splitlines()[:2] == ["Reference written", "  studies    60"]
    assert str(path) in out
    status, _, _ = _run(capsys, log, f"--reference={path}", "--since=2026-11-16")
    assert status == 0
    status, _, _ = _run(capsys, log, f"--reference={path}", "--until=2026-11-01")
    assert status == 1


@pytest.mark.parametrize(
    "words", [["--since=yesterday"], ["--format=xml"], ["--write-reference=a", "--reference=b"]]
)
def test_a_wrong_call(words: list[str], site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, f"--log={site / 'log'}", *words)[0] == 2


def test_a_folder_without_a_log_or_a_reference_is_named(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = _run(capsys, f"--log={tmp_path}", f"--reference={site / 'models'}")
    assert status == 1 and "--log must be" in err
    status, _, err = _run(capsys, f"--log={site / 'log'}", f"--reference={tmp_path}")
    assert status == 1 and "--reference must be" in err
