import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import FINDINGS, Flag, Plane, Severity, row_id
from lumbar_tf.prediction.result_tables import (
    write_intervals,
    write_members,
    write_prediction_sets,
    write_results_json,
    write_series,
    write_submission,
)
from lumbar_tf.prediction.results import StudyFindings, findings_frame, result_to_json
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
from lumbar_tf.tables.set_tables import read_set_table


def _result(study_id: str, seed: int = 0) -> StudyFindings:
    rng = np.random.default_rng(seed)
    landmarks = rng.normal(0, 50, (25, 3)).astype(np.float32)
    landmarks[3, 1] = np.nan
    flags = np.zeros((25, len(Flag)), np.bool_)
    flags[3, list(Flag).index(Flag.NO_LANDMARK)] = True
    flags[3, list(Flag).index(Flag.NO_AXIAL_T2)] = True
    probability, competition = rng.dirichlet([1, 1, 1], (2, 25)).astype(np.float32)
    members = np.stack([probability, np.full((25, 3), np.nan)])
    interval = np.stack([probability * 0.5, probability * 0.5 + 0.5], axis=-1)
    interval[3] = np.nan
    sets = probability >= np.array([0.6, 0.2, 0.3], np.float32)
    sets[:, 1] |= sets[:, 0] & sets[:, 2]
    sets[4] = False
    return StudyFindings(
        study_id, probability, competition, members, landmarks, flags, interval, sets, set_coverage=0.9
    )


@pytest.mark.parametrize("head", ["competition", "probability"])
def test_the_submission_holds_the_named_numbers_in_the_order_of_findings(tmp_path: Path, head: str) -> None:
    results = [_result("11", 1), _result("7_a", 2)]
    write_submission(tmp_path / "new" / "submission.csv", results, head=head)
    with (tmp_path / "new" / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row_id"] for row in rows] == [row_id(each, f) for each in ("11", "7_a") for f in FINDINGS]
    assert list(rows[0]) == ["row_id", "normal_mild", "moderate", "severe"]
    numbers = np.array(
        [[row[name] for name in ("normal_mild", "moderate", "severe")] for row in rows], np.float32
    )
    # Nine digits bring every float32 back exactly.
    np.testing.assert_array_equal(numbers, np.concatenate([getattr(each, head) for each in results]))


def test_the_submission_is_the_competition_head_unless_asked_otherwise(tmp_path: Path) -> None:
    write_submission(tmp_path / "a.csv", [_result("1")])
    write_submission(tmp_path / "b.csv", [_result("1")], head="competition")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_json_names_both_numbers_points_and_flags() -> None:
    result = _result("5")
    content = result_to_json(result)
    assert content["study_id"] == "5"
    assert [(each["condition"], each["level"]) for each in content["findings"]] == [
        (each.condition.value, each.level.value) for each in FINDINGS
    ]
    first, unseen = content["findings"][0], content["findings"][3]
    assert first["probability"]["severe"] == pytest.approx(float(result.probability[0, 2]), abs=1e-6)
    assert first["competition"]["moderate"] == pytest.approx(float(result.competition[0, 1]), abs=1e-6)
    np.testing.assert_allclose(first["landmark_lps_mm"], result.landmarks[0], atol=0.006)
    assert first["interval"]["severe"] == pytest.approx(result.interval[0, 2].tolist(), abs=1e-6)
    assert unseen["interval"] is None
    assert content["prediction_set_coverage"] == 0.9
    for row, each in enumerate(content["findings"]):
        inside = [s.column for s in Severity if result.prediction_set[row, s]]
        assert each["prediction_set"] == (inside or None)
    assert content["findings"][4]["prediction_set"] is None
    old = result_to_json(replace(result, prediction_set=None, set_coverage=None))
    assert old["prediction_set_coverage"] is None
    assert {each["prediction_set"] for each in old["findings"]} == {None}
    assert first["flags"] == []
    assert unseen["landmark_lps_mm"] is None
    assert unseen["flags"] == ["no_axial_t2", "no_landmark"]


def test_the_json_file_is_strict_json_of_all_studies(tmp_path: Path) -> None:
    write_results_json(tmp_path / "answers.json", [_result("1"), _result("2")], model="model-7")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    content = json.loads((tmp_path / "answers.json").read_text(), parse_constant=refuse)
    assert content["model"] == "model-7"
    assert [each["study_id"] for each in content["studies"]] == ["1", "2"]
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]


