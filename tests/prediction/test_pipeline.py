"""What becomes of studies whose ensemble answers, does not, or comes back."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.config.loading import default_config_path
from lumbar_tf.dicom.sources.study_source import read_source
from lumbar_tf.interop.output_formats import OutputFormat
from lumbar_tf.interop.result_formats import predict_to_folder
from lumbar_tf.labels import FINDINGS, Plane
from lumbar_tf.monitoring.log import AnswerLog, read_log
from lumbar_tf.prediction.pipeline import GIVE_UP_AFTER, predict_source
from lumbar_tf.privacy.identifying_values import collect_identifying_values
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.identifying_text import find_identifying_text
from lumbar_tf.serving.training_data import TrainingData
from lumbar_tf.serving.transport import ServingError, ServingFailure
from tests.interop import hospital
from tests.small_cohort import NUM_SLICES, write_small_cohort

FIRST_ID, NUM_STUDIES = 910000001, 7
IDS = [str(FIRST_ID + each) for each in range(NUM_STUDIES)]


class FakeEnsemble:
    """Answers with numbers that the study's id decides; fails for some."""

    version = "5"
    members = ("axial_t2/one",)
    training = TrainingData("made studies")
    description = {
        "planes": {plane.value: {"config": default_config_path(plane).read_text()} for plane in Plane}
    }

    def __init__(self, failures: Mapping[str, ServingFailure] | None = None) -> None:
        self.failures = dict(failures or {})
        self.asked: list[str] = []

    def predict(
        self, studies: Sequence[Mapping[Plane, bytes]], *, with_saliency: bool = False
    ) -> dict[str, np.ndarray]:
        (study,) = studies
        name = (
            parse_example_features(next(iter(study.values())))["study_id"][0].decode() if study else "nobody"
        )
        self.asked.append(name)
        if name in self.failures:
            raise ServingError(self.failures[name], "no, it said", address="grpc://here:1", attempts=5)
        rng = np.random.default_rng(sum(name.encode()))
        heads = rng.dirichlet((1, 1, 1), (2, 1, 25)).astype(np.float32)
        return {
            "probability": heads[0],
            "competition": heads[1],
            "members": heads[:1].transpose(1, 0, 2, 3),
            "landmarks": rng.normal(0, 50, (1, 25, 3)).astype(np.float32),
            "flags": np.zeros((1, 25, 6), np.bool_),
            "doubt": rng.random((1, 25)).astype(np.float32),
        }


@pytest.fixture
def cohort(tmp_path_factory: pytest.TempPathFactory, write_dicom: Callable[..., Path]) -> Path:
    """Seven small studies."""
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), IDS, write_dicom)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _studies(out: Path) -> list[str]:
    return list(dict.fromkeys(row["row_id"].split("_")[0] for row in _rows(out / "submission.csv")))


@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_a_study_without_an_answer_is_named_and_the_others_go_on(
    cohort: Path, tmp_path: Path, max_in_flight: int
) -> None:
    lost = {
        IDS[1]: ServingFailure.TOO_LARGE,
        IDS[2]: ServingFailure.UNAVAILABLE,
        IDS[3]: ServingFailure.DEADLINE,
    }
    ensemble = FakeEnsemble(lost)
    found = predict_source(cohort, ensemble, tmp_path, max_in_flight=max_in_flight)
    assert _studies(tmp_path) == [each for each in IDS if each not in lost]
    assert len(_rows(tmp_path / "submission.csv")) == len(FINDINGS) * (NUM_STUDIES - len(lost))
    rows = _rows(tmp_path / "unanswered.csv")
    assert {row["study_id"]: row["failure"] for row in rows} == {k: v.value for k, v in lost.items()}
    assert all("grpc://here:1" in row["message"] and "no, it said" in row["message"] for row in rows)
    assert [each.study_id for each in found.unanswered] == list(lost)
    assert sorted(ensemble.asked) == IDS
    # The next run's answers leave no old complaint behind.
    predict_source(cohort, FakeEnsemble(), tmp_path)
    assert _studies(tmp_path) == IDS
    assert not (tmp_path / "unanswered.csv").exists()


def test_after_three_in_a_row_the_rest_is_not_asked_and_every_study_is_named(
    cohort: Path, tmp_path: Path
) -> None:
    ensemble = FakeEnsemble(dict.fromkeys(IDS[2:], ServingFailure.UNAVAILABLE))
    predict_source(cohort, ensemble, tmp_path)
    assert ensemble.asked == IDS[: 2 + GIVE_UP_AFTER]
    assert _studies(tmp_path) == IDS[:2]
    failures = {row["study_id"]: row["failure"] for row in _rows(tmp_path / "unanswered.csv")}
    assert failures == {
        **dict.fromkeys(IDS[2 : 2 + GIVE_UP_AFTER], "unavailable"),
        **dict.fromkeys(IDS[2 + GIVE_UP_AFTER :], "not_asked"),
    }


def test_what_the_model_refuses_says_nothing_of_the_next_study(cohort: Path, tmp_path: Path) -> None:
    ensemble = FakeEnsemble(dict.fromkeys(IDS[:5], ServingFailure.REFUSED))
    predict_source(cohort, ensemble, tmp_path)
    assert ensemble.asked == IDS
    assert _studies(tmp_path) == IDS[5:]


