"""A self-test that was passed is not repeated in the same environment, and in every other one it is."""

import json
import os
from pathlib import Path

import pytest

from lumbar_tf.bundle import self_test_record
from lumbar_tf.bundle.self_test_record import (
    cache_folder,
    describe_conditions,
    discard_record,
    has_passed,
    record_passed,
)

CONDITIONS = {"manifest_sha256": "0" * 64, "tensorflow": "2.20.0"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUMBAR_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def record(cache: Path) -> Path:
    """The file of a test that was passed."""
    record_passed(CONDITIONS)
    (path,) = (path for path in cache.rglob("*") if path.is_file())
    return path


def _bundle(folder: Path, text: str = "{}") -> Path:
    (folder / "assets.extra").mkdir(parents=True, exist_ok=True)
    (folder / "assets.extra" / "ensemble.json").write_text(text)
    return folder


def test_a_passed_test_is_found_until_it_is_discarded() -> None:
    assert not has_passed(CONDITIONS)
    record_passed(CONDITIONS)
    assert has_passed(CONDITIONS)
    assert not has_passed({**CONDITIONS, "tensorflow": "2.21.0"})
    discard_record(CONDITIONS)
    assert not has_passed(CONDITIONS)
    discard_record(CONDITIONS)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 10**5, '{"a": "b"}', "\0\xff", "9" * 10**6])
def test_a_damaged_or_foreign_record_counts_as_none(record: Path, content: str) -> None:
    record.write_bytes(content.encode("latin-1"))
    assert not has_passed(CONDITIONS)
    record_passed(CONDITIONS)
    assert has_passed(CONDITIONS)


def test_a_record_under_the_name_of_another_counts_as_none(record: Path) -> None:
    record.write_text(json.dumps({**CONDITIONS, "tensorflow": "2.19.0"}))
    assert not has_passed(CONDITIONS)


def test_a_record_that_others_can_write_counts_as_none(record: Path) -> None:
    assert record.stat().st_mode & 0o777 == 0o600
    for mode in (0o620, 0o602):
        record.chmod(mode)
        assert not has_passed(CONDITIONS)


def test_a_record_of_another_user_counts_as_none(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not has_passed(CONDITIONS)


def test_a_folder_or_pipe_in_place_of_a_record_counts_as_none(record: Path) -> None:
    record.unlink()
    os.mkfifo(record)
    assert not has_passed(CONDITIONS)
    record.unlink()
    record.mkdir()
    assert not has_passed(CONDITIONS)
    record_passed(CONDITIONS)


def test_a_folder_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.write_text("a file")
    record_passed(CONDITIONS)
    discard_record(CONDITIONS)
    assert not has_passed(CONDITIONS)


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUMBAR_TF_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/lumbar_tf")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/someone/.cache/lumbar_tf")
    monkeypatch.setattr(Path, "home", _no_home)
    assert cache_folder() is None
    record_passed(CONDITIONS)
    assert not has_passed(CONDITIONS)


def _no_home() -> Path:
    raise RuntimeError("no home")


def test_another_bundle_signature_package_processor_or_environment_is_another_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle(tmp_path / "1")
    first = describe_conditions(bundle, with_saliency=True)
    assert first == describe_conditions(bundle, with_saliency=True)
    assert {"lumbar_tf", "tensorflow", "keras", "numpy", "processor"} <= set(first)
    assert all(first.values())
    others = [
        describe_conditions(bundle, with_saliency=False),
        describe_conditions(_bundle(tmp_path / "2", "{ }"), with_saliency=True),
    ]
    with monkeypatch.context() as patch:
        patch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        others.append(describe_conditions(bundle, with_saliency=True))
    with monkeypatch.context() as patch:
        patch.setattr(self_test_record, "package_versions", lambda *names: {"tensorflow": "2.17.0"})
        others.append(describe_conditions(bundle, with_saliency=True))
    assert first not in others
    # The level of the log, which commands set, changes no output.
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    assert describe_conditions(bundle, with_saliency=True) == first
