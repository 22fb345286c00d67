import json
import multiprocessing
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lumbar_tf.monitoring.log import AnswerLog, read_log

NOW = datetime(2026, 11, 23, 18, 52, 7, tzinfo=UTC)


def _log(folder: Path, now: datetime = NOW) -> AnswerLog:
    return AnswerLog(folder, now=lambda: now)


def _values(number: float, present: float = 1.0) -> dict[str, float | None]:
    return {"probability/x/severe": number, "images/axial_t2/present": present, "images/axial_t2/low": None}


def test_a_row_round_trips_with_the_hour_only(tmp_path: Path) -> None:
    _log(tmp_path / "new" / "log").append(_values(0.25), model="3")
    (row,) = read_log(tmp_path / "new" / "log").rows
    assert (row.values, row.model, row.study_id) == (_values(0.25), "3", None)
    assert row.time == datetime(2026, 11, 23, 18, tzinfo=UTC)
    (path,) = (tmp_path / "new" / "log").iterdir()
    assert path.name == "answers-2026-11.jsonl"
    assert b"52" not in path.read_bytes()
    assert set(json.loads(path.read_text())) == {"time", "model", "values"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_pseudonym_is_kept_where_one_is_given(tmp_path: Path) -> None:
    _log(tmp_path).append(_values(0.1), model="1", study_id="stabc")
    assert [row.study_id for row in read_log(tmp_path).rows] == ["stabc"]


def test_a_window_begins_with_since_and_ends_before_until(tmp_path: Path) -> None:
    for day in range(40):
        _log(tmp_path, NOW + timedelta(days=day)).append(_values(day), model="1")
    assert len(list(tmp_path.iterdir())) == 3
    since, until = NOW.replace(minute=0, second=0) + timedelta(days=5), NOW + timedelta(days=9)
    found = read_log(tmp_path, since=since, until=until).rows
    assert [row.values["probability/x/severe"] for row in found] == [5, 6, 7, 8, 9]


def test_repeated_predictions_of_a_study_count_once_except_by_another_version_or_without_images(
    tmp_path: Path,
) -> None:
    log = _log(tmp_path)
    for model in ("1", "1", "2"):
        log.append(_values(0.5), model=model)
    for _ in range(3):
        log.append(_values(0.7, present=0.0), model="1")
    assert [row.model for row in read_log(tmp_path).rows] == ["1", "2", "1", "1", "1"]


def test_an_incomplete_line_is_counted_and_affects_no_other(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.append(_values(0.1), model="1")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for cut in (1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:cut])
        log.append(_values(0.2), model="1")
        window = read_log(tmp_path)
        assert [row.values["probability/x/severe"] for row in window.rows] == [0.1, 0.2]
        # All but the last character of a row is still a row, the same as the first.
        assert window.num_bad_lines == (cut < len(whole) - 1)


def _append_many(folder: Path, worker: int) -> None:
    log = _log(folder)
    for number in range(100):
        log.append(_values(worker * 1000 + number), model="1" * 3000)


def test_concurrent_appends_keep_rows_intact(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    window = read_log(tmp_path)
    assert window.num_bad_lines == 0
    assert {row.values["probability/x/severe"] for row in window.rows} == {
        worker * 1000 + number for worker in range(4) for number in range(100)
    }


def test_an_incomplete_write_leaves_no_partial_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _log(tmp_path)
    log.append(_values(0.1), model="1")
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(OSError, match="A row must be written"):
        log.append(_values(0.2), model="1")
    assert path.read_bytes() == before


def test_no_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--log must be"):
        read_log(tmp_path)