def test_strict_ends_at_the_first_study_without_an_answer(cohort: Path, tmp_path: Path) -> None:
    ensemble = FakeEnsemble({IDS[0]: ServingFailure.REFUSED})
    with pytest.raises(ValueError, match=f"study {IDS[0]}: No response from grpc://here:1"):
        predict_source(cohort, ensemble, tmp_path, is_strict=True)
    assert ensemble.asked == IDS[:1]


def test_the_log_holds_a_row_a_study_and_no_id(cohort: Path, tmp_path: Path) -> None:
    ensemble = FakeEnsemble({IDS[4]: ServingFailure.TOO_LARGE})
    log = AnswerLog(tmp_path / "log")
    found = predict_to_folder(cohort, ensemble, tmp_path / "out", log=log, max_in_flight=3)
    rows = read_log(tmp_path / "log").rows
    assert len(rows) == NUM_STUDIES - 1
    for row, result in zip(rows, found.results, strict=True):
        assert row.model == "5"
        expected = float(result.probability[0, 2])
        assert row.values[f"probability/{FINDINGS[0].name}/severe"] == pytest.approx(expected, abs=1e-6)
        assert row.values["outputs/doubt/max"] == pytest.approx(float(result.extras["doubt"].max()), abs=1e-6)
        assert row.values["images/axial_t2/present"] == 1
        assert row.values["images/sagittal_t2/slices"] == NUM_SLICES
    text = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir()).decode()
    assert not [each for each in IDS if each in text]


def test_with_a_key_the_log_holds_pseudonyms(cohort: Path, tmp_path: Path) -> None:
    key = b"k" * 32
    log = AnswerLog(tmp_path / "log")
    predict_to_folder(cohort, FakeEnsemble(), tmp_path / "out", log=log, key=key)
    expected = {pseudonym(key, IdKind.STUDY, each) for each in IDS}
    assert {row.study_id for row in read_log(tmp_path / "log").rows} == expected


def test_a_hospitals_names_and_numbers_are_not_in_the_log(tmp_path: Path) -> None:
    export = hospital.write_hospital_export(tmp_path / "disc")
    log = AnswerLog(tmp_path / "log")
    predict_to_folder(export.root, FakeEnsemble(), tmp_path / "out", log=log)
    with read_source(export.root) as source:
        values = collect_identifying_values(source.studies, are_ids_secret=True)
    assert find_identifying_text(tmp_path / "log", values) == ()
    (path,) = (tmp_path / "log").iterdir()
    assert len(path.read_text().splitlines()) == 2
    assert all("study_id" not in json.loads(line) for line in path.read_text().splitlines())
    # The search finds what it looks for where it is.
    assert find_identifying_text(tmp_path / "out", values) != ()


def test_each_study_that_was_answered_has_a_report_where_they_are_wanted(
    cohort: Path, tmp_path: Path
) -> None:
    ensemble = FakeEnsemble({IDS[1]: ServingFailure.TOO_LARGE})
    predict_to_folder(cohort, ensemble, tmp_path / "with", formats=(OutputFormat.REPORT,), max_in_flight=3)
    reports = {path.name: path.read_text() for path in (tmp_path / "with" / "reports").iterdir()}
    assert set(reports) == {f"{each}.html" for each in IDS if each != IDS[1]}
    assert all(f"Study {name.removesuffix('.html')}" in text for name, text in reports.items())
    assert all("model version 5 (1 member)." in text for text in reports.values())
    predict_source(cohort, ensemble, tmp_path / "without")
    assert not (tmp_path / "without" / "reports").exists()


def test_a_hospitals_names_are_in_no_report(tmp_path: Path) -> None:
    export = hospital.write_hospital_export(tmp_path / "disc")
    predict_to_folder(export.root, FakeEnsemble(), tmp_path / "out", formats=(OutputFormat.REPORT,))
    with read_source(export.root) as source:
        values = collect_identifying_values(source.studies, are_ids_secret=False)
    reports = tmp_path / "out" / "reports"
    assert len(list(reports.iterdir())) == 2
    assert find_identifying_text(reports, values) == ()
    # Under a key the ids are no longer there either.
    predict_to_folder(
        export.root, FakeEnsemble(), tmp_path / "hidden", formats=(OutputFormat.REPORT,), key=b"k" * 32
    )
    with read_source(export.root) as source:
        values = collect_identifying_values(source.studies, are_ids_secret=True)
    assert find_identifying_text(tmp_path / "hidden" / "reports", values) == ()
    assert find_identifying_text(reports, values) != ()


def test_an_interrupted_run_leaves_no_table_and_whole_reports(cohort: Path, tmp_path: Path) -> None:
    predict_source(cohort, FakeEnsemble(), tmp_path)
    tables = {path.name for path in tmp_path.iterdir()}
    assert {"submission.csv", "results.json"} <= tables

    class Interrupted(FakeEnsemble):
        def predict(
            self, studies: Sequence[Mapping[Plane, bytes]], *, with_saliency: bool = False
        ) -> dict[str, np.ndarray]:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().predict(studies, with_saliency=with_saliency)

    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(cohort, Interrupted(), tmp_path, formats=(OutputFormat.REPORT,))
    # Not the earlier run's either, which would be taken for those of the reports beside them.
    assert {path.name for path in tmp_path.iterdir()} == {"reports"}
    reports = sorted((tmp_path / "reports").iterdir())
    assert [path.name for path in reports] == [f"{each}.html" for each in IDS[:2]]
    assert all(path.read_text().rstrip().endswith("</html>") for path in reports)
    predict_source(cohort, FakeEnsemble(), tmp_path)
    assert _studies(tmp_path) == IDS
