import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.labels import (
    FINDINGS,
    Condition,
    Family,
    Finding,
    Level,
    Plane,
    Severity,
    Side,
    finding_index,
    mirror_indices,
    parse_condition,
    parse_level,
    parse_plane,
    parse_row_id,
    parse_severity,
    row_id,
)


def test_findings_are_in_the_order_of_train_csv() -> None:
    assert len(FINDINGS) == 25
    assert FINDINGS[0].name == "spinal_canal_stenosis_l1_l2"
    assert FINDINGS[5].name == "left_neural_foraminal_narrowing_l1_l2"
    assert FINDINGS[24].name == "right_subarticular_stenosis_l5_s1"
    assert [finding_index(each.condition, each.level) for each in FINDINGS] == list(range(25))


def test_mirroring_twice_is_the_identity_and_swaps_sides() -> None:
    indices = mirror_indices()
    assert [indices[index] for index in indices] == list(range(25))
    for index, finding in enumerate(FINDINGS):
        mirrored = FINDINGS[indices[index]]
        assert mirrored.level is finding.level
        assert mirrored.condition.family is finding.condition.family
        if finding.condition.side is None:
            assert mirrored == finding
        else:
            assert {finding.condition.side, mirrored.condition.side} == set(Side)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("Spinal Canal Stenosis", Condition.SPINAL_CANAL_STENOSIS),
        ("left_neural_foraminal_narrowing", Condition.LEFT_NEURAL_FORAMINAL_NARROWING),
        (" Right Subarticular Stenosis ", Condition.RIGHT_SUBARTICULAR_STENOSIS),
    ],
)
def test_both_spellings_of_a_condition_are_read(text: str, condition: Condition) -> None:
    assert parse_condition(text) is condition


def test_both_spellings_of_levels_grades_and_planes_are_read() -> None:
    for level in Level:
        assert parse_level(level.title) is level is parse_level(level.value)
    for severity in Severity:
        assert parse_severity(severity.title) is severity is parse_severity(severity.column)
    for plane in Plane:
        assert parse_plane(plane.series_description) is plane is parse_plane(plane.value)


@pytest.mark.parametrize("parse", [parse_condition, parse_level, parse_severity, parse_plane])
def test_an_unknown_word_is_named_in_the_error(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match="'L6/S1'"):
        parse("L6/S1")


@given(st.text(min_size=1), st.sampled_from(FINDINGS))
def test_row_ids_split_into_what_made_them(study_id: str, finding: Finding) -> None:
    assert parse_row_id(row_id(study_id, finding)) == (study_id, finding)


@pytest.mark.parametrize(
    "text", ["", "1_canal_l1_l2", "_spinal_canal_stenosis_l1_l2", "spinal_canal_stenosis_l1_l2"]
)
def test_a_bad_row_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="row id"):
        parse_row_id(text)


def test_weights_and_families_are_the_metric_s() -> None:
    assert [severity.weight for severity in Severity] == [1, 2, 4]
    counts = {family: sum(each.condition.family is family for each in FINDINGS) for family in Family}
    assert counts == {Family.CANAL: 5, Family.FORAMINAL: 10, Family.SUBARTICULAR: 10}
