import math
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lumbar_tf.labels import FINDINGS, row_id
from lumbar_tf.tables.set_tables import read_set_table, write_set_table

_HEADER = "row_id,normal_mild,moderate,severe,coverage"
_ROWS = [row_id("7", finding) for finding in FINDINGS]


def _sets() -> np.ndarray:
    kinds = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]], bool)
    return kinds[np.random.default_rng(0).integers(0, 7, (4, 25))]


@pytest.mark.parametrize("coverage", [0.9, math.nan])
def test_sets_survive_the_table(tmp_path: Path, coverage: float) -> None:
    sets, ids = _sets(), ["004", "5", "a_b", "7"]
    write_set_table(tmp_path / "sets.csv", ids, sets, coverage=coverage)
    table = read_set_table(tmp_path / "sets.csv")
    assert table.coverage == pytest.approx(coverage, nan_ok=True)
    assert_array_equal(table.align(ids), sets)
    assert_array_equal(table.align([ids[2], "unknown"]), [sets[2], np.zeros((25, 3), bool)])
    assert table.align([]).shape == (0, 25, 3)


def test_a_table_without_sets_is_empty(tmp_path: Path) -> None:
    write_set_table(tmp_path / "sets.csv", ["1"], np.zeros((1, 25, 3), bool), coverage=0.9)
    table = read_set_table(tmp_path / "sets.csv")
    assert not table.rows and math.isnan(table.coverage)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([f"{_ROWS[0]},1,0,2,0.9"], "line 2: grades must be 0 or 1"),
        ([f"{_ROWS[0]},1,0,,0.9"], "grades must be 0 or 1"),
        ([f"{_ROWS[0]},0,0,0,0.9"], "one grade or several without a gap"),
        ([f"{_ROWS[0]},1,0,1,0.9"], "one grade or several without a gap"),
        ([f"{_ROWS[0]},1,0,0,0.9", f"{_ROWS[0]},1,0,0,0.9"], "line 3: a row must be given once"),
        ([f"{_ROWS[0]},1,0,0,0.9", f"{_ROWS[1]},1,0,0,0.8"], "line 3, column coverage"),
        ([f"{_ROWS[0]},1,0,0,1.5"], "coverage between 0 and 1"),
        ([f"{_ROWS[0]},1,0,0,high"], "coverage between 0 and 1"),
        (["7_knee,1,0,0,0.9"], "line 2, column row_id"),
    ],
)
def test_malformed_tables_are_refused_with_the_line(tmp_path: Path, lines: list[str], words: str) -> None:
    path = tmp_path / "sets.csv"
    path.write_text("\n".join([_HEADER, *lines]) + "\n")
    with pytest.raises(ValueError, match=words):
        read_set_table(path)


def test_a_column_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "sets.csv"
    path.write_text("row_id,normal_mild,moderate,severe\n")
    with pytest.raises(ValueError, match="coverage"):
        read_set_table(path)
