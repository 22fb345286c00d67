"""Journal files: atomic writes, the lock and damaged entries."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lumbar_tf.interop.watch_journal import JournalEntry, ResultFile, WatchJournal, WatchState

ROOT = Path(__file__).resolve().parents[2]
ENTRY = JournalEntry(
    "1.2.1",
    WatchState.GRADED,
    num_images=12,
    changed_at=1000.5,
    total=14,
    attempts=1,
    waits=2,
    next_attempt=1700.25,
    reason="storing: no connection (unavailable)",
    results=(ResultFile("1.2.1.8", "dicom/1.2.1.sr.dcm"),),
    stored=("1.2.1.8",),
    late_images=3,
    num_graded=9,
    replaced=(ResultFile("1.2.1.7", "dicom/1.2.1.sr.dcm", "1.2.2"),),
)


def test_an_entry_round_trips(tmp_path: Path) -> None:
    journal = WatchJournal(tmp_path / ".watch")
    assert journal.read("1.2.1") is None
    journal.write(ENTRY)
    assert journal.read("1.2.1") == ENTRY and journal.open_uids() == ["1.2.1"]
    journal.write(replace(ENTRY, state=WatchState.STORED), is_closed=True)
    assert journal.open_uids() == [] and journal.closed_uids() == ["1.2.1"] and journal.is_closed("1.2.1")
    journal.write(ENTRY)
    assert journal.open_uids() == ["1.2.1"] and journal.closed_uids() == []


def test_an_entry_in_both_folders_is_closed(tmp_path: Path) -> None:
    journal = WatchJournal(tmp_path / ".watch")
    journal.write(replace(ENTRY, state=WatchState.STORED), is_closed=True)
    (tmp_path / ".watch" / "open").mkdir()
    (tmp_path / ".watch" / "open" / "1.2.1.json").write_text(ENTRY.to_json())
    (tmp_path / ".watch" / "open" / ".1.2.2.json.7-01234567.tmp").write_text("half")
    assert journal.read("1.2.1") == replace(ENTRY, state=WatchState.STORED)
    with journal.locked():
        assert list((tmp_path / ".watch" / "open").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "lost"}', "null"])
def test_a_damaged_entry_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    journal = WatchJournal(tmp_path / ".watch")
    journal.write(ENTRY)
    (tmp_path / ".watch" / "open" / "1.2.1.json").write_text(text)
    with pytest.raises(ValueError, match=r"open/1\.2\.1\.json must be a valid journal entry"):
        journal.read("1.2.1")


def test_a_uid_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="StudyInstanceUID"):
        WatchJournal(tmp_path).read("../1")


def test_the_lock_refuses_a_second_program_and_ends_with_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from lumbar_tf.interop.watch_journal import WatchJournal\n"
        f"with WatchJournal(Path({str(tmp_path / '.watch')!r})).locked():\n"
        "    print('locked', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        with (
            pytest.raises(ValueError, match="one watch at a time"),
            WatchJournal(tmp_path / ".watch").locked(),
        ):
            pass
    finally:
        process.kill()
        process.communicate()
    with WatchJournal(tmp_path / ".watch").locked():
        pass
