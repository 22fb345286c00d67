from pathlib import Path

import pytest

from lumbar_tf.tables.text_table import read_text_table
from tests.tables.made_tables import write_table


def test_cells_are_text_without_surrounding_white_space(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", " id ,n", "007,NA", " 1e5 ,nan", ",")
    table = read_text_table(path, ["id"])
    assert table.columns == ["id", "n"]
    assert list(table.rows(["n", "id"])) == [(2, ["NA", "007"]), (3, ["nan", "1e5"]), (4, ["", ""])]
    assert table.issues == ()


def test_lines_are_counted_through_empty_lines_and_quoted_line_ends(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", "id,n", "", '1,"two\nlines"', "2,x")
    assert list(read_text_table(path).rows(["id"])) == [(4, ["1"]), (5, ["2"])]


def test_rows_of_a_wrong_length_are_issues_with_their_study(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", "n,study_id", "1", "1,2,3", "1,2,3,4,5", "1,2")
    table = read_text_table(path)
    assert [line for line, _ in table.rows(["n"])] == [5]
    assert [(issue.line, issue.study_id) for issue in table.issues] == [(2, ""), (3, "2"), (4, "2")]
    with pytest.raises(ValueError, match=r"t\.csv, line 2: a row must have 2 cells\. Received: 1\.$"):
        table.require_sound()


@pytest.mark.parametrize(
    "data", [b"a,b\n\xff,1\n", b'a,b\n"x"y,1\n', b'a,b\n"x,1\n', b"a\n" + b"x" * 200_000]
)
def test_a_file_that_is_not_csv_in_utf_8_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"t\.csv must be a CSV in UTF-8"):
        read_text_table(tmp_path / "t.csv")


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    assert read_text_table(tmp_path / "t.csv").columns == []
    with pytest.raises(ValueError, match=r"columns \['id'\]"):
        read_text_table(tmp_path / "t.csv", ["id"])
