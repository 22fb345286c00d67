from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lumbar_tf.labels import FINDINGS, row_id
from lumbar_tf.tables.out_of_fold import (
    Members,
    OutOfFoldTable,
    align_members,
    covered_studies,
    merge_folds,
    merge_sources,
    read_out_of_fold_tables,
    write_out_of_fold_table,
)

_HEADER = "row_id,normal_mild,moderate,severe"


def _write(path: Path, *lines: str, header: str = _HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def _row(study_id: str, finding: int, *values: object) -> str:
    return ",".join([row_id(study_id, FINDINGS[finding]), *map(str, values)])


def _random(seed: int, num_studies: int = 3, missing: float = 0.3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([0.5, 0.5, 0.5], (num_studies, 25))
    probabilities[generator.random((num_studies, 25)) < missing] = np.nan
    return probabilities


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_write_and_read_is_the_identity(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.mktemp("oof") / "any.csv"
    probabilities = _random(seed)
    probabilities[:, 0] = [0.25, 0.25, 0.5]  # so that no study is empty
    write_out_of_fold_table(path, ["b", "a_1", "c"], probabilities, folds=[2, 0, 1], model="axial_t2/net")
    (table,) = read_out_of_fold_tables([path])
    assert (table.model, table.source) == ("axial_t2/net", "axial_t2")
    assert table.folds == {"b": 2, "a_1": 0, "c": 1}
    assert_allclose(align_members([table], ["b", "a_1", "c"]).probabilities[0], probabilities, atol=1e-8)


def test_a_foreign_table_is_called_after_its_file_and_is_its_own_source(tmp_path: Path) -> None:
    (table,) = read_out_of_fold_tables([_write(tmp_path / "other_team.csv", _row("1", 0, 0.2, 0.3, 0.5))])
    assert (table.model, table.source, table.folds) == ("other_team", "other_team", {})


def test_files_of_one_model_are_joined_and_models_in_one_file_are_split(tmp_path: Path) -> None:
    header = f"{_HEADER},fold,model"
    first = _write(tmp_path / "f0.csv", _row("1", 0, 0.2, 0.3, 0.5, 0, "m"), header=header)
    second = _write(
        tmp_path / "f1.csv",
        _row("2", 0, 0.2, 0.3, 0.5, 1, "m"),
        _row("2", 0, 0.5, 0.3, 0.2, 1, "n"),
        header=header,
    )
    tables = read_out_of_fold_tables([first, second])
    assert [(table.model, sorted(table.rows)) for table in tables] == [("m", ["1", "2"]), ("n", ["2"])]


def test_sums_near_one_are_divided_out(tmp_path: Path) -> None:
    (table,) = read_out_of_fold_tables([_write(tmp_path / "a.csv", _row("1", 0, 0.33, 0.33, 0.335))])
    assert table.rows["1"][0].sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (_row("1", 0, 0.3, 0.3, 0.3), "sum to 1"),
        (_row("1", 0, -0.1, 0.5, 0.6), "not negative"),
        (_row("1", 0, "nan", 0.5, 0.5), "finite"),
        (_row("1", 0, "inf", 0.5, 0.5), "finite"),
        (_row("1", 0, "", 0.5, 0.5), "numbers"),
        (_row("1", 0, 0.5, 0.5), "4 cells. Received: 3"),
        (_row("1", 0, 0.2, 0.3, 0.5, 0), "4 cells. Received: 5"),
        ("1_spinal_canal_stenosis_l6_s1,0.2,0.3,0.5", "<study_id>_<condition>_<level>"),
    ],
)
def test_a_faulty_row_is_named_with_its_file_and_line(tmp_path: Path, line: str, rule: str) -> None:
    path = _write(tmp_path / "faulty.csv", _row("1", 1, 0.2, 0.3, 0.5), line)
    with pytest.raises(ValueError, match=rule) as caught:
        read_out_of_fold_tables([path])
    assert "faulty.csv, line 3" in str(caught.value)
    assert "cells" in rule or line.partition(",")[0] in str(caught.value)


def test_a_row_given_twice_is_refused_across_files_too(tmp_path: Path) -> None:
    line = _row("1", 0, 0.2, 0.3, 0.5)
    with pytest.raises(ValueError, match="once"):
        read_out_of_fold_tables([_write(tmp_path / "a.csv", line, line)])
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match=r"x/a.csv, line 2"):
        read_out_of_fold_tables([_write(tmp_path / "a.csv", line), _write(tmp_path / "x" / "a.csv", line)])


def test_absent_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['severe'\]"):
        read_out_of_fold_tables([_write(tmp_path / "a.csv", header="row_id,normal_mild,moderate")])


def test_a_table_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"empty.csv must have a row"):
        read_out_of_fold_tables([_write(tmp_path / "empty.csv")])


def test_a_study_in_two_folds_is_refused(tmp_path: Path) -> None:
    lines = (_row("1", 0, 0.2, 0.3, 0.5, 0), _row("1", 1, 0.2, 0.3, 0.5, 1))
    with pytest.raises(ValueError, match="one fold"):
        read_out_of_fold_tables([_write(tmp_path / "a.csv", *lines, header=f"{_HEADER},fold")])


def test_studies_without_labels_are_refused_by_row() -> None:
    rows = np.full((25, 3), np.nan)
    rows[7] = [0.2, 0.3, 0.5]
    with pytest.raises(ValueError, match=row_id("9", FINDINGS[7])):
        align_members([OutOfFoldTable("m", {"9": rows}, {})], ["1", "2"])


def test_covered_studies_keep_the_label_tables_order() -> None:
    table = OutOfFoldTable("m", {"3": np.zeros((25, 3)), "1": np.zeros((25, 3))}, {})
    assert covered_studies([table], ["1", "2", "3"]) == ["1", "3"]


def test_tables_must_agree_with_each_other_and_with_the_folds_file() -> None:
    first, second = OutOfFoldTable("m", {}, {"1": 0, "2": 1}), OutOfFoldTable("n", {}, {"2": 1, "3": 0})
    assert merge_folds([first, second]) == {"1": 0, "2": 1, "3": 0}
    assert merge_folds([first], {"1": 0, "2": 1, "9": 3})["9"] == 3
    with pytest.raises(ValueError, match=r"study '2', fold 1 of model 'm' against 4"):
        merge_folds([first], {"2": 4})


def test_sources_over_the_limit_are_joined_where_they_come_together() -> None:
    names = ("axial_t2/net", "b", "c", "d", "e")
    probabilities = np.full((5, 4, 25, 3), 1 / 3)
    probabilities[1, 0] = np.nan
    probabilities[[2, 4], 1] = np.nan
    members = Members(names, ("axial_t2", "b", "c", "d", "e"), probabilities)
    assert merge_sources(members, 5) == members
    assert merge_sources(members, 4).sources == ("axial_t2", "b", "c+e", "d", "c+e")
    assert len(set(merge_sources(members, 2).sources)) == 2
    assert merge_sources(members, 2).sources[0] == "axial_t2"


def test_extra_cells_and_other_encodings_are_refused_with_the_file(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "tables"
    with pytest.raises(ValueError, match=r"p_extra_cells\.csv, line 2: a row must have 4 cells"):
        read_out_of_fold_tables([folder / "p_extra_cells.csv"])
    with pytest.raises(ValueError, match=r"p_utf16\.csv must be a CSV in UTF-8\. Received: UTF-16"):
        read_out_of_fold_tables([folder / "p_utf16.csv"])
