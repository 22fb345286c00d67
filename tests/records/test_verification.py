import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.labels import Plane
from lumbar_tf.records.framing import RecordWriter, masked_crc32c, read_records
from lumbar_tf.records.issues import IssueCode
from lumbar_tf.records.shard_check import read_record_at
from lumbar_tf.records.verification import verify_records

T2 = "sagittal_t2/part-00000.tfrecord"
T2_NEXT = "sagittal_t2/part-00001.tfrecord"
AXIAL = "axial_t2/part-00000.tfrecord"
MANIFEST = "manifest.json"
Plant = Callable[[Path], object]


def _flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 1
    path.write_bytes(data)


def _records(path: Path) -> list[bytes]:
    return list(read_records(path))


def _write(path: Path, records: list[bytes]) -> None:
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for each in records:
            writer.write(each)


def _place(path: Path, index: int) -> int:
    """Where a record begins in its file."""
    return sum(len(each) + 16 for each in _records(path)[:index])


def _rewrite(path: Path, order: list[int]) -> None:
    records = _records(path)
    _write(path, [records[index] for index in order])


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _swap(first: Path, second: Path) -> None:
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _absurd_length(path: Path) -> None:
    head = struct.pack("<Q", 1 << 60)
    path.write_bytes(head + struct.pack("<I", masked_crc32c(head)) + path.read_bytes()[12:])


def _long_length(path: Path) -> None:
    """A length that lies within the limit and far beyond the file, with the right checksum."""
    head = struct.pack("<Q", 3 << 30)
    path.write_bytes(head + struct.pack("<I", masked_crc32c(head)) + path.read_bytes()[12:])


