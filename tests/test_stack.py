import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lumbar_tf
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.command_line import run_in_process
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels

_IDS = make_study_ids(30)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv (canal labels only, as the real data has) and two out-of-fold tables."""
    folder = tmp_path_factory.mktemp("cohort")
    labels = draw_labels(30, num_graded=5)
    write_labels(folder / "train.csv", _IDS, labels)
    for seed, model in enumerate(("sagittal_t2/a", "sagittal_t2/b")):
        path = folder / "oof" / f"{model.replace('/', '-')}.csv"
        answers = draw_answers(labels, sharpness=2.0, seed=seed)
        write_out_of_fold_table(path, _IDS, answers, folds=np.arange(30) % 5, model=model)
    return folder


def test_stack_then_evaluate_from_the_command_line(cohort: Path, tmp_path: Path) -> None:
    labels = f"--labels={cohort / 'train.csv'}"
    stacked = run_in_process(
        "stack", f"--oof={cohort / 'oof' / '*.csv'}", labels, f"--out={tmp_path / 'stack'}"
    )
    assert stacked.returncode == 0, stacked.stderr
    assert "No labels for foraminal, subarticular" in stacked.stdout
    written = {path.name for path in (tmp_path / "stack").iterdir()}
    assert written == {
        "stacker.json",
        "oof.csv",
        "oof_probability.csv",
        "prediction_sets.csv",
        "folds.csv",
        "scores.json",
        "options.json",
    }
    rows = {row["name"]: row["score"] for row in json.loads((tmp_path / "stack" / "scores.json").read_text())}
    assert rows["stacked, competition head"]["canal"] < rows["prior by level"]["canal"]
    assert rows["sagittal_t2/a"]["foraminal"] is None

    table = f"--predictions={tmp_path / 'stack' / 'oof.csv'}"
    evaluated = run_in_process("evaluate", table, labels, f"--out={tmp_path / 'eval'}", "--resamples=50")
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["canal"]["value"] == pytest.approx(rows["stacked, competition head"]["canal"], abs=1e-6)
    sets = metrics["prediction_sets"]
    assert sets["nominal_coverage"] == 0.9
    assert sets["canal"]["counts"]["severe"] == metrics["families"][0]["counts"][2]
    assert 0.8 < sets["canal"]["coverage"]["normal_mild"] <= 1 <= sets["canal"]["mean_size"] <= 3
    assert sets["foraminal"]["coverage"] == {"normal_mild": None, "moderate": None, "severe": None}
    assert "prediction sets" in evaluated.stdout
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {
        "options.json",
        "metrics.json",
        "evaluation.html",
        "reliability.png",
        "confusion.png",
        "roc.png",
        "decision_curves.png",
    }


def test_the_callers_and_the_datas_faults_have_their_own_status(cohort: Path, tmp_path: Path) -> None:
    labels, out = f"--labels={cohort / 'train.csv'}", f"--out={tmp_path / 'out'}"
    misspelt = run_in_process("stack", f"--oof={cohort / 'oof' / '*.csv'}", labels, out, "--fold=x.csv")
    nothing = run_in_process("stack", f"--oof={tmp_path / '*.csv'}", labels, out)
    assert (misspelt.returncode, nothing.returncode) == (2, 2)
    faulty = tmp_path / "faulty.csv"
    faulty.write_text("row_id,normal_mild,moderate,severe\n1000_spinal_canal_stenosis_l1_l2,0.9,0.9,0.9\n")
    refused = run_in_process("evaluate", f"--predictions={faulty}", labels, out)
    assert refused.returncode == 1
    assert "faulty.csv, line 2: the probabilities of 1000_spinal_canal_stenosis_l1_l2" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_coverage_is_settable_and_checked(cohort: Path, tmp_path: Path) -> None:
    options = (f"--oof={cohort / 'oof' / '*.csv'}", f"--labels={cohort / 'train.csv'}", f"--out={tmp_path}")
    stacked = run_in_process("stack", *options, "--coverage=0.7")
    assert stacked.returncode == 0, stacked.stderr
    content = json.loads((tmp_path / "stacker.json").read_text())
    assert {part["prediction_sets"]["coverage"] for part in content["families"].values()} == {0.7}
    assert (tmp_path / "prediction_sets.csv").read_text().splitlines()[1].endswith(",0.7")
    refused = run_in_process("stack", *options, "--coverage=1.2")
    assert refused.returncode == 2 and "coverage" in refused.stderr


def test_nothing_here_imports_tensorflow() -> None:
    modules = (
        "stack",
        "evaluate",
        "ensemble.stacking_run",
        "evaluation.evaluation_run",
        "evaluation.metrics",
        "tables.out_of_fold",
    )
    imports = ", ".join(f"lumbar_tf.{name}" for name in modules)
    code = f"import sys, {imports}; print('tensorflow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_estimator_returns_the_sets_of_its_coverage(cohort: Path, tmp_path: Path) -> None:
    tables = str(cohort / "oof" / "*.csv")
    wide, narrow = (
        lumbar_tf.Stacker(coverage=coverage).fit(tables, cohort / "train.csv") for coverage in (0.99, 0.6)
    )
    sets = wide.predict_sets(tables)
    assert sets.index.name == "row_id" and list(sets) == ["normal_mild", "moderate", "severe"]
    assert len(sets) == 30 * 25 and sets.any(axis=1).all()
    is_canal = sets.index.str.contains("spinal_canal")
    assert narrow.predict_sets(tables)[is_canal].sum().sum() < sets[is_canal].sum().sum()
    # Nothing is labelled but the canal.
    assert sets[~is_canal].all(axis=None)
    wide.save(tmp_path / "stacker.json")
    assert lumbar_tf.Stacker.load(tmp_path / "stacker.json").predict_sets(tables).equals(sets)
