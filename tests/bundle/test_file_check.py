"""A bundle's manifest lists each of its files, and nothing else is in the folder."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.bundle.file_check import find_file_faults, seal_description
from lumbar_tf.files import file_sha256

NAMES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


def _write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "assets.extra" / "ensemble.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The files of a bundle, without a graph in them."""
    folder = tmp_path / "1"
    for name in (*NAMES, "assets.extra/stacker.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    (folder / "assets").mkdir()
    digests = {name: file_sha256(folder / name) for name in (*NAMES, "assets.extra/stacker.json")}
    return _write(folder, seal_description({"members": ["a/b"], "version": 1}, digests))


def _manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "assets.extra" / "ensemble.json").read_text("utf-8"))
    return content


def test_an_untouched_bundle_has_no_fault(bundle: Path) -> None:
    assert find_file_faults(bundle) == []


def test_a_bundle_from_before_the_digest_of_the_description_has_no_fault(bundle: Path) -> None:
    content = _manifest(bundle)
    del content["description_sha256"]
    assert find_file_faults(_write(bundle, content)) == []


def test_a_changed_description_is_found(bundle: Path) -> None:
    (fault,) = find_file_faults(_write(bundle, {**_manifest(bundle), "version": 2}))
    assert "ensemble.json is not the description that was exported" in fault


@pytest.mark.parametrize("files", [None, {}, [], "saved_model.pb"])
def test_a_manifest_without_files_is_found(bundle: Path, files: object) -> None:
    faults = find_file_faults(_write(bundle, {**_manifest(bundle), "files": files}))
    assert "must list the SHA-256 of every file" in faults[-1]


def test_a_file_that_the_manifest_does_not_list_is_found(bundle: Path) -> None:
    (bundle / "assets.extra" / "more.json").write_text("{}", encoding="utf-8")
    assert find_file_faults(bundle) == ["assets.extra/more.json is not listed in `files` of ensemble.json"]


@pytest.mark.parametrize("name", ["saved_model.cpb", "saved_model.pbtxt", "libcustom.so", "assets/table.txt"])
def test_a_listed_file_of_another_name_is_found(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"x")
    content = _manifest(bundle)
    digests = {**content["files"], name: file_sha256(bundle / name)}
    (fault,) = find_file_faults(_write(bundle, seal_description({"members": []}, digests)))
    assert fault == f"{name!r} is not the name of a bundle's file"


def test_names_outside_the_folder_are_not_read(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    digests = {**_manifest(bundle)["files"], "../secret": file_sha256(tmp_path / "secret")}
    assert find_file_faults(_write(bundle, seal_description({"members": []}, digests))) == [
        "../secret is absent"
    ]


def test_links_are_found_whatever_they_point_to(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("saved_model.pb", encoding="utf-8")
    (bundle / "saved_model.pb").unlink()
    (bundle / "saved_model.pb").symlink_to(tmp_path / "elsewhere")
    (fault,) = find_file_faults(bundle)
    assert fault.startswith("'saved_model.pb' must be a file, and not a link")


def test_a_pipe_is_found_and_not_read(bundle: Path) -> None:
    os.mkfifo(bundle / "fingerprint.pb")
    (fault,) = find_file_faults(bundle)
    assert fault.startswith("'fingerprint.pb' must be a file")


def test_a_folder_of_another_name_is_found(bundle: Path) -> None:
    (bundle / "variables" / "a" / "b").mkdir(parents=True)
    (fault,) = find_file_faults(bundle)
    assert fault.startswith("'variables/a' must be a file")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 100_000, '{"members": 3}', '{"members": ["a"], "n": ' + "9" * 5000 + "}", "\ud800"],
)
def test_a_manifest_that_is_none_is_an_error_that_names_it(bundle: Path, text: str) -> None:
    path = bundle / "assets.extra" / "ensemble.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"A bundle's assets\.extra/ensemble\.json must"):
        find_file_faults(bundle)
