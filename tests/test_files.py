import multiprocessing
from pathlib import Path

import pytest

from lumbar_tf.files import (
    lock_file,
    replace_atomically,
    write_json_atomically,
    write_table_atomically,
    write_text_atomically,
)


def test_a_table_is_written_with_line_feeds_and_quotes_only_where_needed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "t.csv"
    write_table_atomically(path, ["id", "n"], [["007", 1], ["a,b", None], ['"', "é"]])
    assert path.read_bytes() == 'id,n\n007,1\n"a,b",\n"""",é\n'.encode()
    write_table_atomically(path, ["id", "n"], [])
    assert path.read_bytes() == b"id,n\n"


def test_json_is_indented_by_one_space(tmp_path: Path) -> None:
    write_json_atomically(tmp_path / "a.json", {"b": [1, float("nan")], "a": "é"}, end="\n")
    assert (tmp_path / "a.json").read_text() == '{\n "b": [\n  1,\n  NaN\n ],\n "a": "\\u00e9"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomically(tmp_path / "a.json", float("nan"), allow_nan=False)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", ["old ", "text"])
    with pytest.raises(ZeroDivisionError), replace_atomically(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old text"]


def _try_lock(path: Path) -> str:
    try:
        with lock_file(path, busy_message="busy"):
            return "locked"
    except ValueError as error:
        return str(error)


def test_a_lock_keeps_other_processes_out_until_the_block_ends(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with lock_file(tmp_path / "lock"):
            assert pool.apply(_try_lock, [tmp_path / "lock"]) == "busy"
        assert pool.apply(_try_lock, [tmp_path / "lock"]) == "locked"
