from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.monitoring.log import LogRow
from lumbar_tf.monitoring.reference import (
    REFERENCE_PATH,
    Kind,
    find_reference,
    make_reference,
    read_reference,
    reference_of_log,
    write_reference,
)


def _rows(count: int = 100) -> list[dict[str, float | None]]:
    rng = np.random.default_rng(0)
    return [
        {"p": float(rng.random()), "rows": float(rng.choice([320, 512])), "gap": None if number % 4 else 3.5}
        for number in range(count)
    ]


def test_values_are_counted_in_deciles_or_by_value_where_few() -> None:
    rows = _rows()
    found = make_reference(rows, model="4", made_from="a test").distributions
    assert found["p"].kind is Kind.BINS
    assert found["p"].counts == (10,) * 10 + (0,)
    assert found["p"].median == np.median([row["p"] or 0 for row in rows])
    assert (found["rows"].kind, found["rows"].points) == (Kind.CATEGORIES, (320.0, 512.0))
    assert sum(found["rows"].counts[:2]) == 100
    assert found["gap"].counts == (25, 0, 75)


def test_values_are_counted_where_they_belong() -> None:
    found = make_reference(_rows(), model="4", made_from="a test").distributions
    assert found["rows"].count([320.0, 321.0, 512.0, 1.0, None]).tolist() == [1, 1, 2, 1]
    assert found["p"].count([-5.0, 5.0, None]).tolist() == [1] + [0] * 8 + [1, 1]


def test_a_quantity_counts_only_the_studies_that_it_was_measured_on() -> None:
    rows = [*_rows(60), *({"p": 0.5} for _ in range(40))]
    found = make_reference(rows, model="4", made_from="a test").distributions
    assert (sum(found["p"].counts), sum(found["rows"].counts)) == (100, 60)


def test_a_reference_is_read_as_it_was_written_and_found_in_a_version(tmp_path: Path) -> None:
    reference = make_reference(_rows(), model="4", made_from="a test")
    for version in ("4", "10"):
        write_reference(tmp_path / version / REFERENCE_PATH, reference)
    newest = tmp_path / "10" / REFERENCE_PATH
    assert read_reference(newest) == reference
    assert [find_reference(path) for path in (tmp_path, tmp_path / "10", newest)] == [newest] * 3
    with pytest.raises(ValueError, match="--reference must be"):
        find_reference(tmp_path / "4" / "assets.extra" / "absent")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "1", "made_from": "", "quantities": {"p": {}}}'])
def test_an_invalid_reference_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"reference\.json must be a reference"):
        read_reference(path)


def test_a_reference_from_a_log_has_one_version() -> None:
    time = datetime(2026, 11, 2, tzinfo=UTC)
    rows = [LogRow(time, "4", values) for values in _rows(30)]
    reference = reference_of_log(rows)
    assert (reference.model, reference.made_from) == ("4", "30 studies of a log, 2026-11-02 to 2026-11-02")
    with pytest.raises(ValueError, match="the predictions of one version"):
        reference_of_log([*rows, LogRow(time, "5", rows[0].values)])
    with pytest.raises(ValueError, match="at least 30"):
        reference_of_log(rows[:29])
