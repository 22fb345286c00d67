"""Groupings of studies from a table."""

from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.tables.groups import MAX_GROUPINGS, MAX_GROUPS, UNKNOWN, read_group_table

_IDS = [f"{number:04d}" for number in range(60)]


def _write(path: Path, columns: dict[str, list[str]], ids: list[str] = _IDS) -> Path:
    rows = zip(ids, *columns.values(), strict=True)
    lines = [",".join(row) for row in (("study_id", *columns), *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_study_is_in_one_group_of_each_column(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    ages = [f"{age}" for age in generator.integers(20, 90, 60)]
    sexes = generator.choice(["F", "M", "", "NA"], 60).tolist()
    path = _write(tmp_path / "groups.csv", {"sex": sexes, "age": ages})
    asked = [*_IDS[:40], "another"]
    found = read_group_table(path, asked)
    assert (found.num_ignored, found.num_absent) == (20, 1)
    for grouping in found.groupings:
        assert list(grouping.group_of) == asked
        assert set(grouping.group_of.values()) <= set(grouping.order)
        assert grouping.group_of["another"] == UNKNOWN
    sex, age = found.groupings
    assert sex.order == ("F", "M", UNKNOWN)
    assert [sex.group_of[study] for study in _IDS[:40]] == [
        value if value in ("F", "M") else UNKNOWN for value in sexes[:40]
    ]
    assert len(age.order) == 4 and UNKNOWN not in [age.group_of[study] for study in _IDS[:40]]


def test_numbers_are_cut_at_their_terciles(tmp_path: Path) -> None:
    values = np.random.default_rng(1).permutation(np.arange(30.0, 90.0))
    path = _write(tmp_path / "groups.csv", {"age": [f"{value:g}" for value in values]})
    (age,) = read_group_table(path, _IDS).groupings
    assert age.order == ("up to 49", "over 49 to 69", "over 69", UNKNOWN)
    for name, is_inside in zip(
        age.order, (values <= 49, (values > 49) & (values <= 69), values > 69), strict=False
    ):
        assert [study for study in _IDS if age.group_of[study] == name] == [
            study for study, inside in zip(_IDS, is_inside, strict=True) if inside
        ]
        assert is_inside.sum() == 20
    # The bins belong to the table, whichever of its studies are evaluated.
    (part,) = read_group_table(path, _IDS[:7]).groupings
    assert part.order == age.order and part.group_of == {study: age.group_of[study] for study in _IDS[:7]}


def test_few_numbers_are_groups_in_their_order(tmp_path: Path) -> None:
    path = _write(tmp_path / "groups.csv", {"readers": [str((1, 2, 10)[place % 3]) for place in range(60)]})
    (readers,) = read_group_table(path, _IDS).groupings
    assert readers.order == ("1", "2", "10", UNKNOWN)


_AGES = [str(20 + place) for place in range(60)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": [f"Secret{place}" for place in range(60)]}, "column name: .* 60 values of 60 studies"),
        ({"uid": [f"1.2.840.{place}" for place in range(60)]}, "column uid: "),
        ({"mrn": [str(4711000 + place) for place in range(60)]}, "column mrn: "),
        ({"padded": [f"{place:03d}" for place in range(60)]}, "column padded: "),
        ({"date": [f"2024-01-{place:02d}T" for place in range(60)]}, "column date: "),
        ({"age": [*_AGES[:-1], "Secret"]}, "line 61, column age: a column of numbers"),
        ({"site": [f"s{place // 2}" for place in range(60)]}, f"at most {MAX_GROUPS} groups. Received: 30"),
        ({f"c{index}": ["a"] * 60 for index in range(MAX_GROUPINGS + 1)}, f"1 to {MAX_GROUPINGS} columns"),
        ({}, f"1 to {MAX_GROUPINGS} columns"),
        ({"": ["a"] * 60}, "each with its own name"),
    ],
)
def test_other_columns_are_refused_without_their_values(
    tmp_path: Path, columns: dict[str, list[str]], message: str
) -> None:
    path = _write(tmp_path / "groups.csv", columns)
    with pytest.raises(ValueError, match=message) as error:
        read_group_table(path, _IDS)
    assert str(path) in str(error.value)
    assert not any(value in str(error.value) for value in ("Secret", "1.2.840", "4711", "2024"))


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("study_id,site,site\n1,a,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="each with its own name"):
        read_group_table(path, ["1"])


def test_studies_are_named_once(tmp_path: Path) -> None:
    path = _write(tmp_path / "groups.csv", {"site": ["a", "b", "a"]}, ids=["1", "2", "1"])
    with pytest.raises(ValueError, match=r"line 4, column study_id: study_id must be given, and once.*'1'"):
        read_group_table(path, ["1", "2"])