def test_members_are_written_as_an_out_of_fold_table_without_their_gaps(tmp_path: Path) -> None:
    results = [_result("7"), _result("8")]
    write_members(tmp_path / "members.csv", results, ["sagittal_t2/one", "axial_t2/two"])
    (table,) = read_out_of_fold_tables([tmp_path / "members.csv"])
    assert table.model == "sagittal_t2/one"
    assert sorted(table.rows) == ["7", "8"]
    np.testing.assert_allclose(table.rows["7"], results[0].members[0], atol=1e-6)


def test_intervals_stand_beside_their_probabilities_and_are_blank_where_there_are_none(
    tmp_path: Path,
) -> None:
    old = replace(_result("8"), interval=None)
    write_intervals(tmp_path / "intervals.csv", [_result("7"), old])
    with (tmp_path / "intervals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row_id"] for row in rows] == [row_id(each, f) for each in ("7", "8") for f in FINDINGS]
    result = _result("7")
    for name, grade in (("normal_mild", 0), ("moderate", 1), ("severe", 2)):
        for ending, expected in (
            ("", result.probability[4, grade]),
            ("_low", result.interval[4, grade, 0]),
            ("_high", result.interval[4, grade, 1]),
        ):
            assert float(rows[4][name + ending]) == pytest.approx(float(expected), abs=1e-7)
    for row in (rows[3], *rows[25:]):
        assert row["severe"] and row["severe_low"] == row["severe_high"] == ""


def test_the_table_of_series_has_a_row_for_each_contrast(tmp_path: Path) -> None:
    shape = (7, 448, 448, 0.6, 0.6, 4.4)
    used = SeriesSummary("1.2", Plane.SAGITTAL_T2, "", *shape, contrast="TE 105 ms")
    left_out = SeriesSummary("1.2", None, "unknown_weighting", *shape, contrast="TE 15 ms")
    write_series(tmp_path / "series.csv", [("1", used), ("1", left_out)])
    assert (tmp_path / "series.csv").read_text().splitlines() == [
        "study_id,series_id,plane,reason,num_slices,contrast",
        "1,1.2,sagittal_t2,,7,TE 105 ms",
        "1,1.2,,unknown_weighting,7,TE 15 ms",
    ]


def test_sets_are_in_words_in_the_frame_and_in_a_table(tmp_path: Path) -> None:
    result = _result("7")
    words = findings_frame(result)["prediction_set"]
    expected = {"": 0, "Normal/Mild": 1, "Moderate": 1, "Severe": 1}
    expected |= {"Normal/Mild or Moderate": 2, "Moderate or Severe": 2, "Normal/Mild, Moderate or Severe": 3}
    assert [expected[each] for each in words] == result.prediction_set.sum(axis=-1).tolist()
    assert words[4] == "" and set(words) > {"Moderate or Severe", "Normal/Mild"}
    old = replace(_result("8"), prediction_set=None, set_coverage=None)
    write_prediction_sets(tmp_path / "sets.csv", [old, result])
    table = read_set_table(tmp_path / "sets.csv")
    assert table.coverage == 0.9
    np.testing.assert_array_equal(table.align(["7", "8"])[0], result.prediction_set)
    assert list(table.rows) == ["7"]
    # A finding without probabilities has no set, whatever the model returned.
    result.probability[0] = np.nan
    assert result.set_of(0) == ()