#: What is planted, and exactly what must be named for it: code, file, record and study.
PLANTED: dict[str, tuple[Plant, set[tuple[str, str, int | None, str]]]] = {
    "a bit flipped in the middle of an image": (
        lambda folder: _flip(folder / T2, _place(folder / T2, 1) + 12 + len(_records(folder / T2)[1]) // 2),
        {("data_damaged", T2, 1, "11"), ("shard_changed", T2, None, "")},
    ),
    "a bit flipped in two records": (
        lambda folder: _flip(folder / T2, 200, _place(folder / T2, 2) + 200),
        {("data_damaged", T2, 0, "10"), ("data_damaged", T2, 2, "12"), ("shard_changed", T2, None, "")},
    ),
    "a bit flipped in a length": (
        lambda folder: _flip(folder / T2, _place(folder / T2, 1)),
        {
            ("length_damaged", T2, 1, "11"),
            ("record_missing", T2, None, "11"),
            ("record_missing", T2, None, "12"),
            ("shard_changed", T2, None, ""),
        },
    ),
    "a length beyond any record": (
        lambda folder: _absurd_length(folder / T2),
        {
            ("length_absurd", T2, 0, "10"),
            *(("record_missing", T2, None, each) for each in ("10", "11", "12")),
            ("shard_changed", T2, None, ""),
        },
    ),
    "a length beyond the file": (
        lambda folder: _long_length(folder / T2),
        {
            ("cut_in_record", T2, 0, "10"),
            *(("record_missing", T2, None, each) for each in ("10", "11", "12")),
            ("shard_changed", T2, None, ""),
        },
    ),
    "cut at a record boundary": (
        lambda folder: _cut(folder / T2, _place(folder / T2, 2)),
        {("record_missing", T2, None, "12"), ("shard_changed", T2, None, "")},
    ),
    "cut within a record": (
        lambda folder: _cut(folder / T2, _place(folder / T2, 2) + 100),
        {
            ("cut_in_record", T2, 2, "12"),
            ("record_missing", T2, None, "12"),
            ("shard_changed", T2, None, ""),
        },
    ),
    "cut within a length": (
        lambda folder: _cut(folder / T2, _place(folder / T2, 2) + 5),
        {
            ("cut_in_record", T2, 2, "12"),
            ("record_missing", T2, None, "12"),
            ("shard_changed", T2, None, ""),
        },
    ),
    "bytes behind the last record": (
        lambda folder: (folder / T2).open("ab").write(b"\0" * 40),
        {("length_damaged", T2, 3, ""), ("shard_changed", T2, None, "")},
    ),
    "an empty shard": (lambda folder: _cut(folder / T2, 0), {("shard_empty", T2, None, "")}),
    "a missing shard": (lambda folder: (folder / T2).unlink(), {("shard_missing", T2, None, "")}),
    "a folder in a shard's place": (
        lambda folder: [(folder / T2).unlink(), (folder / T2).mkdir()],
        {("file_unreadable", T2, None, "")},
    ),
    "a foreign shard": (
        lambda folder: shutil.copy(folder / T2, folder / "sagittal_t2" / "part-00007.tfrecord"),
        {("shard_foreign", "sagittal_t2/part-00007.tfrecord", None, "")},
    ),
    "two shards swapped": (
        lambda folder: _swap(folder / T2, folder / T2_NEXT),
        {("shard_swapped", T2, None, ""), ("shard_swapped", T2_NEXT, None, "")},
    ),
    "two planes swapped": (
        lambda folder: _swap(folder / T2, folder / AXIAL),
        {("shard_swapped", T2, None, ""), ("shard_swapped", AXIAL, None, "")},
    ),
    "a shard copied over another": (
        lambda folder: shutil.copy(folder / T2, folder / T2_NEXT),
        {
            ("shard_swapped", T2_NEXT, None, ""),
            *(("study_in_two_shards", T2_NEXT, index, str(10 + index)) for index in range(3)),
        },
    ),
    "two records swapped": (
        lambda folder: _rewrite(folder / T2, [1, 0, 2]),
        {("record_order", T2, 0, "11"), ("shard_changed", T2, None, "")},
    ),
    "a record twice": (
        lambda folder: _rewrite(folder / T2, [0, 1, 1, 2]),
        {("record_twice", T2, 2, "11"), ("shard_changed", T2, None, "")},
    ),
    "a record of another shard": (
        lambda folder: _write(folder / T2, [*_records(folder / T2), _records(folder / T2_NEXT)[0]]),
        {
            ("record_foreign", T2, 3, "13"),
            ("shard_changed", T2, None, ""),
            ("study_in_two_shards", T2_NEXT, 0, "13"),
        },
    ),
    "a record of another plane": (
        lambda folder: _write(folder / T2, [_records(folder / AXIAL)[0], *_records(folder / T2)[1:]]),
        {
            ("record_plane", T2, 0, "10"),
            ("shard_changed", T2, None, ""),
            ("study_in_two_shards", T2, 0, "10"),
        },
    ),
    "a record that is no Example": (
        lambda folder: _write(folder / T2, [b"\xff" * 50, *_records(folder / T2)[1:]]),
        {("not_an_example", T2, 0, "10"), ("shard_changed", T2, None, "")},
    ),
    "a wrong number of slices in the manifest": (
        lambda folder: _edit(folder, lambda m: m["studies"][1]["num_slices"].update(sagittal_t2=3)),
        {("slice_count", T2, 1, "11")},
    ),
    "a wrong number of records in the manifest": (
        lambda folder: _edit(folder, lambda m: m["planes"]["axial_t2"][0].update(num_examples=2)),
        {("manifest_contradiction", MANIFEST, None, "")},
    ),
    "a study that the manifest lists in two shards": (
        lambda folder: _edit(
            folder,
            lambda m: m["planes"]["sagittal_t2"][1].update(study_ids=["13", "14", "10"]),
        ),
        {
            ("manifest_contradiction", MANIFEST, None, "10"),
            ("manifest_contradiction", MANIFEST, None, "15"),
            ("record_foreign", T2_NEXT, 2, "15"),
            ("record_missing", T2_NEXT, None, "10"),
        },
    ),
    "a shard outside the folder": (
        lambda folder: _edit(folder, lambda m: m["planes"]["sagittal_t2"][0].update(file="../records/" + T2)),
        {
            ("manifest_contradiction", MANIFEST, None, ""),
            *(("manifest_contradiction", MANIFEST, None, each) for each in ("10", "11", "12")),
            ("shard_foreign", T2, None, ""),
        },
    ),
    "a patient group that is no study": (
        lambda folder: _edit(folder, lambda m: m["studies"][4].update(patient_group="99")),
        {("manifest_contradiction", MANIFEST, None, "14")},
    ),
    "no manifest": (
        lambda folder: (folder / MANIFEST).unlink(),
        {("manifest_absent", MANIFEST, None, "")},
    ),
    "no manifest, and a bit flipped": (
        lambda folder: [(folder / MANIFEST).unlink(), _flip(folder / T2, 100)],
        {("manifest_absent", MANIFEST, None, ""), ("data_damaged", T2, 0, "")},
    ),
    "a truncated manifest": (
        lambda folder: _cut(folder / MANIFEST, 700),
        {("manifest_damaged", MANIFEST, None, "")},
    ),
    "a manifest with a foreign key": (
        lambda folder: _edit(folder, lambda m: m.update(notes="none")),
        {("manifest_damaged", MANIFEST, None, "")},
    ),
    "a manifest of another schema": (
        lambda folder: _edit(folder, lambda m: m.update(schema_version="1.0.0")),
        {("manifest_schema", MANIFEST, None, "")},
    ),
    "a temporary file": (
        lambda folder: (folder / "sagittal_t2" / ".part-00002.tfrecord.17-0a1b2c3d.tmp").write_bytes(b"x"),
        {("leftover_file", "sagittal_t2/.part-00002.tfrecord.17-0a1b2c3d.tmp", None, "")},
    ),
    "an unfinished build's journal": (
        lambda folder: [(folder / ".build").mkdir(), (folder / ".build" / "plan.json").write_text("{}")],
        {("leftover_file", ".build/plan.json", None, "")},
    ),
    "a foreign file": (
        lambda folder: (folder / "notes.txt").write_text("x"),
        {("foreign_file", "notes.txt", None, "")},
    ),
    "a link": (
        lambda folder: (folder / "more").symlink_to(folder.parent),
        {("foreign_file", "more", None, "")},
    ),
}


def _named(folder: Path, **options: Any) -> set[tuple[str, str, int | None, str]]:
    found = verify_records(folder, **options).found
    assert len(found) == len(set(found)), "nothing is named twice"
    return {(each.code.value, each.file, each.record, each.study_id) for each in found}


def test_a_sound_folder_has_no_damage(records_folder: Path) -> None:
    (records_folder / "README.md").write_text("what lies here")
    result = verify_records(records_folder)
    assert result.found == ()
    assert result.manifest is not None
    assert len(result.records) == 12
    assert {each.file for each in result.records} == {T2, T2_NEXT, AXIAL, AXIAL.replace("00000", "00001")}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_damage_is_named_and_nothing_else(records_folder: Path, name: str) -> None:
    plant, expected = PLANTED[name]
    plant(records_folder)
    assert _named(records_folder) == expected


def test_several_damages_are_all_named(records_folder: Path) -> None:
    names = ["a foreign file", "two records swapped", "an unfinished build's journal"]
    for name in names:
        PLANTED[name][0](records_folder)
    assert _named(records_folder) == set().union(*(PLANTED[name][1] for name in names))


def test_planes_of_a_study_that_disagree_are_named(
    records_folder: Path, make_record: Callable[..., bytes]
) -> None:
    records = _records(records_folder / T2)
    _write(records_folder / T2, [make_record("10", Plane.SAGITTAL_T2, label=-1), *records[1:]])
    assert _named(records_folder) == {
        ("planes_disagree", T2, 0, "10"),
        ("shard_changed", T2, None, ""),
    }


@pytest.mark.slow
def test_workers_find_the_same(records_folder: Path) -> None:
    for name in ("a bit flipped in the middle of an image", "a foreign file"):
        PLANTED[name][0](records_folder)
    assert verify_records(records_folder, workers=2).found == verify_records(records_folder).found


def test_a_record_says_where_it_is(records_folder: Path) -> None:
    for each in verify_records(records_folder).records:
        assert read_record_at(records_folder, each) == _records(records_folder / each.file)[each.index]


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder"):
        verify_records(tmp_path / "none")


def test_the_codes_are_distinct() -> None:
    assert len({each.value for each in IssueCode}) == len(list(IssueCode)) >= 35


def test_no_mutation_of_a_shard_goes_unnoticed_and_none_of_any_file_breaks_the_check(
    records_folder: Path,
) -> None:
    rng = np.random.default_rng(0)
    for file in (T2, MANIFEST):
        path = records_folder / file
        sound = path.read_bytes()
        for _ in range(60):
            data = bytearray(sound)
            place, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
            kind = rng.integers(3)
            if kind == 0:
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del data[place : place + length]
            else:
                data[place:place] = rng.bytes(length)
            path.write_bytes(data)
            found = verify_records(records_folder).found
            assert file == MANIFEST or {each.file for each in found} == {T2}
        path.write_bytes(sound)
    assert verify_records(records_folder).found == ()


@pytest.mark.parametrize("place", [T2, "more.tfrecord", "notes.txt"])
def test_a_pipe_is_named_and_not_waited_for(records_folder: Path, place: str) -> None:
    (records_folder / place).unlink(missing_ok=True)
    os.mkfifo(records_folder / place)
    codes = {"more.tfrecord": "shard_foreign", "notes.txt": "foreign_file"}
    assert (codes.get(place, "file_unreadable"), place, None, "") in _named(records_folder)


def test_a_pipe_without_a_manifest_is_not_waited_for(records_folder: Path) -> None:
    (records_folder / MANIFEST).unlink()
    os.mkfifo(records_folder / MANIFEST)
    os.mkfifo(records_folder / "axial_t2" / "part-00009.tfrecord")
    codes = {code for code, *_ in _named(records_folder)}
    assert {"manifest_absent", "file_unreadable"} <= codes


def test_a_shard_that_is_a_link_is_read_and_named(records_folder: Path) -> None:
    elsewhere = records_folder.parent / "elsewhere.tfrecord"
    (records_folder / T2).rename(elsewhere)
    (records_folder / T2).symlink_to(elsewhere)
    assert _named(records_folder) == {("shard_link", T2, None, "")}


def test_a_plane_whose_folder_is_a_link_is_named(records_folder: Path) -> None:
    (records_folder / "axial_t2").rename(records_folder.parent / "elsewhere")
    (records_folder / "axial_t2").symlink_to(records_folder.parent / "elsewhere")
    linked = {AXIAL, AXIAL.replace("00000", "00001")}
    assert _named(records_folder) == {("shard_link", file, None, "") for file in linked}
