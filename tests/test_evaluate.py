import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.records.manifest import write_manifest
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.command_line import run_in_process
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels
from tests.records.made_manifests import make_manifest

_IDS = make_study_ids(20)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, two tables of its studies, and records that hold nothing but their names."""
    folder = tmp_path_factory.mktemp("cohort")
    labels = draw_labels(20)
    write_labels(folder / "train.csv", _IDS, labels)
    for seed, name in enumerate(("one", "two")):
        write_out_of_fold_table(folder / f"{name}.csv", _IDS, draw_answers(labels, sharpness=1.0, seed=seed))
    (folder / "records").mkdir()
    write_manifest(folder / "records", make_manifest({study: study for study in _IDS}))
    return folder


def test_help_answers_in_under_a_second() -> None:
    # Of processor time: what else runs on the machine is no fault of the command.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "lumbar_tf.evaluate", "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "--predictions" in shown.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 1.0


def test_several_tables_and_records_in_one_call(cohort: Path, tmp_path: Path) -> None:
    found = run_in_process(
        "evaluate",
        f"--predictions={cohort / 'one.csv'},{cohort / 'two.csv'}",
        f"--labels={cohort / 'train.csv'}",
        f"--records={cohort / 'records'}",
        "--head=competition",
        "--resamples=20",
        f"--out={tmp_path / 'out'}",
    )
    assert found.returncode == 0, found.stderr
    # The tables lie beside no report and no members.
    assert metrics_of(tmp_path / "out")["before"] == []
    assert "No reports of these studies" in (tmp_path / "out" / "evaluation.html").read_text()
    assert "subgroups" in found.stdout and str(tmp_path / "out" / "evaluation.html") in found.stdout
    metrics = metrics_of(tmp_path / "out")
    assert [table["name"] for table in metrics["comparison"]] == ["one", "two"]
    assert metrics["head"] == "competition"
    assert {each["attribute"] for each in metrics["subgroups"]} >= {"Vendor", "Field strength", "Planes"}
    options = json.loads((tmp_path / "out" / "options.json").read_text())
    assert options["predictions"] == [str(cohort / "one.csv"), str(cohort / "two.csv")]


def metrics_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))


def test_what_predict_left_beside_a_table_is_found(cohort: Path, tmp_path: Path) -> None:
    """Members, reports and the model's version; labels beside a `truth.csv` are synthetic."""
    predicted, labelled = tmp_path / "predictions", tmp_path / "cohort"
    (predicted / "reports").mkdir(parents=True)
    labelled.mkdir()
    shutil.copy(cohort / "one.csv", predicted / "probability.csv")
    shutil.copy(cohort / "two.csv", predicted / "members.csv")
    shutil.copy(cohort / "train.csv", labelled)
    (labelled / "truth.csv").touch()
    (predicted / "results.json").write_text('{"model": "31", "studies": []}')
    for study in _IDS:
        (predicted / "reports" / f"{study}.html").touch()
    words = [f"--predictions={predicted / 'probability.csv'}", f"--labels={labelled / 'train.csv'}"]
    found = run_in_process("evaluate", *words, "--resamples=2", f"--out={tmp_path / 'evaluation'}")
    assert found.returncode == 0, found.stderr
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert page.count('href="../predictions/reports/') == 30
    assert "model version 31" in page and "Synthetic studies" in page
    assert len(metrics_of(tmp_path / "evaluation")["before"]) == 5


@pytest.mark.parametrize(
    "fault",
    ["--reports=absent", "--head=best", "--resamples=0", "--predictions=", "--predictions=absent.csv"],
)
def test_a_wrong_call_has_status_2(cohort: Path, tmp_path: Path, fault: str) -> None:
    given = {
        "--predictions": str(cohort / "one.csv"),
        "--labels": str(cohort / "train.csv"),
        "--out": str(tmp_path),
    }
    name, _, value = fault.partition("=")
    assert (
        run_in_process(
            "evaluate", *(f"{key}={each}" for key, each in {**given, name: value}.items())
        ).returncode
        == 2
    )


def test_records_that_are_not_finished_are_refused(cohort: Path, tmp_path: Path) -> None:
    found = run_in_process(
        "evaluate",
        f"--predictions={cohort / 'one.csv'}",
        f"--labels={cohort / 'train.csv'}",
        f"--records={tmp_path}",
        f"--out={tmp_path / 'out'}",
    )
    assert found.returncode == 1 and "no records were built there" in found.stderr
