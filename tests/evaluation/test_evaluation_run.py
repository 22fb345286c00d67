import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lumbar_tf.evaluation import evaluation_run
from lumbar_tf.evaluation.console_tables import difference_table, evaluation_notes, subgroup_table
from lumbar_tf.evaluation.evaluation_run import EvaluationRun, evaluate_files, read_named_tables
from lumbar_tf.evaluation.metrics import SCORE_FIGURES, competition_score
from lumbar_tf.labels import FINDINGS
from lumbar_tf.tables.groups import Grouping
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels

_IDS = make_study_ids(40)


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    """Drawing takes longer than everything else here; `test_picture_sheets.py` covers it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_run, "draw_sheets", lambda data, out, *, title: {})
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, a table without two of its studies, and a better one."""
    folder = tmp_path_factory.mktemp("cohort")
    labels = draw_labels(40)
    write_labels(folder / "train.csv", _IDS, labels)
    for seed, (name, count, sharpness) in enumerate((("stacked_competition", 38, 1.0), ("better", 40, 3.0))):
        answers = draw_answers(labels, sharpness=sharpness, seed=seed)
        write_out_of_fold_table(folder / f"{name}.csv", _IDS[:count], answers[:count])
    np.save(folder / "labels.npy", labels)
    return folder


@pytest.fixture(scope="module")
def evaluated(cohort: Path) -> EvaluationRun:
    grouping = Grouping("Vendor", dict.fromkeys(_IDS, "ge"), ("ge",))
    return evaluate_files(
        [cohort / "stacked_competition.csv", cohort / "better.csv"],
        [cohort / "train.csv"],
        cohort / "out",
        groupings=[grouping],
        num_resamples=30,
    )


def test_metrics_json_keeps_its_layout(cohort: Path, evaluated: EvaluationRun) -> None:
    content = json.loads((cohort / "out" / "metrics.json").read_text())
    assert tuple(content)[:5] == SCORE_FIGURES
    for name in SCORE_FIGURES:
        assert list(content[name]) == ["value", "low", "high"]
        assert content[name]["low"] <= content[name]["value"] <= content[name]["high"]
    assert [cell["name"] for cell in content["findings"]] == [finding.name for finding in FINDINGS]
    for cell in (*content["families"], *content["conditions"], *content["findings"]):
        for name in ("log_loss", "auc_severe", "auc_not_normal", "kappa", "brier"):
            assert list(cell[name]) == ["value", "low", "high"]
        assert isinstance(cell["calibration_error"], float) and len(cell["counts"]) == 3
        for figures in cell["operating_points"].values():
            assert list(figures) == ["sensitivity", "specificity"]
    named = {point["name"]: point for point in content["operating_points"]}
    assert set(named) == set(content["findings"][0]["operating_points"])
    assert named["severe_fifth"]["threshold"] == 0.2 and named["severe_fifth"]["target"] == "severe"
    assert (content["head"], content["model"], content["num_left_out"]) == (
        "probability",
        "stacked_competition",
        2,
    )
    assert content["subgroups"][0]["group"] == "ge" and content["subgroups"][0]["num_studies"] == 38
    worst = content["worst_cases"][0]
    assert worst["row_id"].split("_")[0] in _IDS and sum(worst["predicted"]) == pytest.approx(1)


def test_the_first_table_is_evaluated_and_the_other_compared_on_common_labels(
    cohort: Path, evaluated: EvaluationRun
) -> None:
    first, better = evaluated.comparison
    assert better.num_studies == 38
    assert first.scores["score"].value == pytest.approx(evaluated.card.scores["score"].value)
    assert better.difference["score"].high < 0
    alone = evaluate_files(cohort / "better.csv", [cohort / "train.csv"], cohort / "alone", num_resamples=5)
    assert not alone.comparison and alone.card.num_studies == 40 and not alone.subgroups
    content = json.loads((cohort / "alone" / "metrics.json").read_text())
    assert content["comparison"] == content["subgroups"] == []


def test_notes_name_missing_labels_and_a_likely_wrong_head(
    evaluated: EvaluationRun,
) -> None:
    notes = " ".join(evaluation_notes(evaluated))
    assert "2 labelled studies have no prediction" in notes
    assert "stacked_competition is named after the competition head" in notes


def test_console_tables_have_a_line_for_each_table_and_group(evaluated: EvaluationRun) -> None:
    console = Console(width=150)
    with console.capture() as captured:
        console.print(difference_table(evaluated.comparison))
        console.print(subgroup_table(evaluated.subgroups))
    text = captured.get()
    assert "better" in text and "Vendor" in text and "38" in text


def test_a_study_without_labels_is_refused(cohort: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.csv"
    write_out_of_fold_table(stranger, ["77"], np.full((1, 25, 3), 1 / 3))
    with pytest.raises(ValueError, match="must belong to a study in the label table"):
        evaluate_files(stranger, [cohort / "train.csv"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_score_is_the_metrics(cohort: Path, evaluated: EvaluationRun) -> None:
    labels = np.load(cohort / "labels.npy")[:38]
    rows = [line.split(",")[1:4] for line in (cohort / "stacked_competition.csv").read_text().split()[1:]]
    probabilities = np.array(rows, float).reshape(38, 25, 3)
    assert evaluated.card.scores["score"].value == pytest.approx(
        competition_score(labels, probabilities).score
    )


def _write(path: Path, model: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_out_of_fold_table(path, ["1"], np.full((1, 25, 3), 1 / 3), model=model)
    return path


def test_files_of_one_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    paths = [_write(tmp_path / name) for name in ("a/oof.csv", "b/oof.csv", "other.csv")]
    assert [table.model for table in read_named_tables(paths)] == ["a/oof", "b/oof", "other"]


def test_the_first_must_be_one_model_and_the_others_may_be_many(tmp_path: Path) -> None:
    one = _write(tmp_path / "one.csv")
    many = tmp_path / "many.csv"
    parts = [_write(tmp_path / f"{model}.csv", model).read_text().splitlines() for model in ("x", "y")]
    many.write_text("\n".join([*parts[0], *parts[1][1:]]) + "\n")
    assert [table.model for table in read_named_tables([one, many])] == ["one", "x", "y"]
    with pytest.raises(ValueError, match=r"must contain the rows of one model. Received: \['x', 'y'\]"):
        read_named_tables([many, one])


def test_the_same_table_twice_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.csv")
    with pytest.raises(ValueError, match="different names or folders"):
        read_named_tables([path, Path(str(path))])
