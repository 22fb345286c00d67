"""The front door: names, laziness, and grading with a model of known numbers."""

import doctest
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lumbar_tf
from lumbar_tf.api import grading
from lumbar_tf.labels import FINDINGS, Condition, Level, finding_index
from tests.prediction.test_pipeline import FakeEnsemble
from tests.small_cohort import write_small_cohort

IDS = ["910000001", "910000002"]


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_quick_and_loads_no_heavy_package() -> None:
    script = (
        "import sys, time\nstarted = time.process_time()\nimport lumbar_tf\n"
        "seconds = time.process_time() - started\ndir(lumbar_tf)\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'pydicom'} & set(sys.modules)\n"
        "print(seconds < 0.2, sorted(heavy))"
    )
    assert _run(script) == "True []"


def test_every_public_name_is_found_and_no_other() -> None:
    for name in lumbar_tf.__all__:
        assert getattr(lumbar_tf, name) is not None
    assert set(lumbar_tf.__all__) <= set(dir(lumbar_tf))
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        lumbar_tf.predcit  # noqa: B018


@pytest.mark.parametrize(
    "script",
    [
        "import lumbar_tf.predict",
        "import lumbar_tf; lumbar_tf.predict; import lumbar_tf.predict",
        "from lumbar_tf import predict; import lumbar_tf.predict",
        "from lumbar_tf.predict import PredictOptions",
        "import importlib; assert importlib.import_module('lumbar_tf.predict').PredictOptions",
    ],
)
def test_a_commands_module_does_not_replace_the_function_of_its_name(script: str) -> None:
    check = "\nimport lumbar_tf, sys\nfrom lumbar_tf import predict as found\n"
    kinds = "print(type(lumbar_tf.predict).__name__, type(found).__name__)"
    assert _run(script + check + kinds) == "function function"


@pytest.fixture
def cohort(tmp_path_factory: pytest.TempPathFactory, write_dicom: Callable[..., Path]) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), IDS, write_dicom)


@pytest.fixture
def ensemble(monkeypatch: pytest.MonkeyPatch) -> lumbar_tf.Ensemble:
    """An ensemble whose answers a study's id decides."""
    from contextlib import nullcontext

    fake = nullcontext((FakeEnsemble(), "models/5"))
    monkeypatch.setattr(grading, "connect_ensemble", lambda source, **options: fake)
    return lumbar_tf.load_ensemble("models")


def test_studies_are_read_one_by_one_in_the_order_of_their_ids(cohort: Path) -> None:
    studies = lumbar_tf.read_studies(cohort)
    assert next(studies).study_id == IDS[0]
    assert [study.study_id for study in studies] == IDS[1:]


def test_one_study_is_read_of_its_folder_and_several_are_refused(cohort: Path) -> None:
    table = cohort / "train_series_descriptions.csv"
    study = lumbar_tf.read_study(cohort / "train_images" / IDS[1], series_map=table)
    assert study.study_id == lumbar_tf.read_study(cohort, study_id=IDS[1]).study_id == IDS[1]
    assert all(piece.pixels.ndim == 2 for slices in study.planes.values() for piece in slices)
    with pytest.raises(ValueError, match="must hold one study"):
        lumbar_tf.read_study(cohort)


def test_a_damaged_file_is_among_the_studys_rejects(cohort: Path) -> None:
    path = min((cohort / "train_images" / IDS[0]).rglob("*.dcm"))
    path.write_bytes(b"nothing")
    study = next(lumbar_tf.read_studies(cohort))
    assert [reject.file_name for reject in study.rejects] == [path.name]


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must contain at least one study"):
        next(lumbar_tf.read_studies(tmp_path))


def test_a_results_frame_spells_out_side_and_level(ensemble: lumbar_tf.Ensemble, cohort: Path) -> None:
    result = ensemble.predict(next(lumbar_tf.read_studies(cohort)))
    frame = result.to_frame()
    assert len(frame) == len(FINDINGS)
    row = frame.iloc[finding_index(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L5_S1)]
    assert (row.condition, row.side, row.level) == ("subarticular stenosis", "left", "L5/S1")
    assert set(frame[frame.condition == "spinal canal stenosis"].side) == {""}
    np.testing.assert_allclose(frame[["normal_mild", "moderate", "severe"]].sum(axis=1), 1, atol=1e-6)
    stored = json.loads(result.to_json())
    assert stored["study_id"] == IDS[0]
    assert stored["findings"][0]["probability"]["severe"] == pytest.approx(frame.severe[0], abs=1e-6)


def test_a_result_writes_report_dicom_and_fhir(
    ensemble: lumbar_tf.Ensemble, cohort: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    result = ensemble.predict(next(lumbar_tf.read_studies(cohort)))
    report = result.write_report(tmp_path / "report.html")
    assert f"Study {IDS[0]}" in report.read_text()
    paths = result.write_dicom(tmp_path / "dicom")
    assert [path.name for path in paths] == [f"{IDS[0]}.sr.dcm", f"{IDS[0]}.sc.dcm"]
    (state,) = result.write_dicom(tmp_path / "states", ["gsps"])
    assert state.name == f"{IDS[0]}.gsps-1.dcm"
    assert all(path.is_file() for path in (*paths, state))
    bundle = result.to_fhir()
    assert bundle["resourceType"] == "Bundle"
    assert json.loads(json.dumps(bundle, allow_nan=False)) == bundle


def test_predict_grades_a_folder_and_writes_only_where_out_is_given(
    ensemble: lumbar_tf.Ensemble, cohort: Path, tmp_path: Path
) -> None:
    frame = lumbar_tf.predict(cohort, model="models")
    assert list(frame.study_id.unique()) == IDS
    assert len(frame) == len(IDS) * len(FINDINGS)
    again = lumbar_tf.predict(cohort, model="models", out=tmp_path / "out", formats=["report"])
    assert again.equals(frame)
    assert (tmp_path / "out" / "submission.csv").is_file()
    assert {path.name for path in (tmp_path / "out" / "reports").iterdir()} == {f"{i}.html" for i in IDS}
    assert not (tmp_path / "out" / "sheets").exists()


def test_the_pages_examples_run(
    ensemble: lumbar_tf.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `ensemble` puts a model of known numbers into the place of models/lumbar.
    page = Path(__file__).resolve().parents[1] / "docs" / "api.md"
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 20
    assert found.failed == 0


def test_the_page_names_everything_public() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text()
    assert not [name for name in lumbar_tf.__all__ if f"`{name}" not in text]


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"must be of sheets, report, sr, gsps, pdf, sc, fhir\. Received: 'docx'"
    ):
        lumbar_tf.check_formats(["docx"])
