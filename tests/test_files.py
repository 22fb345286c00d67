import csv
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.files import (
    check_writable,
    decode_secret,
    decode_text,
    lock_file,
    open_regular_file,
    private_files,
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


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r@", " =", "\0-"])
def test_a_cell_is_no_formula_for_a_spreadsheet(tmp_path: Path, start: str) -> None:
    # OWASP, CSV injection: =, +, -, @, tab and carriage return begin a formula.
    path = tmp_path / "t.csv"
    write_table_atomically(path, [f"{start}head", "n"], [[f"{start}cmd|' /C calc'!A0", "-0.5"]])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    for cell in (rows[0][0], rows[1][0]):
        assert cell.startswith("'")
        assert cell.isprintable()
    assert rows[1][1] == "-0.5"


@pytest.mark.parametrize("cell", ["-1", "+2.5e-3", "-inf", "007", "a=b", "nan", "", "Müller"])
def test_numbers_and_plain_text_are_written_unchanged(tmp_path: Path, cell: str) -> None:
    write_table_atomically(tmp_path / "t.csv", ["a", "b"], [[cell, 1]])
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == f"a,b\n{cell},1\n"


def test_control_characters_do_not_reach_a_table(tmp_path: Path) -> None:
    write_table_atomically(tmp_path / "t.csv", ["a"], [["x\x1b[2J\ny\u2028z\x9b"]])
    assert (tmp_path / "t.csv").read_bytes() == b"a\nx [2J y z \n"


def test_a_path_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller")
    write_table_atomically(tmp_path / "t.csv", ["a"], [[name]])
    write_text_atomically(tmp_path / "t.txt", name)
    assert b"ller" in (tmp_path / "t.csv").read_bytes()
    assert (tmp_path / "t.txt").read_text() == "M\\udcfcller"


@pytest.mark.parametrize("secret", ["8d5f0c0e5f2d4a6b9c7e1f3a5b7d9e0f", "user:Pässwörd"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_does_not_depend_on_the_editor_that_saved_it(secret: str, encoding: str, end: str) -> None:
    data = (secret + end).encode(encoding)
    if encoding in ("utf-16-le", "utf-16-be") and not secret.isascii():
        return  # without a mark it cannot be told from other bytes
    assert decode_secret(data) == secret.encode()
    if encoding == "utf-16":
        assert decode_secret(b"\xfe\xff" + (secret + end).encode("utf-16-be")) == secret.encode()


@pytest.mark.parametrize("seed", range(20))
def test_binary_secrets_are_unchanged(seed: int) -> None:
    data = np.random.default_rng(seed).integers(128, 256, 32).astype(np.uint8).tobytes()
    assert decode_secret(data) == data


@pytest.mark.parametrize(
    ("data", "received"),
    [
        ("a\nü\n".encode("utf-16"), "UTF-16"),
        ("a\nü\n".encode("utf-16-le"), "UTF-16"),
        ("a\nü\n".encode("latin-1"), "another encoding in line 2"),
    ],
)
def test_text_in_another_encoding_is_named(data: bytes, received: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv must be a CSV in UTF-8\. Received: {received}"):
        decode_text(data, "a.csv must be a CSV in UTF-8")
    for encoding in ("utf-8", "utf-8-sig"):
        assert decode_text("a\nü\n".encode(encoding), "") == "a\nü\n"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular_file(path)
    with pytest.raises(OSError, match=r"(?i)directory|regular"):
        open_regular_file(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with open_regular_file(tmp_path / "file") as file:
        assert file.read() == b"x"


def test_private_files_and_folders_are_their_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "patient" / "report.json"
    with private_files():
        write_json_atomically(path, {})
    write_json_atomically(tmp_path / "other.json", {})
    modes = [place.stat().st_mode & 0o777 for place in (path, path.parent)]
    assert modes == [0o600, 0o700]
    assert (tmp_path / "other.json").stat().st_mode & 0o777 != 0o600


def test_an_output_that_can_be_written_leaves_no_trace_of_the_check(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "old", tmp_path / "new" / "deeper"):
        check_writable(path)
    for path in (tmp_path / "a.png", tmp_path / "new" / "b.png"):
        check_writable(path, is_folder=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "old"]
    assert (tmp_path / "a.png").read_bytes() == b"x"


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / ("a" * 300), Path("/proc/out")):
        with pytest.raises(OSError, match=r"."):
            check_writable(path)
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path, is_folder=False)
