import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.ensemble.oof import write_table
from lumbar_tf.labels import FINDINGS, Severity
from lumbar_tf.records.manifest import BuildOptions, Manifest, StudyEntry, write_manifest

_IDS = [f"{1000 + index}" for index in range(20)]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lumbar_tf.evaluate", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(20, 25), p=[0.6, 0.25, 0.15])
    lines = [",".join(["study_id", *(finding.name for finding in FINDINGS)])]
    lines += [",".join([s, *(Severity(v).title for v in row)]) for s, row in zip(_IDS, labels, strict=True)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    for name in ("one", "two"):
        write_table(folder / f"{name}.csv", _IDS, generator.dirichlet([2, 1, 1], (20, 25)))
    studies = tuple(
        StudyEntry(study_id=study, patient_group=study, source_digest="", num_slices={}) for study in _IDS
    )
    options = BuildOptions(studies_per_shard=1, num_folds=2, fold_seed=0)
    (folder / "records").mkdir()
    write_manifest(
        folder / "records",
        Manifest(
            schema_version="2.0.0", packages={}, options=options, planes={}, studies=studies, rejects=()
        ),
    )
    return folder


def test_help_answers_in_under_a_second() -> None:
    # Of processor time: what else runs on the machine is no fault of the command.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "--predictions" in _run("--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 1.0


def test_several_tables_and_records_in_one_call(cohort: Path, tmp_path: Path) -> None:
    found = _run(
        f"--predictions={cohort / 'one.csv'},{cohort / 'two.csv'}",
        f"--labels={cohort / 'train.csv'}",
        f"--records={cohort / 'records'}",
        "--head=competition",
        "--resamples=20",
        f"--out={tmp_path / 'out'}",
    )
    assert found.returncode == 0, found.stderr
    assert "sub-groups" in found.stdout and "look at evaluation.html" in found.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [table["name"] for table in metrics["comparison"]] == ["one", "two"]
    assert metrics["head"] == "competition"
    assert {each["attribute"] for each in metrics["subgroups"]} >= {"Vendor", "Field strength", "Planes"}
    options = json.loads((tmp_path / "out" / "options.json").read_text())
    assert options["predictions"] == [str(cohort / "one.csv"), str(cohort / "two.csv")]


@pytest.mark.parametrize(
    "fault", ["--head=best", "--resamples=0", "--predictions=", "--predictions=absent.csv"]
)
def test_a_wrong_call_has_status_2(cohort: Path, tmp_path: Path, fault: str) -> None:
    given = {
        "--predictions": str(cohort / "one.csv"),
        "--labels": str(cohort / "train.csv"),
        "--out": str(tmp_path),
    }
    name, _, value = fault.partition("=")
    assert _run(*(f"{key}={each}" for key, each in {**given, name: value}.items())).returncode == 2


def test_records_that_are_not_finished_are_refused(cohort: Path, tmp_path: Path) -> None:
    found = _run(
        f"--predictions={cohort / 'one.csv'}",
        f"--labels={cohort / 'train.csv'}",
        f"--records={tmp_path}",
        f"--out={tmp_path / 'out'}",
    )
    assert found.returncode == 1 and "no records were built there" in found.stderr
