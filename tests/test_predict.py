"""The call: a model or a server, and what belongs to each."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from lumbar_tf.api import grading
from lumbar_tf.cli.command import parse_options
from lumbar_tf.predict import PredictOptions
from lumbar_tf.serving.training_data import TrainingData
from tests.command_line import run_in_process
from tests.prediction.test_pipeline import FakeEnsemble
from tests.small_cohort import write_small_cohort


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model=models/lumbar/3"],
        ["--server=grader:8500"],
        ["--server=http://grader", "--deadline-s=2.5", "--attempts=1", "--in-flight=8", "--gzip"],
        ["--server=grader", "--tls-ca=ca.pem"],
        ["--server=https://grader", "--tls-ca=ca.pem", "--tls-cert=me.pem", "--tls-key=me.key"],
        ["--server=grader", "--server-model=spine", "--server-label=stable"],
        ["--server=grader", "--server-version=12"],
        ["--formats=sr,gsps,pdf,sc,fhir"],
        ["--formats="],
    ],
)
def test_a_call_that_makes_sense_is_taken(words: list[str]) -> None:
    assert parse_options(PredictOptions, ["--study=here", *words]).study == Path("here")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model=m", "--server=grader"], "--model and --server must not be given together"),
        (["--server=grader", "--force-self-test"], "--force-self-test must not come with --server"),
        (["--gzip"], "--gzip must come with --server"),
        (["--tls-ca=ca.pem", "--attempts=2"], "--attempts, --tls-ca must come with --server"),
        (["--server=ftp://grader"], "A server must be HOST:PORT"),
        (["--server=grpc://grader", "--tls-ca=ca.pem"], "must come with HOST:PORT, grpcs:// or https://"),
        (["--server=grader", "--tls-cert=me.pem"], "must be given together"),
        (["--server=grader", "--server-version=1", "--server-label=a"], "must not be given together"),
        (["--server=grader", "--server-version=newest"], "server_version"),
        (["--server=grader", "--deadline-s=0"], "deadline_s"),
        (["--server=grader", "--in-flight=0"], "in_flight"),
        (["--formats=sr,gspx"], r"must be of sheets, .*, fhir\. Received: 'gspx' \(did you mean gsps\?\)\."),
        (["--formats=word"], r"must be of sheets, .*, fhir\. Received: 'word'\."),
    ],
)
def test_a_call_that_makes_none_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_options(PredictOptions, ["--study=here", *words])


def test_a_server_that_is_not_there_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    words = ["--server=http://127.0.0.1:1", "--attempts=1", f"--study={tmp_path / 'study'}"]
    done = run_in_process("predict", *words, f"--out={tmp_path / 'out'}")
    assert done.returncode == 1
    assert "ERROR: No response from http://127.0.0.1:1 (unavailable, 1 attempt)" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_summary_states_what_the_model_was_trained_on(
    tmp_path: Path, write_dicom: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", ["910000001"], write_dicom)
    fake = nullcontext((FakeEnsemble(), "models/5"))
    monkeypatch.setattr(grading, "connect_ensemble", lambda source, **options: fake)
    words = (f"--study={cohort}", f"--out={tmp_path / 'out'}", "--formats=")
    done = run_in_process("predict", *words, "--model=models/5")
    assert done.returncode == 0, done.stderr
    assert re.search(r"training data +The model was trained on made studies\.\n", done.stdout)


def _fake_pretrained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "5").mkdir(parents=True)
    (folder / "5" / "saved_model.pb").touch()
    monkeypatch.setenv("LUMBAR_TF_PRETRAINED", str(folder))


def test_without_a_model_the_pretrained_ensemble_is_used_and_named(
    tmp_path: Path, write_dicom: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", ["910000001"], write_dicom)
    _fake_pretrained(tmp_path / "pretrained", monkeypatch)
    loaded: list[Path] = []

    def connect(source: Path, **options: object) -> nullcontext[tuple[FakeEnsemble, Path]]:
        loaded.append(source)
        fake = FakeEnsemble()
        fake.training = TrainingData("studies of a generator", is_synthetic=source.name == "pretrained")
        return nullcontext((fake, source))

    monkeypatch.setattr(grading, "connect_ensemble", connect)
    monkeypatch.chdir(tmp_path)
    words = (f"--study={cohort}", f"--out={tmp_path / 'out'}", "--formats=")
    line = "No model was named: using the pretrained ensemble 5, trained on synthetic anatomy.\n"
    done = run_in_process("predict", *words)
    assert done.returncode == 0, done.stderr
    assert line in done.stderr
    assert line not in run_in_process("predict", *words, "--model=models/mine").stderr
    # An ensemble of one's own, where `export` writes it, comes first.
    (tmp_path / "models" / "lumbar" / "1").mkdir(parents=True)
    (tmp_path / "models" / "lumbar" / "1" / "saved_model.pb").touch()
    assert line not in run_in_process("predict", *words).stderr
    assert loaded == [tmp_path / "pretrained", Path("models/mine"), Path("models/lumbar")]


def test_a_library_call_logs_that_the_pretrained_ensemble_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _fake_pretrained(tmp_path / "pretrained", monkeypatch)
    fake = nullcontext((FakeEnsemble(), "pretrained/5"))
    monkeypatch.setattr(grading, "connect_ensemble", lambda source, **options: fake)
    monkeypatch.chdir(tmp_path)
    grading.load_ensemble()
    assert caplog.messages == [
        "No model was named: using the pretrained ensemble 5, trained on made studies."
    ]


def test_without_a_model_and_without_a_pretrained_one_the_way_to_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMBAR_TF_PRETRAINED", str(tmp_path / "absent"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    done = run_in_process("predict", "--study=study")
    assert done.returncode == 1
    for words in ("A model must be named (--model)", str(tmp_path / "absent"), "`make pretrained`"):
        assert words in done.stderr
